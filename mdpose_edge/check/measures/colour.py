"""Does a calibration set have the colours of the images in use?

Ranges hardly depend on the order of the colours: a set with red and blue swapped gives nearly the same graph, and no
figure of accuracy need tell (docs/gate.md has the measurement). What tells is the set itself: pictures of people hold
more red than blue, or of drawn people more of one than of the other, and a swap turns that around.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def colour_cast(pixels_bgr: NDArray[np.uint8]) -> float:
    """Return how much more blue than red an image holds, the mean over its pixels (H, W, 3), in uint8 steps."""
    mean = pixels_bgr.reshape(-1, 3).mean(axis=0)
    return float(mean[0] - mean[2])


def swapped_log_odds(calibration: Iterable[float], use: Iterable[float]) -> float | None:
    """Weigh the one hypothesis, that red and blue are swapped in one of two sets of images, against the other.

    The means of the two are normal by the central limit theorem. Swapped, they are each other's negative; else equal.

    Args:
        calibration: `colour_cast` of each image of one set.
        use: of the other.

    Returns:
        The log-likelihood ratio: above 0 where a swap explains the means better. None where a set has fewer
        than two images or no spread, so that nothing can be said.
    """
    a, b = np.fromiter(calibration, np.float64), np.fromiter(use, np.float64)
    if min(len(a), len(b)) < 2:
        return None
    variance = a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b)
    # ((a - b)² - (a + b)²) / (2 variance)
    return float(-2.0 * a.mean() * b.mean() / variance) if variance else None
