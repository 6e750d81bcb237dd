"""Joints in metres and cameras beside COCO's keys: read, kept, and refused where they cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdpose_edge.datasets.coco import load_split
from mdpose_edge.datasets.readers import open_split, select_keypoints
from mdpose_edge.errors import DataError
from mdpose_edge.spec import COCO_KEYPOINTS
from mdpose_edge.synth.dataset import write_dataset
from tests.unit.tiny_coco import document, person, write_split

CAMERA = {"focal": 500.0, "principal_point": [160.0, 120.0]}
JOINTS = [[0.1 * k, 0.2, 4.0] for k in range(17)]


def with_camera(people: list[dict[str, Any]], camera: Any = CAMERA, image_id: int = 7) -> dict[str, Any]:
    data = document(people)
    for image in data["images"]:
        if image["id"] == image_id and camera is not None:
            image["camera"] = camera
    return data


def test_people_of_two_and_of_three_dimensions_stand_in_one_file(tmp_path: Path) -> None:
    write_split(tmp_path, with_camera([person(3), person(7, keypoints_3d=JOINTS), person(7)]))
    split = load_split(tmp_path, "val")
    solid, flat = split.persons(0), split.persons(1)
    assert solid.camera is not None and (solid.camera.fx, solid.camera.cy) == (500.0, 120.0)
    assert solid.keypoints_3d is not None and flat.keypoints_3d is not None and flat.camera is None
    np.testing.assert_allclose(solid.keypoints_3d[0], JOINTS, rtol=1e-6)
    assert np.isnan(solid.keypoints_3d[1]).all() and np.isnan(flat.keypoints_3d).all()
    names = ("left_hip", "nose")
    few = select_keypoints(split, names).persons(0).keypoints_3d
    assert few is not None
    np.testing.assert_allclose(few[0], [JOINTS[11], JOINTS[0]], rtol=1e-6)


def test_a_file_of_two_dimensions_has_no_third(tmp_path: Path) -> None:
    write_split(tmp_path, with_camera([person(3)]))
    split = load_split(tmp_path, "val")
    assert split.keypoints_3d is None and split.persons(0).keypoints_3d is None and split.persons(0).camera is None


def test_drawn_joints_are_seen_where_the_picture_has_them(tmp_path: Path) -> None:
    write_dataset(tmp_path / "drawn", train_images=0, val_images=2, size=128, people=(2, 2), seed=3)
    split = open_split(tmp_path / "drawn", "val", keypoints=COCO_KEYPOINTS)
    for index in range(2):
        people = split.persons(index)
        assert people.keypoints_3d is not None and people.camera is not None
        x, y, z = np.moveaxis(people.keypoints_3d, 2, 0)
        camera = people.camera
        seen = np.stack([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy], axis=2)
        labelled = people.keypoints[..., 2] > 0
        assert labelled.sum() > 10
        np.testing.assert_allclose(seen[labelled], people.keypoints[..., :2][labelled], atol=0.02)


@pytest.mark.parametrize(
    ("joints", "camera", "message"),
    [
        (JOINTS, None, "a camera with each image that has keypoints_3d, got none on image 7"),
        (JOINTS[:16], CAMERA, r"keypoints_3d of 17 finite \[x, y, z\] in metres"),
        ([*JOINTS[:16], [0.0, "a", 1.0]], CAMERA, "keypoints_3d of 17 finite"),
        ([*JOINTS[:16], [0.0, float("nan"), 1.0]], CAMERA, "keypoints_3d of 17 finite"),
        ([*JOINTS[:16], [0.0, 0.0, 1e6]], CAMERA, "keypoints_3d of 17 finite"),
        (JOINTS, {"focal": 0.0, "principal_point": [1.0, 2.0]}, "a camera with focal .above 0. and principal_point"),
        (JOINTS, {"focal": 9.0, "principal_point": [1.0]}, "a camera with focal"),
        (JOINTS, {"principal_point": [1.0, 2.0]}, "a camera with focal"),
        (JOINTS, [500.0], "a camera with focal"),
    ],
)
def test_what_is_no_third_dimension_is_refused(tmp_path: Path, joints: Any, camera: Any, message: str) -> None:
    write_split(tmp_path, with_camera([person(7, keypoints_3d=joints)], camera))
    with pytest.raises(DataError, match=message):
        load_split(tmp_path, "val")
