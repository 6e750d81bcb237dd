"""MPJPE, 3DPCK, depth and recall of people who are found, missed, or of two dimensions."""

from __future__ import annotations

import numpy as np
import pytest

from mdpose_edge.errors import ConfigError
from mdpose_edge.families.solid import root_of
from mdpose_edge.families.solid_figures import SolidFigures
from mdpose_edge.poses import Poses
from mdpose_edge.spec import COCO_KEYPOINTS, KeypointSpec

ROOT = root_of(COCO_KEYPOINTS)


def test_a_person_missed_is_not_free_and_flat_people_do_not_count() -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform(0.0, 60.0, (4, 17, 2)) + 100.0 * np.arange(4)[:, None, None]
    joints = (
        rng.normal(0.0, 0.3, (4, 17, 3)) + np.array([0.0, 0.0, 3.0]) + 3.0 * np.arange(4)[:, None, None] * (0, 0, 1)
    )
    joints[3] = np.nan
    keypoints = np.concatenate([xy, np.full((4, 17, 1), 2.0)], axis=2)
    areas = np.array([500.0, 3000.0, 20000.0, 3000.0])
    said = joints[[1, 0]].copy()
    said[:, :, 2] += 0.1  # everybody is 0.1 m deeper
    said[1, 0] += np.array([0.0, 1.7, 0.0])  # one joint is 1.7 m off
    poses = Poses(
        xy[[1, 0]].astype(np.float32), np.array([0.9, 0.8], np.float32), np.ones((2, 17, 2), np.float32),
        keypoints_3d=said.astype(np.float32),
    )  # fmt: skip
    figures = SolidFigures(ROOT, COCO_KEYPOINTS.sigmas)
    figures.add(poses, keypoints, areas, joints)
    found = figures.figures()
    assert found["people"] == 3 and found["recall"] == pytest.approx(2 / 3)
    assert found["MPJPE_mm"] == pytest.approx(1700.0 / 34, rel=1e-3)
    assert found["PCK_rel"] == pytest.approx(33 / 51) and found["PCK_rel_found"] == pytest.approx(33 / 34)
    assert found["PCK_abs"] == pytest.approx(33 / 51)
    assert found["root_depth_mm"] == pytest.approx(100.0, rel=1e-3)
    assert (found["people_small"], found["people_medium"], found["people_large"]) == (1, 1, 1)
    assert found["recall_large"] == 0.0 and found["MPJPE_mm_large"] is None
    assert (found["people_near"], found["people_middle"], found["people_far"]) == (1, 1, 1)


def test_nobody_has_no_figures() -> None:
    assert SolidFigures(ROOT, COCO_KEYPOINTS.sigmas).figures() == {}


def test_an_image_without_poses_counts_its_people() -> None:
    nobody = Poses(
        np.zeros((0, 17, 2), np.float32), np.zeros(0, np.float32), np.zeros((0, 17, 2), np.float32),
        keypoints_3d=np.zeros((0, 17, 3), np.float32),
    )  # fmt: skip
    figures = SolidFigures(ROOT, COCO_KEYPOINTS.sigmas)
    figures.add(nobody, np.full((1, 17, 3), 2.0), np.array([100.0]), np.ones((1, 17, 3)))
    assert figures.figures()["recall"] == 0.0 and figures.figures()["PCK_rel"] == 0.0
    assert figures.figures()["MPJPE_mm"] is None


def test_a_root_has_a_name() -> None:
    assert ROOT == (11, 12)
    assert root_of(KeypointSpec(("nose", "pelvis"), (), (), (0.1, 0.1))) == (1,)
    with pytest.raises(ConfigError, match="expected a keypoint pelvis, or both left_hip and right_hip"):
        root_of(KeypointSpec(("nose",), (), (), (0.1,)))
