"""The third dimension at the gate: what moved, what is worse, and what is not judged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.families.das.heads import Constants, das_spec, pyramid
from mdpose_edge.families.das.measures import SolidMeasure
from mdpose_edge.families.measure import Finding, Observation, ObservedImage, Truth
from mdpose_edge.poses import Poses
from mdpose_edge.spec import InputSpec

SPEC = das_spec(InputSpec(64, 64), Constants(pyramid(InputSpec(64, 64)), (11, 12)))
PICTURE = np.zeros((64, 64, 3), np.uint8)


def people(count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """So many people side by side, 17 joints each: px and metres."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(0.0, 60.0, (count, 17, 2)) + 100.0 * np.arange(count)[:, None, None]
    joints = rng.normal(0.0, 0.3, (count, 17, 3)) + np.array([0.0, 0.0, 5.0])
    return xy.astype(np.float32), joints.astype(np.float32)


def seen(xy: NDArray[np.float32], joints: NDArray[np.float32]) -> Observation:
    poses = Poses(xy, np.linspace(0.9, 0.5, len(xy)).astype(np.float32), np.ones_like(xy), keypoints_3d=joints)
    return Observation(poses, poses)


def findings(candidate: Observation, reference: Observation, truth: Truth | None = None) -> dict[str, Finding]:
    measure = SolidMeasure(SPEC, SPEC)
    measure.add(ObservedImage(PICTURE, candidate, reference, truth))
    return {finding.key: finding for finding in measure.result().findings}


def truth_of(xy: NDArray[np.float32], joints: NDArray[np.float32]) -> Truth:
    return Truth(1, xy, np.ones(xy.shape[:2], np.bool_), np.full(len(xy), 3000.0), keypoints_3d=joints)


def test_roots_that_move_in_depth_are_told_from_joints_that_move() -> None:
    xy, joints = people(4)
    deeper = findings(seen(xy, joints + np.array([0, 0, 0.2], np.float32)), seen(xy, joints))
    assert abs((deeper["root_depth_mm"].worse or 0) - 200.0) < 0.1 and deeper["root_depth_mm"].held is False
    assert deeper["joints_3d_mm"].held is True
    bent = joints.copy()
    bent[:, 9] += np.float32(1.0)
    moved = findings(seen(xy, bent), seen(xy, joints))
    assert moved["root_depth_mm"].held is True and moved["joints_3d_mm"].held is False
    assert moved["mpjpe_mm"].held is None and "joints in metres" in moved["mpjpe_mm"].note


def test_a_higher_mpjpe_and_people_lost_are_worse() -> None:
    xy, joints = people(20)
    truth = truth_of(xy, joints + np.array([0.01, 0, 0], np.float32) * np.arange(17, dtype=np.float32)[:, None])
    same = findings(seen(xy, joints), seen(xy, joints), truth)
    assert same["mpjpe_mm"].held is True and same["pck_3d"].held is True and same["mpjpe_mm"].candidate
    fewer = findings(seen(xy[:15], joints[:15]), seen(xy, joints), truth)
    assert fewer["pck_3d"].held is False and fewer["pck_3d"].candidate == 75.0
    stretched = findings(seen(xy, 0.9 * joints), seen(xy, joints), truth)
    assert stretched["mpjpe_mm"].held is False
    few = findings(seen(xy[:5], joints[:5]), seen(xy[:5], joints[:5]), truth_of(xy[:5], joints[:5]))
    assert few["mpjpe_mm"].held is None and few["mpjpe_mm"].note == "5 people, fewer than 20"


def test_people_of_two_dimensions_are_not_measured() -> None:
    xy, joints = people(20)
    flat = np.full_like(joints, np.nan)
    found = findings(seen(xy, joints), seen(xy, joints), truth_of(xy, flat))
    assert found["mpjpe_mm"].note == "no people with joints in metres"


def test_nobody_in_common_is_not_judged() -> None:
    xy, joints = people(3)
    found = findings(seen(xy, joints), seen(xy + np.float32(5000.0), joints))
    assert found["root_depth_mm"].held is None and found["joints_3d_mm"].note == "no people in common"
