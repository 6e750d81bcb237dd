"""Raw scores: which are usable, which are above a threshold, which are the best. What the decoders share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LARGEST_RAW = 1e30
"""A raw value beyond this is refused like an infinite one; below it nothing overflows float32."""


def usable(values: NDArray[np.float32]) -> bool:
    """Say whether raw values are finite and not absurd; NaN passes through max and min and fails both comparisons."""
    return not values.size or bool(values.max() <= LARGEST_RAW and values.min() >= -LARGEST_RAW)


def largest(scores: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Return the positions of the `count` largest scores, ascending; of equal scores, the first."""
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    chosen = scores > least
    ties = np.flatnonzero(scores == least)
    chosen[ties[: count - np.count_nonzero(chosen)]] = True
    return np.flatnonzero(chosen)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute scores in float64, rounded once to float32, so that a larger logit never has a smaller score."""
    return (1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).astype(np.float32)


def logit_cut(threshold: float) -> np.float32:
    """Find the largest float32 logit whose float32 score is not above a threshold.

    The sigmoid is monotonic, so that `logit > cut` says exactly what `score > threshold` says, by bisection down to
    neighbouring floats: the inverse function alone would err by some units in the last place.
    """
    low, high = np.float32(-110.0), np.float32(20.0)  # their float32 scores are 0 and 1
    if threshold >= 1.0:
        return np.float32(np.inf)
    while True:
        middle = np.float32((low + high) / 2)
        if middle in (low, high):
            return low
        if sigmoid(np.array([middle]))[0] > np.float32(threshold):
            high = middle
        else:
            low = middle
