from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge.bundle import open_bundle
from mdpose_edge.errors import BundleError, EngineError, InputError, SpecError
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.families.registry import make_decoder
from mdpose_edge.poses import Poses
from mdpose_edge.preprocess import preprocess
from mdpose_edge.runtimes.registry import open_engine
from mdpose_edge.spec import DecodeSpec
from tests.artifacts import Artifacts

pytest.importorskip("torch", reason="makes the model")
pytest.importorskip("onnxruntime")

FRAME_HW = ((64, 64), (48, 96), (200, 130), (65, 31))


def make_frames() -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (height, width, 3), np.uint8) for height, width in FRAME_HW]


def assert_same(got: Poses, expected: Poses) -> None:
    assert len(got) == len(expected)
    np.testing.assert_allclose(got.keypoints_xy, expected.keypoints_xy, atol=1e-3)
    np.testing.assert_allclose(got.scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(got.sigma_xy, expected.sigma_xy, atol=1e-3)


def test_a_frame_goes_through_the_shared_pieces(artifacts: Artifacts) -> None:
    model = artifacts.bundle("onnx")
    spec, adapter = open_engine(model, threads=1)
    with adapter, PoseEstimator(model, threads=1) as estimator:
        for frame in make_frames():
            image, geometry = preprocess(frame, spec.input)
            expected = make_decoder(spec)(adapter.infer(image[None]), geometry)
            assert len(expected) > 0
            assert_same(estimator(frame), expected)
        assert estimator.spec == open_bundle(model).spec
        assert estimator.engine == "onnxruntime"


@pytest.mark.parametrize("model_batch", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_a_batch_gives_what_its_frames_give_alone(artifacts: Artifacts, model_batch: int, count: int) -> None:
    frames = make_frames()[:count]
    with PoseEstimator(artifacts.bundle("onnx"), threads=1) as single:
        expected = [single(frame) for frame in frames]
    with PoseEstimator(artifacts.bundle("onnx", batch=model_batch), threads=1) as estimator:
        found = estimator.batch(frames)
        alone = [estimator(frame) for frame in frames]
    assert len(found) == count
    for got, again, wanted in zip(found, alone, expected, strict=True):
        assert_same(got, wanted)
        assert_same(again, wanted)


def test_a_result_outlives_the_next_call(artifacts: Artifacts) -> None:
    first, second, *_ = make_frames()
    with PoseEstimator(artifacts.bundle("onnx"), threads=1) as estimator:
        poses = estimator(first)
        before = poses.keypoints_xy.copy()
        estimator(second)
    assert np.array_equal(poses.keypoints_xy, before)


def test_a_frame_is_not_modified(artifacts: Artifacts) -> None:
    frame = make_frames()[0]
    kept = frame.copy()
    with PoseEstimator(artifacts.bundle("onnx"), threads=1) as estimator:
        estimator(frame)
    assert np.array_equal(frame, kept)


def test_threshold_and_decode_take_the_place_of_the_models_own(artifacts: Artifacts) -> None:
    model, frame = artifacts.bundle("onnx"), make_frames()[0]

    def scores(**options: object) -> NDArray[np.float32]:
        with PoseEstimator(model, threads=1, **options) as estimator:  # type: ignore[arg-type]
            return estimator(frame).scores

    own = scores()
    assert 0.3 < own.min() < 0.5 < own.max()
    assert scores(threshold=0.5).min() > 0.5
    assert len(scores(decode=DecodeSpec(max_poses=2))) == 2
    assert np.array_equal(scores(decode=DecodeSpec(max_poses=2), threshold=float(own[0])), [])


def test_one_unusable_frame_is_named(artifacts: Artifacts) -> None:
    frames = [*make_frames(), np.zeros((1, 1, 3), np.uint8)]
    with PoseEstimator(artifacts.bundle("onnx"), threads=1) as estimator:
        with pytest.raises(InputError, match="frame 4: expected sides of at least 16 px, got 1x1"):
            estimator.batch(frames)
        with pytest.raises(InputError, match="frame: expected a uint8 array"):
            estimator(np.zeros((64, 64), np.uint8))


def test_a_closed_estimator_says_so(artifacts: Artifacts) -> None:
    estimator = PoseEstimator(artifacts.bundle("onnx"), threads=1)
    estimator.close()
    estimator.close()
    with pytest.raises(EngineError, match="got a closed one"):
        estimator(make_frames()[0])


def test_bad_arguments_are_one_sentence(artifacts: Artifacts, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="got no such file"):
        PoseEstimator(tmp_path / "absent")
    with pytest.raises(SpecError, match=r"decode.score_threshold: expected a number in \[0, 1\], got 30"):
        PoseEstimator(artifacts.bundle("onnx"), threshold=30)
    with pytest.raises(EngineError, match="one of onnxruntime, openvino, tensorrt, torch, got tpu"):
        PoseEstimator(artifacts.bundle("onnx"), runtime="tpu")


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_device_needs_neither_torch_nor_onnx(artifacts: Artifacts, target: str) -> None:
    if target == "openvino":
        pytest.importorskip("openvino")
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'torchvision', 'timm', 'onnx', 'safetensors']))\n"
        "import numpy as np; from mdpose_edge import PoseEstimator\n"
        "poses = PoseEstimator(sys.argv[1])(np.zeros((64, 64, 3), np.uint8)); print(poses.keypoints_xy.shape)"
    )
    command = [sys.executable, "-c", code, str(artifacts.bundle(target))]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith(", 17, 2)")


def test_threads_that_share_an_estimator_get_their_own_frames(artifacts: Artifacts) -> None:
    frames = make_frames()
    with PoseEstimator(artifacts.bundle("onnx"), threads=1, threshold=0.0) as estimator:
        alone = [estimator(frame) for frame in frames]
        with ThreadPoolExecutor(4) as pool:
            shared = list(pool.map(estimator, frames * 25))
    for got, expected in zip(shared, alone * 25, strict=True):
        assert_same(got, expected)
