"""--camera and --focal, and the Python API's camera: what they change, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mdpose_edge.camera import Camera, asked_camera
from mdpose_edge.errors import ConfigError
from mdpose_edge.estimator import PoseEstimator
from tests.artifacts import Artifacts
from tests.command import Run, command_runner

pytest.importorskip("torch")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return command_runner(monkeypatch, capfd)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    assert cv2.imwrite(str(path), noise)
    return path


def test_the_estimator_lifts_by_its_camera(artifacts: Artifacts, picture: Path) -> None:
    frame, model = cv2.imread(str(picture)), artifacts.of("das").checkpoint()
    assert frame is not None
    found = {}
    for name, camera in (("none", None), ("focal", 100.0), ("camera", Camera(100.0, 100.0, 64.0, 48.0))):
        with PoseEstimator(model, threshold=0.05, camera=camera, threads=1) as estimator:
            found[name] = estimator(frame.astype(np.uint8))
            if name == "none":
                found["given"] = estimator(frame.astype(np.uint8), Camera(100.0, 100.0, 64.0, 48.0))
    assert len(found["none"]) and not found["none"].metric and found["focal"].metric
    for name in ("camera", "given"):
        np.testing.assert_array_equal(found[name].keypoints_3d, found["focal"].keypoints_3d)
    assert not np.allclose(found["focal"].keypoints_3d, found["none"].keypoints_3d)  # type: ignore[arg-type]


def test_a_camera_says_nothing_to_a_model_of_two_dimensions(artifacts: Artifacts) -> None:
    with pytest.raises(ConfigError, match="camera: expected a model of three dimensions, got one of two"):
        PoseEstimator(artifacts.checkpoint(), camera=100.0)
    with pytest.raises(ConfigError, match="camera: expected finite numbers"):
        PoseEstimator(artifacts.of("das").checkpoint(), camera=-1.0)


def test_infer_writes_metres(artifacts: Artifacts, picture: Path, run: Run, tmp_path: Path) -> None:
    model, out = artifacts.of("das").checkpoint(), tmp_path / "poses.jsonl"
    arguments = ["infer", model, picture, "--jsonl", out, "--threshold", "0.05"]
    code, _, err = run(*arguments, "--camera", "100,110,64,48")
    assert code == 0, err
    pose = json.loads(out.read_text())["poses"][0]
    assert pose["metric"] is True and np.array(pose["keypoints_3d"]).shape == (17, 3)
    (x, y), (wide, deep, z) = pose["keypoints_xy"][0], pose["keypoints_3d"][0]
    assert (wide * 100 / z + 64, deep * 110 / z + 48) == pytest.approx((x, y), rel=0.02, abs=0.1)
    code, _, err = run(*arguments, "--force")
    assert code == 0 and json.loads(out.read_text())["poses"][0]["metric"] is False, err


@pytest.mark.parametrize(
    ("camera", "focal", "message"),
    [
        ("1,2,3", None, "--camera: expected four numbers fx,fy,cx,cy in px of the frame"),
        ("0,2,3,4", None, "--camera: expected four numbers"),
        ("a,2,3,4", None, "--camera: expected four numbers"),
        ("nan,2,3,4", None, "--camera: expected four numbers"),
        (None, 0.0, "--focal: expected a focal length above 0, got 0"),
        (None, float("inf"), "--focal: expected a focal length above 0"),
        ("1,2,3,4", 5.0, "--focal: expected --camera or --focal, got both"),
    ],
)
def test_what_is_no_camera_is_refused(camera: str | None, focal: float | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        asked_camera(camera, focal)


def test_what_is_asked_for_is_taken() -> None:
    assert asked_camera("1,2,3,4", None) == Camera(1.0, 2.0, 3.0, 4.0)
    assert asked_camera(None, 9.0) == 9.0 and asked_camera(None, None) is None


@pytest.mark.parametrize("command", ["infer", "view"])
def test_a_word_that_is_none_ends_the_command(artifacts: Artifacts, picture: Path, run: Run, command: str) -> None:
    out = ["--jsonl", "-"] if command == "infer" else []
    code, _, err = run(command, artifacts.of("das").checkpoint(), picture, *out, "--camera", "1,2")
    assert code == 2 and err.count("\n") == 1 and "--camera: expected four numbers" in err
