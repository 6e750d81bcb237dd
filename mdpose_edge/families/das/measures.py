"""What the gate measures of this family beside what any model has: its mixtures, and its third dimension."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.families.das.heads import constants_of
from mdpose_edge.families.measure import Distance, Finding, Measure, Measured, ObservedImage, Pair
from mdpose_edge.families.mixture_measures import MixtureMeasure, mixture_distance
from mdpose_edge.families.solid import matched_pairs
from mdpose_edge.pose_errors import joint_errors, share_correct
from mdpose_edge.poses import Poses
from mdpose_edge.spec import ModelSpec

GROUP = "Third dimension"
NO_POSES = "no people in common"
NO_TRUTH = "no people with joints in metres"


@dataclass(frozen=True)
class SolidLimits:
    """How far the third dimension may change."""

    root_depth_mm: float = 100.0
    """Mean distance in depth between both sides' roots of the same person."""
    joints_mm: float = 20.0
    """Mean distance between both sides' joints, roots in one place."""
    mpjpe_percent: float = 2.0
    """By which the MPJPE may rise."""
    pck_points: float = 2.0
    """By which 3DPCK may fall."""
    min_people: int = 20
    """With fewer, accuracy is not judged."""


LIMITS = SolidLimits()


@dataclass
class _Truths:
    """What one side makes of annotated people."""

    relative_mm: list[NDArray[np.float64]] = field(default_factory=list)
    missed: int = 0

    def add(self, poses: Poses, image: ObservedImage, root: tuple[int, ...], sigmas: tuple[float, ...]) -> None:
        """Count the people of one image whose joints are known in metres."""
        truth = image.truth
        assert truth is not None and truth.keypoints_3d is not None and poses.keypoints_3d is not None
        solid = np.isfinite(truth.keypoints_3d).all(axis=(1, 2))
        found, who = matched_pairs(poses, truth.keypoints_xy, truth.labelled, truth.areas, sigmas)
        counted = solid[who]
        errors = joint_errors(poses.keypoints_3d[found[counted]], truth.keypoints_3d[who[counted]], root)
        self.relative_mm.append(errors.relative_mm)
        self.missed += int(solid.sum()) - int(counted.sum())

    @property
    def errors_mm(self) -> NDArray[np.float64]:
        """(people found, K)."""
        return np.concatenate(self.relative_mm) if self.relative_mm else np.zeros((0, 1))


class SolidMeasure:
    """Distances between both sides' poses of the same people, and of each side's from the annotated people.

    Args:
        candidate: its spec.
        reference: its spec, or None where only its results are known.
    """

    def __init__(self, candidate: ModelSpec, reference: ModelSpec | None) -> None:
        self._root, self._sigmas = constants_of(candidate).root, candidate.keypoints.sigmas
        self._depth: list[NDArray[np.float64]] = []
        self._joints: list[NDArray[np.float64]] = []
        self._truths = (_Truths(), _Truths())

    def add(self, image: ObservedImage) -> None:
        """Count one image: see `Measure`."""
        ours, theirs = image.candidate.deployed, image.reference.deployed
        if ours.keypoints_3d is None or theirs.keypoints_3d is None:
            return
        boxes = theirs.boxes_xyxy.astype(np.float64).reshape(len(theirs), 4)
        everything = np.ones(theirs.keypoints_xy.shape[:2], np.bool_)
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        found, who = matched_pairs(ours, theirs.keypoints_xy, everything, areas, self._sigmas)
        errors = joint_errors(ours.keypoints_3d[found], theirs.keypoints_3d[who], self._root)
        self._depth.append(np.abs(errors.root_depth_mm))
        self._joints.append(errors.relative_mm.mean(axis=1))
        if image.truth is not None and image.truth.keypoints_3d is not None:
            for side, seen in zip(self._truths, (image.candidate, image.reference), strict=True):
                side.add(seen.deployed, image, self._root, self._sigmas)

    def result(self) -> Measured:
        """Return what was found: see `Measure`."""
        return Measured((*self._between(), *self._accuracy()))

    def _between(self) -> Iterator[Finding]:
        for key, label, distances, limit in (
            ("root_depth_mm", "roots apart in depth", self._depth, LIMITS.root_depth_mm),
            ("joints_3d_mm", "joints apart, roots in one place", self._joints, LIMITS.joints_mm),
        ):
            values = np.concatenate(distances) if distances else np.zeros(0)
            mean = float(values.mean()) if len(values) else None
            yield Finding(key, GROUP, label, "mm", None, None, mean, mean, limit, "" if len(values) else NO_POSES)

    def _accuracy(self) -> Iterator[Finding]:
        errors = [side.errors_mm for side in self._truths]
        people = len(errors[0]) + self._truths[0].missed
        few = f"{people} people, fewer than {LIMITS.min_people}" if people < LIMITS.min_people else ""
        note = NO_TRUTH if not people else few
        mpjpe = Pair(*(float(one.mean()) if one.size else None for one in errors))
        rise, limit = mpjpe.change, LIMITS.mpjpe_percent / 100 * (mpjpe.reference or 0.0)
        unfound = "one side finds nobody" if rise is None else ""
        yield Finding("mpjpe_mm", GROUP, "MPJPE of people found", "mm", *mpjpe, rise, rise, limit, note or unfound)
        pairs = zip(errors, self._truths, strict=True)
        pck = Pair(*(share_correct(one, side.missed) if people else None for one, side in pairs)).percent()
        fall = None if pck.change is None else -pck.change
        label, unit = "3DPCK at 150 mm, of all people", "points"
        yield Finding("pck_3d", GROUP, label, unit, *pck, pck.change, fall, LIMITS.pck_points, note)


def measures(candidate: ModelSpec, reference: ModelSpec | None) -> tuple[Measure, ...]:
    """Return the family's measures for a check: see registry.make_measures."""
    return (MixtureMeasure(candidate, reference), SolidMeasure(candidate, reference))


def distance(spec: ModelSpec) -> Distance:
    """Return by what accuracy control ranks layers: see registry.make_distance."""
    return mixture_distance(spec)
