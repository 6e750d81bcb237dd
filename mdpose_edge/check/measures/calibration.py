"""Is the set that INT8 ranges were measured on fit for the images in use?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mdpose_edge.check.measures.colour import colour_cast, swapped_log_odds
from mdpose_edge.families.measure import Finding, Measured, ObservedImage

GROUP = "Calibration"


@dataclass(frozen=True)
class CalibrationLimits:
    """What a calibration set must be."""

    images: int = 100
    """At least: with fewer, ranges hang on single images, and whether they fit others is luck."""
    swapped_colours: float = 3.0
    """Natural logarithm of odds of 20 to 1 that the inputs have red and blue swapped."""


class CalibrationMeasure:
    """How many calibration images there are, and whether their colours are those of the images of the check.

    Args:
        casts: `colour_cast` of each calibration input.
        limits: on both.
    """

    def __init__(self, casts: Sequence[float], limits: CalibrationLimits) -> None:
        self._calibration, self._limits = casts, limits
        self._used: list[float] = []

    def add(self, image: ObservedImage) -> None:
        """Count one image: see `Measure`."""
        self._used.append(colour_cast(image.pixels))

    def result(self) -> Measured:
        """Return what was found: see `Measure`."""
        odds = swapped_log_odds(self._calibration, self._used)
        return Measured(judge_calibration(len(self._calibration), odds, self._limits))


def judge_calibration(images: int, log_odds: float | None, limits: CalibrationLimits) -> tuple[Finding, ...]:
    """Judge the number of calibration images, and the log odds that red and blue are swapped in them."""
    label, missing = f"calibration images (at least {limits.images})", float(limits.images - images)
    count = Finding("calibration_images", GROUP, label, "images", images, None, -missing, missing, 0.0)
    note = "too few images to tell" if log_odds is None else ""
    label, limit = "red and blue swapped in calibration", limits.swapped_colours
    colours = Finding("swapped_colours", GROUP, label, "log odds", None, None, log_odds, log_odds, limit, note)
    return count, colours
