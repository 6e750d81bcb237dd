from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mdpose_edge.families.peaks import Peaks, best, by_map, find_peaks, nearest


def rows_of(peaks: Peaks) -> list[tuple[int, int, float]]:
    return list(zip(peaks.maps.tolist(), peaks.cells.tolist(), peaks.logits.tolist(), strict=True))


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))
def test_each_height_has_a_peak_where_nothing_around_it_is_higher(
    seed: int, maps: int, rows: int, columns: int
) -> None:
    """Few heights, so that most maps are plateaus: no peak has a higher neighbour, and no two touch."""
    rng = np.random.default_rng(seed)
    logits = rng.integers(0, 3, (maps, rows, columns)).astype(np.float32)
    peaks = find_peaks(logits, np.float32(0.5))
    assert set(peaks.maps) == {m for m in range(maps) if logits[m].max() > 0.5}
    for m, cell, value in rows_of(peaks):
        row, column = divmod(int(cell), columns)
        around = logits[m, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        assert value == logits[m, row, column] == around.max() > 0.5
    places = {(m, *divmod(int(cell), columns)) for m, cell, _ in rows_of(peaks)}
    touching = [
        (a, b)
        for a in places
        for b in places
        if a < b and a[0] == b[0] and max(abs(a[1] - b[1]), abs(a[2] - b[2])) == 1
    ]
    assert not touching


def test_the_best_peaks_are_first_and_equal_ones_keep_their_order() -> None:
    logits = np.zeros((1, 1, 9), np.float32)
    logits[0, 0, ::2] = (2, 5, 2, 5, 3)
    assert best(find_peaks(logits, np.float32(1)), 9).cells.tolist() == [2, 6, 8, 0, 4]
    assert best(find_peaks(logits, np.float32(1)), 3).cells.tolist() == [2, 6, 8]


def test_the_nearest_is_of_the_same_map_and_among_the_best() -> None:
    logits = np.zeros((3, 1, 5), np.float32)
    logits[0, 0, [0, 2, 4]] = (1, 3, 2)
    logits[1, 0, 2] = 1
    peaks = find_peaks(logits, np.float32(0.5))
    points = np.stack([peaks.cells, peaks.maps]).astype(np.float32)
    targets = np.array([[[0.4], [0.4], [0.4]], [[0], [0], [0]]], np.float32)
    found, distance = nearest(targets, by_map(peaks, points, 3, most=9))
    assert found[:, 0, 0].tolist() == [0, 0] and found[:, 1, 0].tolist() == [2, 1] and np.isinf(distance[2, 0])
    found, distance = nearest(targets, by_map(peaks, points, 3, most=2))
    assert found[:, 0, 0].tolist() == [2, 0] and distance[0, 0] == np.float32(1.6)
