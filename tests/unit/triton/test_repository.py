"""A repository's models, run as a server would run them, give the poses of PoseEstimator."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime as ort

import mdpose_edge
from mdpose_edge.bundle import open_bundle, write_bundle
from mdpose_edge.errors import BundleError, ConfigError, ExportError
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.families.registry import make_decoder
from mdpose_edge.poses import Poses
from mdpose_edge.preprocess import preprocess
from mdpose_edge.spec import ModelSpec
from mdpose_edge.triton.batch import TOLERANCES, check_batches, write_dynamic_onnx
from mdpose_edge.triton.config import ServingOptions
from mdpose_edge.triton.decode_step import DecodeStep
from mdpose_edge.triton.repository import write_repository
from tests.artifacts import Artifacts
from tests.unit.triton.conftest import Serve

rng = np.random.default_rng(3)
FRAMES = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in ((96, 128), (70, 50), (64, 64))]


def request(graph: Path, spec: ModelSpec, frames: list[NDArray[np.uint8]]) -> dict[str, NDArray[Any]]:
    """Do what a client and the graph's backend do: resize, run all in one batch, hand on."""
    images = np.stack([preprocess(frame, spec.input)[0] for frame in frames])
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    heads = dict(zip(spec.outputs, session.run(list(spec.outputs), {"image": images}), strict=True))
    return {**heads, "frame_wh": np.array([frame.shape[1::-1] for frame in frames], np.int32)}


@pytest.fixture(scope="module")
def spec(artifacts: Artifacts) -> ModelSpec:
    return open_bundle(artifacts.bundle("onnx")).spec


@pytest.fixture(scope="module")
def requests(repository: Path, spec: ModelSpec) -> list[dict[str, NDArray[Any]]]:
    """All frames in one batch, and the first alone."""
    graph = repository / "people_graph" / "1" / "model.onnx"
    return [request(graph, spec, FRAMES), request(graph, spec, FRAMES[:1])]


@pytest.fixture(scope="module")
def expected(artifacts: Artifacts) -> list[Poses]:
    with PoseEstimator(artifacts.bundle("onnx"), threads=1) as estimator:
        poses = estimator.batch(FRAMES)
    assert min(map(len, poses)) > 1
    return poses


def assert_same(answer: dict[str, NDArray[Any]], i: int, poses: Poses) -> None:
    count = answer["count"][i, 0]
    assert count == len(poses)
    np.testing.assert_allclose(answer["scores"][i, :count], poses.scores, atol=1e-5)
    np.testing.assert_allclose(answer["keypoints_xy"][i, :count], poses.keypoints_xy, atol=1e-2)
    np.testing.assert_allclose(answer["sigma_xy"][i, :count], poses.sigma_xy, atol=1e-2)
    assert not any(answer[name][i, count:].any() for name in ("scores", "keypoints_xy", "sigma_xy"))


def test_a_server_gives_the_poses_of_the_estimator(
    repository: Path, serve: Serve, requests: list[dict[str, NDArray[Any]]], expected: list[Poses]
) -> None:
    batch, single = serve(repository / "people_decode", requests)
    for i, poses in enumerate(expected):
        assert_same(batch, i, poses)
    assert_same(single, 0, expected[0])
    assert {name: (array.dtype.name, array.shape[1:]) for name, array in batch.items()} == {
        "count": ("int32", (1,)),
        "keypoints_xy": ("float32", (100, 17, 2)),
        "scores": ("float32", (100,)),
        "sigma_xy": ("float32", (100, 17, 2)),
    }


def test_the_vendored_modules_are_those_in_use(
    spec: ModelSpec, requests: list[dict[str, NDArray[Any]]], repository: Path, serve: Serve
) -> None:
    here = DecodeStep(spec, make_decoder(spec))(requests[0])
    there, _ = serve(repository / "people_decode", requests)
    assert all(np.array_equal(here[name], there[name]) for name in here)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"frame_wh": np.array([[128, 0]], np.int32)}, "sizes of at least 1 px, got [128, 0]", id="zero"),
        pytest.param({"frame_wh": np.array([[9, 9]] * 2, np.int32)}, "one size for each image, got 2 for 1", id="two"),
        pytest.param({"frame_wh": np.ones((1, 2), np.float32)}, "whole numbers (n, 2), got float32 (1, 2)", id="dtype"),
        pytest.param({"o_p3": np.full((1, 1, 8, 8), np.nan, np.float32)}, "finite head tensors", id="NaN"),
        pytest.param({"o_p3": np.zeros((1, 1, 4, 4), np.float32)}, "o_p3: expected float32 (N, 1, 8, 8)", id="shape"),
    ],
)
def test_a_bad_request_is_answered_in_one_sentence_and_the_others_are_served(
    change: dict[str, NDArray[Any]], message: str, repository: Path, serve: Serve, requests: list[Any], expected: Any
) -> None:
    bad, good = serve(repository / "people_decode", [{**requests[1], **change}, requests[1]])
    assert bad.keys() == {"error"}
    assert message in str(bad["error"])
    assert_same(good, 0, expected[0])


