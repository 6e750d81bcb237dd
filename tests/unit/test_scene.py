"""The panel in three dimensions: who is where, from which side, and what it says of a guessed camera."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge.draw import LEFT_BGR, SHEET_BGR
from mdpose_edge.poses import Poses
from mdpose_edge.scene import beside, draw_scene, panel_width
from mdpose_edge.spec import COCO_KEYPOINTS


def two_people(near_m: float = 3.0, far_m: float = 6.0) -> Poses:
    rng = np.random.default_rng(0)
    joints = rng.normal(0.0, 0.05, (2, 17, 3)) * (1, 4, 1) + np.array([[[-0.5, 0, near_m]], [[0.5, 0, far_m]]])
    xy = np.zeros((2, 17, 2), np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    return Poses(xy, scores, np.ones_like(xy), keypoints_3d=joints.astype(np.float32), metric=True)


def columns_of(panel: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Where anything of the left sides is."""
    return np.flatnonzero((panel == LEFT_BGR).all(axis=2).any(axis=0))


def rows_of(panel: NDArray[np.uint8]) -> NDArray[np.intp]:
    return np.flatnonzero((panel == LEFT_BGR).all(axis=2).any(axis=1))


def test_from_the_camera_people_stand_side_by_side_and_from_the_side_one_behind_the_other() -> None:
    poses = two_people()
    front = draw_scene(poses, COCO_KEYPOINTS, (400, 400), yaw_deg=0.0, pitch_deg=0.0)
    side = draw_scene(poses, COCO_KEYPOINTS, (400, 400), yaw_deg=90.0, pitch_deg=0.0)
    plan = draw_scene(poses, COCO_KEYPOINTS, (400, 400), yaw_deg=0.0, pitch_deg=90.0)
    assert np.ptp(columns_of(side)) > 1.4 * np.ptp(columns_of(front))
    assert np.ptp(rows_of(plan)) > 1.5 * np.ptp(rows_of(front))
    assert columns_of(side).min() >= 30 and columns_of(side).max() < 370
    closer = draw_scene(two_people(3.0, 3.1), COCO_KEYPOINTS, (400, 400), yaw_deg=90.0, pitch_deg=0.0)
    assert np.ptp(columns_of(closer)) < 0.5 * np.ptp(columns_of(side))


def test_from_above_the_farther_person_is_higher() -> None:
    """As on a plan that one reads with the camera at the bottom."""
    poses = two_people()
    one = draw_scene(poses.take(np.array([0])), COCO_KEYPOINTS, (400, 400))
    assert (one != SHEET_BGR).any()
    far_left = dataclasses.replace(poses, keypoints_3d=poses.keypoints_3d[::-1].copy())  # type: ignore[index]
    both = [draw_scene(p, COCO_KEYPOINTS, (400, 400), yaw_deg=0.0, pitch_deg=90.0) for p in (poses, far_left)]
    for panel in both:  # x of the farther person is 0.5, to the right
        right = rows_of(panel[:, 220:])
        left = rows_of(panel[:, :180])
        assert right.mean() < left.mean()


def test_a_guessed_camera_is_told() -> None:
    poses = two_people()
    guessed = dataclasses.replace(poses, metric=False)
    known, told = (draw_scene(p, COCO_KEYPOINTS, (400, 400)) for p in (poses, guessed))
    changed = (known != told).any(axis=2)
    assert changed[370:].any() and not changed[:350].any()


def test_the_panel_stands_beside_the_picture_of_models_that_know_metres() -> None:
    picture = np.full((99, 150, 3), 7, np.uint8)
    poses = two_people()
    both = beside(picture, poses, COCO_KEYPOINTS)
    assert both.shape == (99, 150 + panel_width(99), 3) and panel_width(99) % 2 == 0
    assert (both[:, :150] == 7).all() and (both[:, 150:] != 7).any()
    assert beside(picture, dataclasses.replace(poses, keypoints_3d=None), COCO_KEYPOINTS) is picture


@pytest.mark.parametrize("value", [1e30, np.nan])
def test_nobody_and_nonsense_leave_an_empty_panel(value: float) -> None:
    poses = two_people()
    nonsense = dataclasses.replace(poses, keypoints_3d=np.full_like(poses.keypoints_3d, value))
    for nobody in (nonsense, poses.take(np.zeros(0, np.intp))):
        assert (draw_scene(nobody, COCO_KEYPOINTS, (100, 80)) == SHEET_BGR).all()
