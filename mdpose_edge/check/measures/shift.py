"""How far the same people moved: poses of both sides at the threshold of use, without annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.check.matching import match, pose_oks
from mdpose_edge.families.measure import Finding, Measured, ObservedImage
from mdpose_edge.poses import Poses

GROUP, UNIT = "Poses of the same people", "% of the pose"


@dataclass(frozen=True)
class ShiftLimits:
    """How far poses may move. Where it comes from is measured in docs/gate.md."""

    shift: float = 1.0
    """% of the longer side of a person's box, mean over the keypoints of all people."""
    min_people: int = 20
    """For a shift that is judged."""


class ShiftMeasure:
    """The distance between both sides' keypoints of the same person, as a part of the person's size.

    Args:
        sigmas: the keypoints' OKS constants.
        limits: on the mean.
    """

    def __init__(self, sigmas: Sequence[float], limits: ShiftLimits) -> None:
        self._sigmas, self._limits = sigmas, limits
        self._moved: list[NDArray[np.float64]] = []

    def add(self, image: ObservedImage) -> None:
        """Count one image: see `Measure`."""
        candidate, reference = image.candidate.deployed, image.reference.deployed
        self._moved.append(pose_shifts(candidate, reference, self._sigmas))

    def result(self) -> Measured:
        """Return what was found: see `Measure`."""
        return Measured((judge_shift(np.concatenate(self._moved), self._limits),))


def judge_shift(shifts: NDArray[np.float64], limits: ShiftLimits) -> Finding:
    """Judge how far people moved, each as a part of the person's size."""
    count = len(shifts)
    note = f"{count} people, fewer than {limits.min_people}" if count < limits.min_people else ""
    mean, label = 100.0 * float(shifts.mean()) if count else None, "mean shift of keypoints"
    return Finding("pose_shift", GROUP, label, UNIT, None, None, mean, mean, limits.shift, note)


def pose_shifts(a: Poses, b: Poses, sigmas: Sequence[float]) -> NDArray[np.float64]:
    """Return, for each person whom both sides find, the mean distance of the keypoints over the longer side of the box.

    Args:
        a: poses of one artifact.
        b: those of the other, whose boxes count.
        sigmas: K constants of the keypoints.
    """
    pairs = match(pose_oks(a, b, sigmas))
    found = np.flatnonzero(pairs >= 0)
    ours, theirs = a.keypoints_xy[found].astype(np.float64), b.keypoints_xy[pairs[found]].astype(np.float64)
    boxes = b.boxes_xyxy[pairs[found]].astype(np.float64)
    sizes = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1), np.spacing(1.0))
    shifts: NDArray[np.float64] = np.linalg.norm(ours - theirs, axis=2).mean(axis=1) / sizes
    return shifts