def test_an_altered_module_is_not_loaded(repository: Path, serve: Serve, requests: list[Any], tmp_path: Path) -> None:
    folder = tmp_path / "people_decode"
    shutil.copytree(repository / "people_decode", folder)
    nms = folder / "1" / "mdpose_edge" / "families" / "nms.py"
    nms.write_text(nms.read_text() + "\n# one line more\n")
    with pytest.raises(RuntimeError, match=r"nms\.py: expected sha256 .*write the repository again"):
        serve(folder, requests)
    nms.unlink()
    with pytest.raises(RuntimeError, match=r"nms\.py: expected sha256 .*got none"):
        serve(folder, requests)


@pytest.mark.parametrize("target", ["onnx", "openvino", "tensorrt"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_open_batch_changes_no_value(artifacts: Artifacts, tmp_path: Path, target: str, precision: str) -> None:
    pytest.importorskip("openvino")
    out = write_repository(artifacts.bundle(target, precision), tmp_path / "out")
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["batch_difference"] <= 1e-5
    assert (manifest["target"], manifest["precision"]) == (target, precision)


def test_a_bundle_of_a_larger_batch_opens_too(artifacts: Artifacts, tmp_path: Path) -> None:
    out = write_repository(artifacts.bundle("onnx", batch=3), tmp_path / "out")
    graph = onnx.load(out / "pose_graph" / "1" / "model.onnx").graph
    axes = [value.type.tensor_type.shape.dim[0] for value in (*graph.input, *graph.output)]
    assert {axis.dim_param for axis in axes} == {"batch"}


def test_a_graph_that_fixes_its_batch_is_refused(spec: ModelSpec, tmp_path: Path) -> None:
    make = onnx.helper.make_tensor_value_info
    shape = onnx.helper.make_tensor("shape", onnx.TensorProto.INT64, [4], [1, 1, 8, 8])
    node = onnx.helper.make_node("Reshape", ["image", "shape"], ["o_p3"])
    ends = [make("image", onnx.TensorProto.FLOAT, [1, 8, 8, 1])], [make("o_p3", onnx.TensorProto.FLOAT, [1, 1, 8, 8])]
    graph = onnx.helper.make_graph([node], "fixed", *ends, [shape])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    onnx.save(model, tmp_path / "fixed.onnx")
    with pytest.raises(ExportError, match="a graph that runs any number of images"):
        write_dynamic_onnx(tmp_path / "fixed.onnx", tmp_path / "open.onnx", spec)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_values_that_differ_in_a_batch_are_refused(precision: str, artifacts: Artifacts, tmp_path: Path) -> None:
    bundle = open_bundle(artifacts.bundle("onnx", precision))
    model = onnx.load(bundle.graph)
    weights = next(tensor for tensor in model.graph.initializer if "head.o.weight" in tensor.name)
    weights.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(weights), weights.name))
    onnx.save(model, tmp_path / "other.onnx")
    write_dynamic_onnx(tmp_path / "other.onnx", tmp_path / "open.onnx", bundle.spec)
    with pytest.raises(ExportError, match="the same outputs in a batch as alone"):
        check_batches("onnxruntime", tmp_path / "open.onnx", bundle)


def round_otherwise(source: Path, out: Path) -> None:
    """Copy an ONNX graph with its float constants changed in the last digits, as another order of sums would do."""
    model, random = onnx.load(source), np.random.default_rng(0)
    sizes = {name for node in model.graph.node if node.op_type == "Resize" for name in node.input}
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.name not in sizes:
            values = onnx.numpy_helper.to_array(tensor)
            changed = values * (1 + 1e-6 * random.standard_normal(values.shape))
            tensor.CopyFrom(onnx.numpy_helper.from_array(changed.astype(np.float32), tensor.name))
    onnx.save(model, out)


def test_int8_that_rounds_otherwise_in_a_batch_is_the_same_graph(artifacts: Artifacts, tmp_path: Path) -> None:
    bundle = open_bundle(artifacts.bundle("onnx", "int8"))
    round_otherwise(bundle.graph, tmp_path / "other.onnx")
    write_dynamic_onnx(tmp_path / "other.onnx", tmp_path / "open.onnx", bundle.spec)
    assert TOLERANCES["fp32"] < check_batches("onnxruntime", tmp_path / "open.onnx", bundle) < TOLERANCES["int8"]


