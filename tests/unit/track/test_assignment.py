from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mdpose_edge.track.assignment import assign

SHAPES = st.tuples(st.integers(0, 5), st.integers(0, 5))
VALUES = arrays(np.float64, SHAPES, elements=st.integers(0, 20).map(lambda n: n / 20))


def best_by_trying(values: np.ndarray, least: float) -> float:
    """Try every way; a pair that is not allowed counts for nothing."""
    worth = np.where(values >= least, values, 0.0)
    if worth.shape[0] > worth.shape[1]:
        worth = worth.T
    ways = permutations(range(worth.shape[1]), worth.shape[0])
    return max((sum(worth[row, column] for row, column in enumerate(way)) for way in ways), default=0.0)


@given(VALUES, st.sampled_from([0.05, 0.5]))
def test_no_other_pairing_is_worth_more(values: np.ndarray, least: float) -> None:
    pairs = assign(values, least)
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
    assert all(values[pair] >= least for pair in pairs)
    assert sum(values[pair] for pair in pairs) == pytest.approx(best_by_trying(values, least))


def test_the_first_choice_of_one_gives_way_to_the_sum() -> None:
    values = np.array([[0.9, 0.8], [0.85, 0.1]])
    assert assign(values, 0.05) == [(0, 1), (1, 0)]


def test_a_crowd_is_paired_quickly() -> None:
    rng = np.random.default_rng(0)
    order = rng.permutation(100)
    values = rng.uniform(0, 0.3, (100, 100))
    values[np.arange(100), order] = 0.9
    assert assign(values, 0.2) == [(row, int(order[row])) for row in range(100)]
