"""MuPoTS-3D and CMU Panoptic: tiny made-up files of the right form become people in metres before a camera."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge.datasets.keypoints import MUPOTS_KEYPOINTS, PANOPTIC_KEYPOINTS
from mdpose_edge.datasets.layout import is_dataset
from mdpose_edge.datasets.readers import open_split
from mdpose_edge.errors import DataError
from mdpose_edge.spec import COCO_KEYPOINTS

WH = (192, 108)
GREY = np.full((WH[1], WH[0], 3), 90, np.uint8)


def write_mupots(folder: Path, **changes: Any) -> NDArray[np.float64]:
    """Write one picture with two people, the second of them not valid; give the first one's joints, mm."""
    picture = folder / "MultiPersonTestSet" / "TS1" / "img_000000.jpg"
    picture.parent.mkdir(parents=True)
    assert cv2.imwrite(str(picture), GREY)
    rng = np.random.default_rng(0)
    joints = rng.normal(0.0, 300.0, (17, 3)) + np.array([0.0, 0.0, 4000.0])
    seen = np.stack([150 * joints[:, 0] / joints[:, 2] + 96, 140 * joints[:, 1] / joints[:, 2] + 54], axis=1)
    image = {
        "id": 3,
        "file_name": "TS1/img_000000.jpg",
        "width": WH[0],
        "height": WH[1],
        "intrinsic": [150, 140, 96, 54],
    }
    person = {"image_id": 3, "keypoints_img": seen.tolist(), "keypoints_cam": joints.tolist(), "is_valid": 1, **changes}
    people = [person, {**person, "is_valid": 0}]
    (folder / "MuPoTS-3D.json").write_text(json.dumps({"images": [image], "annotations": people}))
    return np.asarray(joints)


def write_panoptic(folder: Path, **changes: Any) -> NDArray[np.float64]:
    """Write two pictures of one camera, the second without bodies; give the body's joints in the camera's axes, m."""
    for frame in ("00000007", "00000008"):
        picture = folder / "hdImgs" / "00_16" / f"00_16_{frame}.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(picture), GREY)
    rng = np.random.default_rng(1)
    turn, _ = cv2.Rodrigues(np.array([0.1, 0.6, 0.0]))
    shift = np.array([10.0, 20.0, 300.0])
    world = rng.normal(0.0, 30.0, (19, 3))
    camera = {
        "name": "00_16", "type": "hd", "resolution": list(WH), "K": [[150, 0, 96], [0, 140, 54], [0, 0, 1]],
        "R": turn.tolist(), "t": [[value] for value in shift], "distCoef": [0.0] * 5, **changes,
    }  # fmt: skip
    (folder / f"calibration_{folder.name}.json").write_text(json.dumps({"cameras": [camera]}))
    bodies = folder / "hdPose3d_stage1_coco19"
    bodies.mkdir()
    whole = np.concatenate([world, np.full((19, 1), 0.5)], axis=1)
    part = whole.copy()
    part[0, 3] = -1
    document = {"bodies": [{"id": i, "joints19": joints.ravel().tolist()} for i, joints in enumerate((whole, part))]}
    (bodies / "body3DScene_00000007.json").write_text(json.dumps(document))
    return np.asarray((world @ turn.T + shift) / 100)


def test_mupots_has_joints_in_metres_and_a_camera(tmp_path: Path) -> None:
    joints = write_mupots(tmp_path)
    assert is_dataset(tmp_path)
    split = open_split(tmp_path, "test")
    assert split.format == "mupots" and split.keypoint_names == MUPOTS_KEYPOINTS.names
    people = split.persons(0)
    assert people.iscrowd.tolist() == [False, True] and people.camera is not None and people.camera.fy == 140.0
    assert people.keypoints_3d is not None
    np.testing.assert_allclose(people.keypoints_3d[0], joints / 1000, rtol=1e-5)
    assert (people.keypoints[0, :, 2] == 2).sum() > 5 and people.areas[0] > 0
    pelvis = open_split(tmp_path, "test", "mupots", MUPOTS_KEYPOINTS).keypoint_names.index("pelvis")
    assert pelvis == 14


def test_panoptic_is_seen_by_the_camera_that_the_split_names(tmp_path: Path) -> None:
    folder = tmp_path / "170407_haggling_a1"
    folder.mkdir()
    joints = write_panoptic(folder)
    assert is_dataset(folder)
    whole = open_split(folder, "00_16", keypoints=PANOPTIC_KEYPOINTS)
    assert len(whole.images) == 1 and whole.format == "panoptic"
    people = whole.persons(0)
    assert people.keypoints_3d is not None and people.camera is not None
    np.testing.assert_allclose(people.keypoints_3d[0], joints, rtol=1e-5)
    assert np.isnan(people.keypoints_3d[1]).all() and people.keypoints[1, 0, 2] == 0
    x, y, z = joints.T
    seen = np.stack([150 * x / z + 96, 140 * y / z + 54], axis=1)
    labelled = people.keypoints[0, :, 2] > 0
    assert labelled.sum() > 5
    np.testing.assert_allclose(people.keypoints[0, labelled, :2], seen[labelled], rtol=1e-4, atol=1e-3)
    coco = open_split(folder, "00_16")
    assert coco.keypoint_names == COCO_KEYPOINTS.names
    np.testing.assert_allclose(coco.persons(0).keypoints_3d[0, 0], joints[1], rtol=1e-5)  # type: ignore[index]


def test_what_is_not_of_the_form_is_refused(tmp_path: Path) -> None:
    write_mupots(tmp_path / "mupots", keypoints_cam=[[0, 0]])
    with pytest.raises(DataError, match="keypoints_3d of 17 finite"):
        open_split(tmp_path / "mupots", "test")
    write_mupots(tmp_path / "other", keypoints_img="none")
    with pytest.raises(DataError, match="annotations with keypoints_img and keypoints_cam"):
        open_split(tmp_path / "other", "test")
    folder = tmp_path / "sequence"
    folder.mkdir()
    write_panoptic(folder)
    with pytest.raises(DataError, match="expected an HD camera of 00_16, got 00_30; name one of these with --split"):
        open_split(folder, "00_30", "panoptic")
    (folder / "hdPose3d_stage1_coco19" / "body3DScene_00000007.json").write_text('{"bodies": [{"joints19": [1]}]}')
    with pytest.raises(DataError, match="bodies with joints19"):
        open_split(folder, "00_16")
    bad = tmp_path / "bad"
    bad.mkdir()
    write_panoptic(bad, K=[1])
    with pytest.raises(DataError, match="cameras with name, K, R, t, distCoef and resolution"):
        open_split(bad, "00_16")
