from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mdpose_edge.datasets.coco import load_split
from mdpose_edge.errors import DataError
from mdpose_edge.synth import write_video
from mdpose_edge.synth.body import Build
from mdpose_edge.synth.gait import figure_at, sample_stand, sample_walk

ADULT = Build(height=1.7, girth=1.0, shoulders=1.0, hips=1.0, head=1.0)
OPTIONS: dict[str, Any] = {"seconds": 0.8, "fps": 10.0, "size_wh": (160, 96), "people": 3, "seed": 5, "mp4": True}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "video"
    write_video(out, **OPTIONS)
    return out


def document_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "annotations" / "person_keypoints_val2017.json").read_text())
    return found


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_same_bytes_and_another_seed_others(video: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "again", **OPTIONS)
    write_video(tmp_path / "other", **{**OPTIONS, "seed": 6})
    assert digests(tmp_path / "again") == digests(video)
    assert not set(digests(tmp_path / "other").values()) & set(digests(video).values())


def test_it_is_a_coco_split_with_times_and_identities(video: Path) -> None:
    split, document = load_split(video, "val"), document_of(video)
    assert len(split.images) == 8
    assert [image["time_s"] for image in document["images"]] == [i / 10 for i in range(8)]
    assert [image["frame_id"] for image in document["images"]] == list(range(8))
    (stated,) = document["videos"]
    assert (stated["frames"], stated["fps"], stated["width"], stated["height"]) == (8, 10.0, 160, 96)
    for image in document["images"]:
        tracks = [a["track_id"] for a in document["annotations"] if a["image_id"] == image["id"]]
        assert len(tracks) == len(set(tracks))
        assert set(tracks) <= {1, 2, 3}
    assert all(len(a["keypoints_3d"]) == 17 for a in document["annotations"])


def test_the_ground_truth_is_what_the_camera_sees(video: Path) -> None:
    document = document_of(video)
    cameras = {image["id"]: image["camera"] for image in document["images"]}
    for annotation in document["annotations"]:
        camera = cameras[annotation["image_id"]]
        joints, flat = np.array(annotation["keypoints_3d"]), np.array(annotation["keypoints"]).reshape(17, 3)
        pixels = camera["focal"] * joints[:, :2] / joints[:, 2:] + camera["principal_point"]
        seen = flat[:, 2] > 0
        np.testing.assert_allclose(flat[seen, :2], pixels[seen], atol=0.05)


def test_the_mp4_shows_the_frames(video: Path) -> None:
    capture = cv2.VideoCapture(str(video / "video.mp4"))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    pictures = [cv2.imread(str(path)) for path in sorted((video / "val2017").iterdir())]
    assert len(frames) == len(pictures) == 8
    errors = [np.abs(f.astype(int) - p.astype(int)).mean() for f, p in zip(frames, pictures, strict=True)]
    assert max(errors) < 8


@pytest.mark.parametrize("seed", range(6))
def test_walkers_move_smoothly_on_the_ground(seed: int) -> None:
    walk = sample_walk(np.random.default_rng(seed), ADULT, (0.0, 5.0), (1.2, 0.6))
    figures = [figure_at(ADULT, walk, i / 60) for i in range(240)]
    joints = np.array([figure.keypoints() + shift for figure, shift in figures])
    speed = np.linalg.norm(np.diff(joints, axis=0), axis=2) * 60
    acceleration = np.linalg.norm(np.diff(joints, 2, axis=0), axis=2) * 60**2
    assert speed.max() < 6.5
    assert acceleration.max() < 90
    ankles = joints[:, 15:, 1]
    assert ankles.min() > 0.02
    assert ankles.min(axis=1).max() < 0.16


def test_the_foot_on_the_ground_stays_where_it_is() -> None:
    walk = sample_walk(np.random.default_rng(0), ADULT, (0.0, 50.0), (40.0, 40.0))
    figures = [figure_at(ADULT, walk, i / 60) for i in range(240)]
    ankles = np.array([(figure.keypoints() + shift)[15:] for figure, shift in figures])
    slide = np.linalg.norm(np.diff(ankles[:, :, ::2], axis=0), axis=2) * 60
    planted = slide[np.arange(239), np.argmin(ankles[:-1, :, 1], axis=1)]
    assert np.median(planted) < 0.3 * abs(walk.speed)


def test_standing_people_move_from_rest_to_rest() -> None:
    stand = sample_stand(np.random.default_rng(1), (0.0, 4.0), 180.0, 3.0)
    joints = np.array([figure_at(ADULT, stand, i / 60)[0].keypoints() for i in range(200)])
    assert np.linalg.norm(np.diff(joints, 2, axis=0), axis=2).max() * 60**2 < 90
    assert np.ptp(joints[:, 9:11], axis=0).max() > 0.1


@pytest.mark.parametrize(
    "change, flag",
    [
        ({"people": 0}, "--people"),
        ({"people": 101}, "--people"),
        ({"fps": 0.0}, "--fps"),
        ({"fps": float("nan")}, "--fps"),
        ({"seconds": 0.0}, "--seconds"),
        ({"seconds": float("inf")}, "--seconds"),
        ({"size_wh": (32, 96)}, "--size"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change: dict[str, Any], flag: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        write_video(tmp_path / "out", **{**OPTIONS, **change})
    assert caught.value.where == flag
    assert not list(tmp_path.iterdir())


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(DataError, match="a new or empty folder"):
        write_video(tmp_path, **OPTIONS)
