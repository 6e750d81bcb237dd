"""Joints in metres and their camera, carried through views: seen by it, joints lie where the picture shows them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mdpose_edge.camera import Camera
from mdpose_edge.families.base import People
from mdpose_edge.spec import COCO_KEYPOINTS, InputSpec
from mdpose_edge.train.augment import Sample, random_view, warp_people
from mdpose_edge.train.config import AugmentConfig
from mdpose_edge.train.mosaic import joined, mosaic_tiles
from mdpose_edge.train.paste import pasted

WH = (640, 480)
CAMERA = Camera(700.0, 650.0, 300.0, 250.0)
INTRINSIC = np.array([[700.0, 0.0, 300.0], [0.0, 650.0, 250.0], [0.0, 0.0, 1.0]])
EVERYTHING = AugmentConfig(rotation_prob=1.0, expand_prob=0.5, crop_prob=0.8, flip_prob=0.5)
REPROJECTION_PX = 0.01


def joints_in_view(seed: int, people: int = 3) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    depth = rng.uniform(2.0, 9.0, (people, 1)) + rng.normal(0.0, 0.3, (people, 17))
    pixels = rng.uniform((150, 100), (500, 380), (people, 1, 2)) + rng.normal(0.0, 30.0, (people, 17, 2))
    rays = (pixels - (CAMERA.cx, CAMERA.cy)) / (CAMERA.fx, CAMERA.fy)
    return np.concatenate([rays * depth[..., None], depth[..., None]], axis=2)


def seen(joints: NDArray[np.floating], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    points = joints @ np.swapaxes(matrix, -1, -2)
    return np.asarray(points[..., :2] / points[..., 2:])


def view_of(seed: int, spec: InputSpec, config: AugmentConfig = EVERYTHING) -> People:
    joints = joints_in_view(seed)
    pixels = seen(joints, INTRINSIC)
    low, high = pixels.min(axis=1), pixels.max(axis=1)
    boxes = np.concatenate([low, high - low], axis=1)
    view = random_view(np.random.default_rng(seed), WH, low + (high - low) / 2, spec, config)
    keypoints = np.concatenate([pixels, np.full((3, 17, 1), 2.0)], axis=2).astype(np.float32)
    return warp_people(keypoints, boxes, view, spec, COCO_KEYPOINTS, keypoints_3d=joints, camera=CAMERA)


def reprojection_px(people: People) -> float:
    assert people.keypoints_3d is not None and people.cameras is not None
    return float(np.abs(seen(people.keypoints_3d, people.cameras) - people.keypoints_xy).max(initial=0.0))


@given(st.integers(0, 2**32 - 1), st.sampled_from(["stretch", "letterbox"]))
def test_scale_crop_flip_and_rotation_change_the_camera(seed: int, resize: str) -> None:
    people = view_of(seed, InputSpec(256, 384, resize=resize))  # type: ignore[arg-type]
    assert reprojection_px(people) < REPROJECTION_PX


def test_a_mirror_trades_left_and_right_in_three_dimensions_too() -> None:
    spec, plain = InputSpec(256, 384), AugmentConfig(rotation_prob=0.0, expand_prob=0.0, crop_prob=0.0, flip_prob=1.0)
    joints, people = joints_in_view(1), view_of(1, spec, plain)
    assert people.keypoints_3d is not None and people.cameras is not None
    np.testing.assert_allclose(people.keypoints_3d[:, [5, 6]], joints[:, [6, 5]], rtol=1e-6)
    assert (np.linalg.det(people.cameras[:, :2, :2]) < 0).all()


def test_a_mosaic_and_pasted_people_keep_their_cameras() -> None:
    tiles = mosaic_tiles(InputSpec(256, 384), 2)
    views = [
        Sample(np.zeros((t.spec.height, t.spec.width, 3), np.uint8), view_of(i, t.spec)) for i, t in enumerate(tiles)
    ]
    whole = joined(views, tiles)
    assert len(whole.people.labelled) > 4 and reprojection_px(whole.people) < REPROJECTION_PX
    above = Sample(np.zeros_like(whole.image), view_of(9, InputSpec(256, 384)))
    both = pasted(whole, above, np.zeros((256, 384), np.float32))
    assert len(both.people.labelled) > len(whole.people.labelled)
    assert reprojection_px(both.people) < REPROJECTION_PX


def test_people_of_two_dimensions_go_along() -> None:
    spec = InputSpec(64, 64)
    keypoints = np.full((1, 17, 3), 2.0, np.float32)
    box = np.array([[0.0, 0.0, 9.0, 9.0]])
    view = random_view(np.random.default_rng(0), (64, 64), np.zeros((0, 2)), spec, AugmentConfig())
    unknown = np.full((1, 17, 3), np.nan)
    people = warp_people(keypoints, box, view, spec, COCO_KEYPOINTS, box_suffices=True, keypoints_3d=unknown)
    flat = warp_people(keypoints, box, view, spec, COCO_KEYPOINTS, box_suffices=True)
    assert flat.keypoints_3d is None and flat.cameras is None
    assert people.keypoints_3d is not None and people.cameras is not None
    assert people.keypoints_3d.shape == (len(people.labelled), 17, 3)
    assert np.isnan(people.keypoints_3d).all() and np.isnan(people.cameras).all()
