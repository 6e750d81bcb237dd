"""What is said of timings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdpose_edge.bench.statistics import (
    CONFIDENCE,
    MAX_SPREAD,
    MAX_TAIL,
    MIN_ROUNDS,
    compare,
    fastest_tenth,
    judge_stability,
    median_ratio,
    quantiles,
    ratio_text,
)


def test_quantiles() -> None:
    found = quantiles(np.arange(101.0)[::-1])
    assert found == {"p50": 50, "p90": 90, "p99": 99, "mean": 50, "fastest_tenth": 5}


def test_the_fastest_tenth_is_the_mean_of_the_calls_that_nothing_held_up() -> None:
    assert fastest_tenth(np.array([[7.0, 3.0], [9.0, 4.0]])) == 3
    assert fastest_tenth(np.array([9.0, 1.0, 2.0] + [10.0] * 17)) == 1.5


def test_a_quiet_run_is_stable() -> None:
    rounds = 10 + 0.1 * np.random.default_rng(0).normal(size=(20, 10))
    found = judge_stability(rounds)
    assert (found.stable, found.why) == (True, "")
    assert found.spread < 0.02


@pytest.mark.parametrize(
    ("factor", "throttled", "word"),
    [
        pytest.param(np.repeat(np.linspace(1, 1.3, 20)[:, None], 10, axis=1), 0, "medians spread", id="drift"),
        pytest.param(np.where(np.arange(10) < 2, 2.0, 1.0)[None].repeat(20, axis=0), 0, "p90 is 2.00", id="long tail"),
        pytest.param(np.ones((20, 10)), 3, "throttled 3 times", id="heat"),
    ],
)
def test_a_run_that_is_not_stable_says_why(factor: np.ndarray, throttled: int, word: str) -> None:
    found = judge_stability(10 * factor, throttled)
    assert not found.stable
    assert word in found.why


def test_the_limits_are_where_they_are_said_to_be() -> None:
    low, high = 1 - MAX_SPREAD / 2, 1 + MAX_SPREAD / 2
    medians = np.array([low] * 6 + [1.0] * 8 + [high] * 6)
    assert judge_stability(np.repeat(medians[:, None], 4, axis=1)).spread == pytest.approx(MAX_SPREAD)
    assert judge_stability(np.array([[1.0] * 8 + [MAX_TAIL] * 2])).stable
    assert not judge_stability(np.array([[1.0] * 8 + [1.01 * MAX_TAIL] * 2])).stable


def test_drift_that_hits_both_leaves_the_ratio_alone() -> None:
    drift = np.linspace(1, 3, 20)[:, None]
    rng = np.random.default_rng(0)
    one, other = (drift * (ms + 0.01 * rng.normal(size=(20, 5))) for ms in (6.0, 4.0))
    found = median_ratio(one, other)
    assert found.median == pytest.approx(1.5, rel=0.01)
    assert found.low < 1.5 < found.high
    assert found.high - found.low < 0.02
    assert found.tells_apart


def test_equals_are_not_told_apart() -> None:
    rng = np.random.default_rng(3)
    assert not median_ratio(rng.lognormal(size=(20, 5)), rng.lognormal(size=(20, 5))).tells_apart


@given(st.integers(MIN_ROUNDS, 60))
def test_the_interval_has_its_confidence_and_no_shorter_one_does(rounds: int) -> None:
    ratios = np.arange(1.0, rounds + 1)
    found = median_ratio(ratios[:, None], np.ones((rounds, 1)))
    assert found.confidence >= CONFIDENCE
    cut = int(found.low) - 1
    assert found.high == rounds - cut
    flips = np.random.default_rng(rounds).integers(0, 2, (20_000, rounds)).sum(axis=1)
    covered = np.mean((flips > cut) & (flips < rounds - cut))
    assert covered == pytest.approx(found.confidence, abs=0.01)
    shorter = np.mean((flips > cut + 1) & (flips < rounds - cut - 1))
    assert shorter < CONFIDENCE + 0.01


@pytest.mark.parametrize(("ones", "others"), [(MIN_ROUNDS - 1, MIN_ROUNDS - 1), (20, 19)])
def test_too_few_rounds_are_refused(ones: int, others: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        median_ratio(np.ones((ones, 3)), np.ones((others, 3)))


def test_one_comparison_has_both_ratios() -> None:
    """A neighbour on both sides of half of the rounds leaves both ratios; one on one side moves the median."""
    held_up = np.where(np.arange(12) % 2 == 0, 5.0, 1.0)
    found = compare(3.0 * held_up, held_up)
    assert found == {"within_rounds": 3.0, "low": 3.0, "high": 3.0, "of_fastest": 3.0}
    assert ratio_text(found) == "3.00 within rounds (3.00-3.00), 3.00 of the fastest tenths"
    one_sided = compare(np.where(np.arange(12) < 8, 9.0, 3.0), np.ones(12))
    assert (one_sided["within_rounds"], one_sided["of_fastest"]) == (9.0, 3.0)
    with pytest.raises(ValueError, match="at least 6 rounds"):
        compare(np.ones(5), np.ones(5))
