"""The scores that both sides give the same people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.check.matching import paired_scores
from mdpose_edge.families.measure import Finding, Histogram, Measured, ObservedImage, Pair

GROUP = "Scores of the same people"


@dataclass(frozen=True)
class ScoreLimits:
    """How far scores may move."""

    distance: float = 0.1
    """Kolmogorov-Smirnov, between the scores that both give the same people."""
    shift: float = 0.02
    """Of the median score, up or down: a threshold chosen on the reference would no longer mean the same."""
    min_scores: int = 20
    """For scores that are judged: with fewer, two poses that trade sides of a gap are worth more than the limit."""


class ScoreMeasure:
    """How far the scores are apart, as distributions and at the median.

    Args:
        threshold: of use; people whom neither side scores above it are left out.
        sigmas: the keypoints' OKS constants.
        limits: on both.
    """

    def __init__(self, threshold: float, sigmas: Sequence[float], limits: ScoreLimits) -> None:
        self._threshold, self._sigmas, self._limits = threshold, sigmas, limits
        self._scores: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []

    def add(self, image: ObservedImage) -> None:
        """Count one image: see `Measure`."""
        candidate, reference = image.candidate.poses, image.reference.poses
        self._scores.append(paired_scores(candidate, reference, self._threshold, self._sigmas))

    def result(self) -> Measured:
        """Return what was found: see `Measure`."""
        candidate, reference = (np.concatenate(parts) for parts in zip(*self._scores, strict=True))
        count = len(candidate)
        caption = f"Scores of {count} people whom a side puts above the threshold of use; 0: not found."
        histograms = (Histogram(caption, "score", candidate, reference, (0.0, 1.0)),) if count else ()
        return Measured(judge_scores(candidate, reference, self._limits), histograms)


def judge_scores(
    candidate: NDArray[np.float64], reference: NDArray[np.float64], limits: ScoreLimits
) -> tuple[Finding, ...]:
    """Judge the scores of the same people, (N,) each; 0 where a side has no such pose."""
    count = len(candidate)
    note = f"{count} scores, fewer than {limits.min_scores}" if count < limits.min_scores else ""
    apart = ks_distance(candidate, reference) if count else None
    shift = float(np.median(candidate - reference)) if count else None
    medians = Pair(*(float(np.median(side)) if count else None for side in (candidate, reference)))
    worse, label = None if shift is None else abs(shift), "score distributions apart"
    return (
        Finding("score_distance", GROUP, label, "distance", None, None, apart, apart, limits.distance, note),
        Finding("score_shift", GROUP, "median score shift", "score", *medians, shift, worse, limits.shift, note),
    )


def ks_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Return the Kolmogorov-Smirnov distance of two samples: the largest gap between their distribution functions."""
    points = np.concatenate([a, b])
    below_a = np.searchsorted(np.sort(a), points, side="right") / len(a)
    below_b = np.searchsorted(np.sort(b), points, side="right") / len(b)
    return float(np.abs(below_a - below_b).max())
