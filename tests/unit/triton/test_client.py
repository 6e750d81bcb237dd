"""The client in docs/triton.md runs, against the repository's models behind a stand-in for the network."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnxruntime as ort

from mdpose_edge.estimator import PoseEstimator
from tests.artifacts import Artifacts
from tests.unit.triton.conftest import Serve

DOCUMENT = (Path(__file__).parents[3] / "docs" / "triton.md").read_text(encoding="utf-8")


class InferInput:
    """As tritonclient's: the array must have the shape and type that were announced."""

    def __init__(self, name: str, shape: list[int], datatype: str) -> None:
        self.name, self.shape, self.datatype = name, shape, datatype

    def set_data_from_numpy(self, array: NDArray[Any]) -> None:
        assert list(array.shape) == self.shape
        assert array.dtype == {"UINT8": np.uint8, "INT32": np.int32}[self.datatype]
        self.array = array


class Answer:
    def __init__(self, tensors: dict[str, NDArray[Any]]) -> None:
        self.as_numpy = tensors.__getitem__


def test_the_client_gets_the_poses_of_the_estimator(
    repository: Path, serve: Serve, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = ort.InferenceSession(repository / "people_graph" / "1" / "model.onnx")

    class InferenceServerClient:
        def __init__(self, url: str) -> None:
            assert url == "localhost:8000"

        def infer(self, model: str, inputs: list[InferInput]) -> Answer:
            assert model == "people"
            sent = {item.name: item.array for item in inputs}
            names = [output.name for output in session.get_outputs()]
            heads = dict(zip(names, session.run(names, {"image": sent["image"]}), strict=True))
            return Answer(serve(repository / "people_decode", [{**heads, "frame_wh": sent["frame_wh"]}])[0])

    http = types.ModuleType("tritonclient.http")
    http.InferInput, http.InferenceServerClient = InferInput, InferenceServerClient  # type: ignore[attr-defined]
    package = types.ModuleType("tritonclient")
    package.http = http  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tritonclient", package)
    monkeypatch.setitem(sys.modules, "tritonclient.http", http)

    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    code = code.replace("repository/pose_decode", f"{repository}/people_decode").replace('"pose"', '"people"')
    names: dict[str, Any] = {}
    exec(code, names)  # our own document

    frame = np.random.default_rng(4).integers(0, 256, (80, 120, 3), np.uint8)
    found = names["find_people"](frame)
    with PoseEstimator(artifacts.bundle("onnx"), threads=1) as estimator:
        poses = estimator(frame)
    assert len(poses) > 1
    np.testing.assert_allclose(found["scores"], poses.scores, atol=1e-5)
    np.testing.assert_allclose(found["keypoints_xy"], poses.keypoints_xy, atol=1e-2)
    np.testing.assert_allclose(found["sigma_xy"], poses.sigma_xy, atol=1e-2)