def test_a_later_export_replaces_an_earlier_and_nothing_else(artifacts: Artifacts, tmp_path: Path) -> None:
    out = tmp_path / "out"
    steps: list[tuple[int, int, str]] = []
    for _ in range(2):
        write_repository(artifacts.bundle("onnx"), out, progress=lambda *step: steps.append(step))
    assert [done for done, _, _ in steps] == [0, 1, 2, 3, 4] * 2
    (out / "other_model").mkdir()
    (out / "other_model" / "config.pbtxt").write_text("")
    with pytest.raises(ExportError, match="a new path or an earlier repository, got a directory that is no repository"):
        write_repository(artifacts.bundle("onnx"), out)
    assert (out / "other_model" / "config.pbtxt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ServingOptions(name="a b"), "--name: expected a name of letters"),
        (ServingOptions(name="../up"), "--name: expected a name of letters"),
        (ServingOptions(max_batch=0), "--max-batch: expected a whole number of at least 1, got 0"),
        (ServingOptions(queue_delay_us=-1), "--queue-delay-us: expected a whole number of at least 0, got -1"),
        (ServingOptions(instances=0), "--instances: expected a whole number of at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(
    artifacts: Artifacts, tmp_path: Path, options: ServingOptions, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        write_repository(artifacts.bundle("onnx"), tmp_path / "out", options)
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def tensorrt_repository(artifacts: Artifacts, tmp_path: Path) -> Path:
    pytest.importorskip("torch")
    from mdpose_edge.export.bundle import export_checkpoint
    from mdpose_edge.export.options import ExportOptions

    options = ExportOptions("tensorrt", "fp16", trt="8.6")
    bundle = export_checkpoint(artifacts.checkpoint(), tmp_path / "bundle", options).path
    return write_repository(bundle, tmp_path / "out", ServingOptions(max_batch=4))


def test_a_plan_is_built_on_the_server_for_every_batch(tensorrt_repository: Path, tmp_path: Path) -> None:
    """The script is run, with a program in trtexec's place that keeps its arguments and writes what it is told to."""
    graph = tensorrt_repository / "pose_graph"
    assert {path.name for path in graph.iterdir()} == {"1", "build_plan.sh", "config.pbtxt", "model.onnx"}
    assert 'backend: "tensorrt"' in (graph / "config.pbtxt").read_text()
    trtexec = tmp_path / "trtexec"
    trtexec.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@" >"$0.log"\n'
        'for word; do case $word in --saveEngine=*) : >"${word#*=}";; esac; done\n'
    )
    trtexec.chmod(0o755)
    subprocess.run([graph / "build_plan.sh"], env={**os.environ, "TRTEXEC": str(trtexec)}, check=True)
    assert (graph / "1" / "model.plan").is_file()
    words = set((tmp_path / "trtexec.log").read_text().split())
    assert words >= {
        "--onnx=model.onnx", "--fp16", "--skipInference", "--minShapes=image:1x64x64x3", "--optShapes=image:4x64x64x3",
        "--maxShapes=image:4x64x64x3",
    }  # fmt: skip
    assert not any(word.startswith("--onnx=/") for word in words)


def test_a_repository_with_its_plan_may_be_replaced(tensorrt_repository: Path, tmp_path: Path) -> None:
    (tensorrt_repository / "pose_graph" / "1" / "model.plan").write_bytes(b"plan")
    write_repository(tmp_path / "bundle", tensorrt_repository)
    assert not (tensorrt_repository / "pose_graph" / "1" / "model.plan").exists()


def test_a_bundle_for_a_jetson_is_refused(artifacts: Artifacts, tmp_path: Path) -> None:
    source = open_bundle(artifacts.bundle("onnx"))
    with write_bundle(tmp_path / "bundle", replace(source.spec, target="jetson")) as directory:
        (directory / "model.onnx").write_bytes(source.graph.read_bytes())
    with pytest.raises(ExportError, match="expected a bundle for onnx or openvino or tensorrt, got one for jetson"):
        write_repository(tmp_path / "bundle", tmp_path / "out")


def test_a_checkpoint_is_no_bundle(artifacts: Artifacts, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="expected a bundle directory, got a file"):
        write_repository(artifacts.checkpoint(), tmp_path / "out")


def test_every_vendored_module_exists_and_is_copied_as_it_is(repository: Path) -> None:
    folder = repository / "people_decode" / "1" / "mdpose_edge"
    copied = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}
    package = Path(mdpose_edge.__file__).parent
    assert {"families/mdpose/decode.py", "families/mdpose/heads.py", "families/__init__.py", "spec.py"} < copied
    assert not {name for name in copied if "network" in name or "estimator" in name}
    assert all((folder / name).read_bytes() == (package / name).read_bytes() for name in copied)
