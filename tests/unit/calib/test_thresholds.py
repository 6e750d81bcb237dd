"""Where tensors are clipped."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mdpose_edge.calib.thresholds import LEVELS, METHODS, PERCENTILE, find_threshold
from mdpose_edge.errors import ConfigError

BINS, END = 4096, 8.0


def histogram(values: np.ndarray) -> tuple[np.ndarray, float]:
    counts, _ = np.histogram(np.abs(values), BINS, (0, END))
    return counts, float(np.abs(values).max())


def quantize(values: np.ndarray, amax: float) -> np.ndarray:
    step = amax / LEVELS
    return np.clip(np.round(values / step), -LEVELS - 1, LEVELS) * step


def squared_error(values: np.ndarray, amax: float) -> float:
    return float(np.square(values - quantize(values, amax)).mean())


@pytest.fixture
def heavy_tailed() -> np.ndarray:
    """A normal body and one outlier far away, as activations have them."""
    values = np.random.default_rng(0).normal(0, 0.5, 200_000)
    values[0] = 7.9
    return values


@given(hnp.arrays(np.int64, 512, elements=st.integers(0, 10_000)), st.sampled_from(METHODS))
def test_a_threshold_is_positive_and_not_above_the_peak(counts: np.ndarray, method: str) -> None:
    peak = float(np.flatnonzero(counts)[-1] + 0.5) * END / 512 if counts.any() else 0.0
    threshold = find_threshold(counts, END, peak, method)
    assert threshold == 0.0 if peak == 0.0 else 0.0 < threshold <= peak


def test_min_max_clips_nothing(heavy_tailed: np.ndarray) -> None:
    counts, peak = histogram(heavy_tailed)
    assert find_threshold(counts, END, peak, "min-max") == peak == 7.9


def test_percentile_keeps_its_share_within(heavy_tailed: np.ndarray) -> None:
    threshold = find_threshold(*_arguments(heavy_tailed), "percentile")
    assert 100 * (np.abs(heavy_tailed) <= threshold).mean() == pytest.approx(PERCENTILE, abs=0.003)


def test_mse_finds_the_least_squared_error(heavy_tailed: np.ndarray) -> None:
    threshold = find_threshold(*_arguments(heavy_tailed), "mse")
    tried = [squared_error(heavy_tailed, amax) for amax in np.linspace(0.5, 7.9, 100)]
    assert squared_error(heavy_tailed, threshold) <= 1.01 * min(tried)
    assert threshold < 5


def test_entropy_cuts_the_tail_and_keeps_the_body(heavy_tailed: np.ndarray) -> None:
    assert 1.0 < find_threshold(*_arguments(heavy_tailed), "entropy") < 4.0


@pytest.mark.parametrize("method", METHODS)
def test_a_flat_distribution_is_hardly_clipped(method: str) -> None:
    values = np.random.default_rng(0).uniform(-6, 6, 200_000)
    assert find_threshold(*_arguments(values), method) > 5.9


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_keeps_its_value(method: str) -> None:
    counts, peak = histogram(np.full(1000, 0.01))
    assert find_threshold(counts, END, peak, method) == pytest.approx(0.01, rel=0.2)


def test_an_unknown_method_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="--calib-method: expected one of min-max, percentile, entropy, mse, got kl"):
        find_threshold(np.ones(8, np.int64), 1.0, 1.0, "kl")


def _arguments(values: np.ndarray) -> tuple[np.ndarray, float, float]:
    counts, peak = histogram(values)
    return counts, END, peak
