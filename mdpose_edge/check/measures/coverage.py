"""Is sigma true? Part of the errors against annotations that lie within the interval of sigma that should hold them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.check.matching import match
from mdpose_edge.families.measure import Finding, Measured, ObservedImage, Pair, Truth
from mdpose_edge.families.mixture import Law
from mdpose_edge.oks import oks_matrix
from mdpose_edge.poses import Poses

GROUP = "Uncertainty"
CENTRAL_SHARES = (0.5, 0.9)
"""Of the errors' distribution: the intervals whose coverage is measured."""


@dataclass(frozen=True)
class CoverageLimits:
    """How far coverage may move."""

    change: float = 3.0
    """Points, up or down, of the share of coordinates within an interval of sigma."""
    min_coordinates: int = 200
    """For a coverage that is judged: the limit is then six coordinates that change sides."""


class CoverageMeasure:
    """Coverage of sigma's central intervals, of the labelled coordinates of people who have a pose.

    Args:
        sigmas: the keypoints' OKS constants.
        law: what the family says that a coordinate is distributed by.
        limits: on the change.
    """

    def __init__(self, sigmas: Sequence[float], law: Law, limits: CoverageLimits) -> None:
        self._sigmas, self._law, self._limits = sigmas, law, limits
        self._ratios: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = ([], [])

    def add(self, image: ObservedImage) -> None:
        """Count one image: see `Measure`."""
        assert image.truth is not None
        for side, seen in enumerate((image.candidate, image.reference)):
            self._ratios[side].append(error_ratios(seen.poses, image.truth, self._sigmas))

    def result(self) -> Measured:
        """Return what was found: see `Measure`."""
        ratios = [np.concatenate(side) for side in self._ratios]
        shares = {
            share: Pair(*(coverage(side, share, self._law) if len(side) else None for side in ratios))
            for share in CENTRAL_SHARES
        }
        return Measured(tuple(judge_coverage(shares, min(map(len, ratios)), self._limits)))


def judge_coverage(shares: Mapping[float, Pair], coordinates: int, limits: CoverageLimits) -> Iterator[Finding]:
    """Judge the coverage of intervals.

    Args:
        shares: the part of the coordinates that each interval holds, by the part that it should.
        coordinates: how many there are, on the side that has fewer.
        limits: on the change.
    """
    least = limits.min_coordinates
    few = f"{coordinates} coordinates, fewer than {least}" if coordinates < least else ""
    for share, pair in shares.items():
        percent = pair.percent()
        change = percent.change
        worse = None if change is None else abs(change)
        note = few or ("one side has no sigmas" if change is None else "")
        key, label = f"coverage_{share * 100:.0f}", f"coverage of sigma's {share:.0%} interval"
        yield Finding(key, GROUP, label, "% of coordinates", *percent, change, worse, limits.change, note)


def coverage(ratios: NDArray[np.floating], share: float, law: Law) -> float:
    """Return the part of errors that lie within the central interval that should hold `share` of them.

    Args:
        ratios: |error| / sigma of labelled coordinates, at least one.
        share: of the distribution, in (0, 1); a Laplace distribution's central interval reaches
            sigma / sqrt(2) * -log(1 - share) to each side, a Gaussian's its quantile of (1 + share) / 2.
        law: of the errors.
    """
    if law == "laplace":
        return float(np.mean(ratios * np.sqrt(2.0) <= -np.log1p(-share)))
    return float(np.mean(ratios <= NormalDist().inv_cdf((1 + share) / 2)))


def error_ratios(poses: Poses, truth: Truth, sigmas: Sequence[float]) -> NDArray[np.float64]:
    """Return |error| / sigma of each labelled coordinate of people who have a pose; none where sigmas are unknown."""
    oks = oks_matrix(poses.keypoints_xy, truth.keypoints_xy, truth.labelled, truth.areas, sigmas)
    pairs = match(oks)
    found = np.flatnonzero(pairs >= 0)
    seen = truth.labelled[pairs[found]]
    error = np.abs(poses.keypoints_xy[found] - truth.keypoints_xy[pairs[found]])[seen].astype(np.float64)
    sigma = poses.sigma_xy[found][seen].astype(np.float64)
    known = np.isfinite(sigma)
    ratios: NDArray[np.float64] = error[known] / np.maximum(sigma[known], np.spacing(1.0))
    return ratios
