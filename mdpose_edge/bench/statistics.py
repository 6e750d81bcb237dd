"""What can be said of timings: quantiles, whether they may be called stable, and how sure a ratio is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

QUANTILES = (50, 90, 99)
FASTEST = 0.1
"""The share of calls whose mean is called the fastest tenth: those that nothing else on the machine held up."""
MAX_SPREAD = 0.10
"""Stable means that the medians of the rounds, all but the fastest and the slowest tenth, lie within this share of the
median of all."""
MAX_TAIL = 1.5
"""Stable means that p90 is at most this many times p50."""
CONFIDENCE = 0.95
MIN_ROUNDS = 6
"""Fewer pairs than these give no interval of CONFIDENCE: their whole range covers the median in 93.75% at five."""


@dataclass(frozen=True)
class Stability:
    """Whether a run's figures are worth quoting."""

    stable: bool
    spread: float
    """Of the rounds' medians: (90th percentile - 10th percentile) / median."""
    tail: float
    """p90 / p50 of all calls."""
    why: str
    """What speaks against it, or ""."""


@dataclass(frozen=True)
class Ratio:
    """How many times the other's time one takes, with an interval that covers the true median ratio."""

    median: float
    low: float
    high: float
    confidence: float
    """How often such an interval covers; at least CONFIDENCE."""

    @property
    def tells_apart(self) -> bool:
        """Whether the two differ for certain: the interval leaves out 1."""
        return not self.low <= 1.0 <= self.high


def fastest_tenth(milliseconds: NDArray[np.float64]) -> float:
    """Return the mean of the fastest tenth of all calls, of one at least.

    Args:
        milliseconds: any shape, at least one.
    """
    count = math.ceil(FASTEST * milliseconds.size)
    return float(np.partition(milliseconds, count - 1, axis=None)[:count].mean())


def quantiles(milliseconds: NDArray[np.float64]) -> dict[str, float]:
    """Return p50, p90, p99, the mean, and the fastest tenth, by these names.

    Args:
        milliseconds: any shape, at least one.
    """
    found = {f"p{q}": float(ms) for q, ms in zip(QUANTILES, np.percentile(milliseconds, QUANTILES), strict=True)}
    return {**found, "mean": float(milliseconds.mean()), "fastest_tenth": fastest_tenth(milliseconds)}


def judge_stability(rounds_ms: NDArray[np.float64], throttle_events: int = 0) -> Stability:
    """Say whether a run is stable, by a rule that does not look at what one hoped for.

    Args:
        rounds_ms: (rounds, calls) end-to-end ms.
        throttle_events: how often the machine slowed itself down meanwhile.
    """
    medians = np.median(rounds_ms, axis=1)
    low, middle, high = np.percentile(medians, (10, 50, 90))
    half, most = np.percentile(rounds_ms, (50, 90))
    spread, tail = float((high - low) / middle), float(most / half)
    against = []
    if spread > MAX_SPREAD:
        against.append(f"the rounds' medians spread over {spread:.0%}, more than {MAX_SPREAD:.0%}")
    if tail > MAX_TAIL:
        against.append(f"p90 is {tail:.2f} times p50, more than {MAX_TAIL:g}")
    if throttle_events:
        against.append(f"the machine throttled {throttle_events} times")
    return Stability(not against, spread, tail, "; ".join(against))


def median_ratio(one_ms: NDArray[np.float64], other_ms: NDArray[np.float64]) -> Ratio:
    """Compare two that took turns, round by round.

    The interval is the one between order statistics of the rounds' ratios: it holds whatever the timings' distribution.

    Args:
        one_ms: (rounds, calls) ms of the one.
        other_ms: (rounds, calls) ms of the other; row i was measured right beside row i of the one. Calls may differ.

    Raises:
        ValueError: fewer than MIN_ROUNDS rounds, or not as many on both sides.
    """
    if len(one_ms) != len(other_ms) or len(one_ms) < MIN_ROUNDS:
        raise ValueError(f"expected at least {MIN_ROUNDS} rounds of each, got {len(one_ms)} and {len(other_ms)}")
    ratios = np.sort(np.median(one_ms, axis=1) / np.median(other_ms, axis=1))
    cut, confidence = _cut(len(ratios))
    return Ratio(float(np.median(ratios)), float(ratios[cut]), float(ratios[-1 - cut]), confidence)


def compare(one_ms: NDArray[np.float64], other_ms: NDArray[np.float64]) -> dict[str, float]:
    """Say how many times the other's time one takes, in two ways; a conclusion rests on the first.

    Args:
        one_ms: (rounds,) or (rounds, calls), any unit of time.
        other_ms: likewise; row i was measured right beside row i of the one.

    Returns:
        "within_rounds", the median over rounds of the ratio of their medians, with its interval "low" to "high"; and
        "of_fastest", the ratio of the two fastest tenths.

    Raises:
        ValueError: see `median_ratio`.
    """
    ratio = median_ratio(one_ms.reshape(len(one_ms), -1), other_ms.reshape(len(other_ms), -1))
    of_fastest = fastest_tenth(one_ms) / fastest_tenth(other_ms)
    return {"within_rounds": ratio.median, "low": ratio.low, "high": ratio.high, "of_fastest": of_fastest}


def ratio_text(compared: dict[str, float]) -> str:
    """Write what `compare` found."""
    within = f"{compared['within_rounds']:.2f} within rounds ({compared['low']:.2f}-{compared['high']:.2f})"
    return f"{within}, {compared['of_fastest']:.2f} of the fastest tenths"


def _cut(count: int) -> tuple[int, float]:
    """Say how many of the smallest and of the largest may be left out, and how often the rest covers the median."""
    cut, missed = 0, 2 / 2**count
    while (more := missed + 2 * math.comb(count, cut + 1) / 2**count) <= 1 - CONFIDENCE:
        cut, missed = cut + 1, more
    return cut, 1 - missed
