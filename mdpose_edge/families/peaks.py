"""Local maxima of maps of logits, and the nearest of them: what families share that find people by points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.families.scores import largest

NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""(rows, columns) away; the first four come before a cell in the order of the map, the others after it."""
_TOP, _BOTTOM, _LEFT, _RIGHT = 1, 2, 4, 8
_OUTSIDE = np.array(
    [
        [
            bool((row < 0 and edge & _TOP) or (row > 0 and edge & _BOTTOM))
            or bool((column < 0 and edge & _LEFT) or (column > 0 and edge & _RIGHT))
            for edge in range(16)
        ]
        for row, column in NEIGHBOURS
    ]
)
"""(8, 16): which neighbours a cell at these edges of its map lacks."""


@dataclass(frozen=True)
class Peaks:
    """N local maxima, in the order of the cells of all maps."""

    maps: NDArray[np.intp]
    """(N,): in which map."""
    cells: NDArray[np.intp]
    """(N,): flat, within the map."""
    logits: NDArray[np.float32]
    """(N,)"""

    def take(self, chosen: NDArray[np.intp]) -> Peaks:
        """Return some of the peaks, in another order."""
        return Peaks(self.maps[chosen], self.cells[chosen], self.logits[chosen])


def find_peaks(logits: NDArray[np.float32], cut: np.float32) -> Peaks:
    """Find the cells above a cut that no neighbour of the eight exceeds.

    Of neighbours that are equal the first is the peak, so that a plateau, which INT8 often makes, is one: a peak is
    above the four cells before it and not below the four after it.

    Args:
        logits: (maps, rows, columns), C-contiguous, without NaN.
        cut: a peak is above it.
    """
    _, rows, columns = logits.shape
    flat = logits.reshape(-1)
    candidates = _narrowed(flat, cut, logits.shape)
    maps, cells = np.divmod(candidates, rows * columns)
    row, column = np.divmod(cells, columns)
    edges = (row == 0) * _TOP + (row == rows - 1) * _BOTTOM + (column == 0) * _LEFT + (column == columns - 1) * _RIGHT
    steps = np.array([row * columns + column for row, column in NEIGHBOURS])
    around = flat.take(candidates + steps[:, None], mode="clip")
    around[_OUTSIDE.take(edges, axis=1)] = -np.inf
    values = flat.take(candidates)
    peak = (values > around[:4]).all(axis=0) & (values >= around[4:]).all(axis=0)
    return Peaks(maps[peak], cells[peak], values[peak])


def _narrowed(flat: NDArray[np.float32], cut: np.float32, shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Return the cells above the cut that may be peaks, most others dropped by one neighbour after the other.

    Cells at the border of a map stay: the cell beside them in memory may be of another row or map.
    """
    border, columns = _border(*shape), shape[2]
    above = flat > cut
    rising = flat[1:] > flat[:-1]
    kept = above.copy()
    kept[:-1] &= ~rising
    kept[1:] &= rising
    kept |= above & border
    candidates = np.flatnonzero(kept)
    for step in (columns, -columns):
        values, beside = flat.take(candidates), flat.take(candidates + step, mode="clip")
        inside = beside <= values if step > 0 else beside < values
        candidates = candidates[inside | border.take(candidates)]
    return candidates


@lru_cache(maxsize=16)
def _border(maps: int, rows: int, columns: int) -> NDArray[np.bool_]:
    border = np.ones((maps, rows, columns), np.bool_)
    border[:, 1:-1, 1:-1] = False
    border.flags.writeable = False
    return border.reshape(-1)


def best(peaks: Peaks, count: int) -> Peaks:
    """Return at most `count` peaks, best first; equal ones keep their order."""
    if len(peaks.logits) > count:
        peaks = peaks.take(largest(peaks.logits, count))
    return peaks.take(np.argsort(-peaks.logits, kind="stable"))


def cell_centers(cells: NDArray[np.intp], columns: int) -> NDArray[np.float32]:
    """Return where the centres of flat cells are, (2, N) in cells."""
    row, column = np.divmod(cells, columns)
    return np.stack([column, row]).astype(np.float32) + np.float32(0.5)


def by_map(peaks: Peaks, points: NDArray[np.float32], num_maps: int, most: int) -> NDArray[np.float32]:
    """Sort points by their map, those of the best peaks first.

    Args:
        peaks: where the points come from.
        points: (2, N).
        num_maps: how many maps there are.
        most: of one map.

    Returns:
        (2, maps, P), filled up with infinity; P is what the fullest map has, at most `most`, and at least 1.
    """
    order = np.lexsort((-peaks.logits, peaks.maps))
    maps = peaks.maps[order]
    rank = np.arange(len(maps)) - np.searchsorted(maps, np.arange(num_maps)).take(maps)
    kept = rank < most
    table = np.full((2, num_maps, int(rank[kept].max(initial=0)) + 1), np.inf, np.float32)
    table[:, maps[kept], rank[kept]] = points[:, order[kept]]
    return table


def nearest(points: NDArray[np.float32], table: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Find, for each point, the nearest of its own map; of equally near ones, that of the better peak.

    Args:
        points: (2, maps, N).
        table: of `by_map`.

    Returns:
        The nearest, (2, maps, N), and its distance, (maps, N): infinite where the map has none.
    """
    squared, y = (points[axis][..., None] - table[axis][:, None] for axis in (0, 1))
    squared *= squared
    y *= y
    squared += y  # in place: fresh memory costs more than the arithmetic
    chosen = squared.argmin(axis=2)
    found = np.stack([np.take_along_axis(axis, chosen, axis=1) for axis in table])
    return found, np.sqrt(np.take_along_axis(squared, chosen[..., None], axis=2)[..., 0])
