"""Where to clip a tensor, given the histogram of its magnitudes. What each method gave: docs/decisions/0007-int8.md."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.errors import ConfigError

METHODS = ("min-max", "percentile", "entropy", "mse")
DEFAULT_METHOD = "mse"
"""The one that measured best: docs/decisions/0007-int8.md."""
PERCENTILE = 99.99
"""Of the magnitudes."""
LEVELS = 127
"""Steps of symmetric int8 on either side of zero."""
CANDIDATES = 256
"""Thresholds tried, evenly spaced up to the largest magnitude."""


def check_method(method: str) -> None:
    """Refuse a method that is none.

    Raises:
        ConfigError: naming those that there are.
    """
    if method not in METHODS:
        do = "choose one of these"
        raise ConfigError("--calib-method", expected=f"one of {', '.join(METHODS)}", got=method, do=do)


def find_threshold(counts: NDArray[np.int64], end: float, peak: float, method: str) -> float:
    """Find the magnitude at which a tensor is clipped.

    Args:
        counts: (B,) values by magnitude, in bins of equal width over [0, end).
        end: the upper edge of the last bin.
        peak: the largest magnitude, exactly.
        method: "min-max": nothing is clipped. "percentile": PERCENTILE of the values are within. "entropy": the
            Kullback-Leibler divergence between the distribution and its int8 form is least (as in TensorRT). "mse": the
            mean squared error is least.

    Returns:
        The threshold, in (0, peak]; 0 where all values are 0.

    Raises:
        ConfigError: no such method.
    """
    check_method(method)
    if method == "min-max" or not peak:
        return peak
    width = end / counts.size
    # Values that are exactly 0 cost nothing at any scale, and after a ReLU they are half of all.
    if method == "percentile":
        within = np.cumsum(counts) >= counts.sum() * PERCENTILE / 100
        return min(peak, float(width * (np.argmax(within) + 1)))
    used = int(np.ceil(peak / width))
    candidates = np.unique(np.linspace(LEVELS, used, CANDIDATES).round().astype(int)) if used > LEVELS else [used]
    cost = _squared_error if method == "mse" else _divergence
    best = min(candidates, key=lambda bins: cost(counts[:used], int(bins)))
    return min(peak, float(width * best))


def _squared_error(counts: NDArray[np.int64], bins: int) -> float:
    """Sum the squared errors, in bins, of rounding and clipping at the end of the first `bins`."""
    magnitudes = np.arange(counts.size) + 0.5
    step = bins / LEVELS
    errors = magnitudes - np.minimum(np.round(magnitudes / step), LEVELS) * step
    return float((counts * errors**2).sum())


def _divergence(counts: NDArray[np.int64], bins: int) -> float:
    """Return KL(P || Q): P the distribution with its tail gathered in the last bin, Q as int8 would tell it.

    The first bin, which holds all zeros, is left out: every int8 grid has a zero.
    """
    reference = counts[:bins].astype(np.float64)
    level = np.minimum(np.arange(bins) * (LEVELS + 1) // bins, LEVELS)
    filled = reference > 0
    mass = np.bincount(level, weights=reference, minlength=LEVELS + 1)
    spread = np.bincount(level, weights=filled, minlength=LEVELS + 1)
    coarse = np.where(filled, (mass / np.maximum(spread, 1))[level], 0.0)
    reference[-1] += counts[bins:].sum()
    reference, coarse = reference[1:], coarse[1:]
    return _kl(_smooth(reference), _smooth(coarse))


def _smooth(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normalise, with a trace of weight on empty bins, so that no divergence is infinite."""
    traced = np.maximum(weights, 1e-4)
    smoothed: NDArray[np.float64] = traced / traced.sum()
    return smoothed


def _kl(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    return float((p * np.log(p / q)).sum())
