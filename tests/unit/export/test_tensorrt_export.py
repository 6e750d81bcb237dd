"""Exports for TensorRT and Jetson: the right graph, recipe, cache and golden heads, made without a GPU."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import onnx
from onnx import TensorProto, numpy_helper

from mdpose_edge.bundle import REPORT_FILE, open_bundle
from mdpose_edge.calib.qdq_lint import lint_qdq
from mdpose_edge.errors import BundleError, EngineError, ExportError, MissingPackageError
from mdpose_edge.export.bundle import export_checkpoint
from mdpose_edge.export.options import ExportOptions
from mdpose_edge.export.targets.tensorrt_options import find_tensorrt_target
from mdpose_edge.runtimes.registry import open_engine
from mdpose_edge.trt.recipe import CALIBRATION_FILE, GOLDEN_FILE, RECIPE_FILE, Recipe, read_golden, read_recipe
from mdpose_edge.trt.trtexec import trtexec_commands
from tests.artifacts import Artifacts
from tests.unit.trt.conftest import exported

__all__ = ["exported"]
Make = Callable[..., Path]
FILES = {"model.onnx", RECIPE_FILE, GOLDEN_FILE, REPORT_FILE}

FORMS = [
    # target, precision, options -> typing, opset, type of weights, Q/DQ, flags
    ("tensorrt", "fp32", {"trt": "8.5"}, ("weak", 17, "float32", False, ())),
    ("tensorrt", "fp16", {"trt": "8.5"}, ("weak", 17, "float32", False, ("FP16",))),
    ("tensorrt", "int8", {"trt": "10.3"}, ("weak", 17, "float32", True, ("FP16", "INT8"))),
    ("tensorrt", "fp32", {"trt": "10.12"}, ("strong", 17, "float32", False, ())),
    ("tensorrt", "fp16", {}, ("strong", 17, "float16", False, ())),
    ("tensorrt", "int8", {"trt": "11"}, ("strong", 19, "float16", True, ())),
    ("jetson", "fp16", {}, ("weak", 17, "float32", False, ("FP16",))),
    ("jetson", "int8", {"jetpack": "5.1", "device": "xavier-nx"}, ("weak", 17, "float32", True, ("FP16", "INT8"))),
    ("jetson", "int8", {"jetpack": "7.1", "device": "thor"}, ("strong", 19, "float16", True, ())),
    (
        "jetson", "int8", {"jetpack": "6.0", "device": "agx-orin", "nvdla": 0},
        ("weak", 17, "float32", False, ("FP16", "INT8", "GPU_FALLBACK")),
    ),
    (
        "jetson", "fp16", {"jetpack": "6.2", "device": "orin-nx", "nvdla": 1},
        ("weak", 17, "float32", False, ("FP16", "GPU_FALLBACK")),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("target", "precision", "options", "form"), FORMS)
def test_each_tensorrt_gets_the_graph_that_it_reads(
    exported: Make, target: str, precision: str, options: dict[str, object], form: tuple[object, ...]
) -> None:
    bundle = open_bundle(exported(target, precision, **options))
    recipe, model = read_recipe(bundle), onnx.load(bundle.graph)
    operators = {node.op_type for node in model.graph.node}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = [
        numpy_helper.to_array(constants[name])
        for node in model.graph.node
        for name in node.input
        if name in constants and numpy_helper.to_array(constants[name]).ndim == 4
    ]
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": form[1]}
    assert bundle.spec.opset == form[1]
    assert {str(weight.dtype) for weight in weights} == {form[2]}
    assert ("QuantizeLinear" in operators) is form[3]
    assert (recipe.typing, recipe.flags) == (form[0], form[4])
    assert recipe.cleared_flags == (("TF32",) if precision == "fp32" else ())
    cache = {CALIBRATION_FILE} if recipe.calibration else set()
    assert bundle.spec.files.keys() == FILES | cache
    assert (recipe.calibration is not None) is (precision == "int8" and "nvdla" in options)
    assert (bundle.spec.target, bundle.spec.precision) == (target, precision)


@pytest.mark.parametrize(("target", "precision", "options", "form"), FORMS)
def test_the_uint8_input_meets_a_cast_first(
    exported: Make, target: str, precision: str, options: dict[str, object], form: tuple[object, ...]
) -> None:
    """TensorRT's rule for uint8 inputs (NvInfer.h, kUINT8); transpose and normalisation follow, in the graph."""
    bundle = open_bundle(exported(target, precision, **options))
    model = onnx.load(bundle.graph)
    (readers,) = [[node for node in model.graph.node if "image" in node.input]]
    assert [node.op_type for node in readers] == ["Cast"]
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert {value.type.tensor_type.elem_type for value in model.graph.output} == {TensorProto.FLOAT}


@pytest.mark.parametrize(
    ("target", "options", "at_least", "below", "workspace"),
    [
        ("tensorrt", {"trt": "8.5"}, "8.5", "10.12", 4096),
        ("tensorrt", {"trt": "10.11"}, "8.5", "10.12", 4096),
        ("tensorrt", {"trt": "10.12"}, "10.12", "12", 4096),
        ("tensorrt", {}, "10.12", "12", 4096),
        ("jetson", {}, "10.3", "10.4", 1024),
        ("jetson", {"jetpack": "5.1", "device": "xavier-nx"}, "8.5", "8.6", 2048),
        ("jetson", {"jetpack": "6.0", "device": "orin-nx"}, "8.6", "8.7", 2048),
        ("jetson", {"jetpack": "6.2", "device": "agx-orin", "trt": "10.7"}, "10.7", "10.8", 4096),
        ("jetson", {"jetpack": "7.2", "device": "thor"}, "10.16", "10.17", 4096),
    ],
)
def test_the_recipe_says_which_versions_and_how_much_memory(
    target: str, options: dict[str, str], at_least: str, below: str, workspace: int
) -> None:
    from mdpose_edge.export.targets.tensorrt_options import make_recipe

    found = find_tensorrt_target(target, "fp16", **options)
    recipe = make_recipe(found, "fp16", convolutions=["a"], kept_float=())
    assert (recipe.tensorrt.at_least, recipe.tensorrt.below, recipe.workspace_mib) == (at_least, below, workspace)


def test_kept_float_convolutions_are_asked_for_in_fp16(exported: Make) -> None:
    recipe = read_recipe(open_bundle(exported("tensorrt", "int8", trt="10.3")))
    kept = {name for name, precision in recipe.convolutions.items() if precision == "fp16"}
    assert kept == {"/network/head/o/Conv", "/network/head/o_1/Conv", "/network/head/o_2/Conv"}
    assert set(recipe.convolutions.values()) == {"int8", "fp16"}


def test_the_cache_of_nvdla_has_the_header_of_its_tensorrt_and_every_tensor(exported: Make) -> None:
    from mdpose_edge.common.onnx_graph import OnnxGraph
    from mdpose_edge.nvdla.cache import missing_scales
    from tests.unit.nvdla.caches import read_cache

    for jetpack, header in (("5.1", "TRT-8502"), ("6.0", "TRT-8602")):
        bundle = open_bundle(exported("jetson", "int8", jetpack=jetpack, device="agx-orin", nvdla=0))
        text = (bundle.path / CALIBRATION_FILE).read_text()
        assert text.partition("\n")[0] == f"{header}-EntropyCalibration2"
        graph = OnnxGraph(onnx.shape_inference.infer_shapes(onnx.load(bundle.graph)))
        assert missing_scales(graph, read_cache(text).scales) == ()
        report = json.loads((bundle.path / REPORT_FILE).read_text())
        assert report["nvdla"]["share_of_macs"] == 1.0


@pytest.mark.parametrize("batch", [1, 3])
def test_golden_heads_are_those_of_the_network(exported: Make, artifacts: Artifacts, batch: int) -> None:
    from mdpose_edge.runtimes.registry import open_engine

    bundle = open_bundle(exported("tensorrt", "fp16", batch, trt="8.5"))
    golden = read_golden(bundle)
    assert golden.images.shape == (2, 64, 64, 3)
    assert not np.array_equal(golden.images[0], golden.images[1])
    with open_engine(artifacts.checkpoint(), threads=1)[1] as reference:
        for index, image in enumerate(golden.images):
            heads = reference.infer(image[None])
            for name, recorded in golden.heads.items():
                np.testing.assert_allclose(recorded[index], heads[name][0], atol=1e-4 * np.abs(recorded).max())


def test_a_typed_int8_graph_is_the_weak_one_but_for_rounding(exported: Make) -> None:
    ort = pytest.importorskip("onnxruntime")
    weak, typed = (exported("tensorrt", "int8", trt=trt) for trt in ("8.5", "11"))
    golden = read_golden(open_bundle(typed))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(typed / "model.onnx"), options)
    names = list(golden.heads)
    for name, head in zip(names, session.run(names, {"image": golden.images[:1]}), strict=True):
        recorded = golden.heads[name][0]
        assert np.abs(head[0] - recorded).mean() < 0.1 * np.abs(recorded).mean()
    scales = {
        t.name: numpy_helper.to_array(t)
        for t in onnx.load(weak / "model.onnx").graph.initializer
        if t.name.endswith("_scale")
    }
    for tensor in onnx.load(typed / "model.onnx").graph.initializer:
        if tensor.name.endswith("_scale"):
            np.testing.assert_allclose(numpy_helper.to_array(tensor), scales[tensor.name], rtol=1e-3)
    assert lint_qdq(onnx.load(typed / "model.onnx"), np.float16) == []
    assert {violation.rule for violation in lint_qdq(onnx.load(typed / "model.onnx"))} == {"scales"}


@pytest.mark.parametrize(
    ("options", "precision", "message"),
    [
        (dict(target="jetson", nvdla=0), "fp16", "--nvdla: expected a device with an NVDLA core, got Jetson Orin Nano"),
        (dict(target="jetson", device="tx2"), "int8", "Jetson TX2, compute capability 6.2"),
        (dict(target="jetson", device="tx2"), "fp16", "JetPack 4.6 is its last, and TensorRT 8.2.1 is too old"),
        (
            dict(target="jetson", jetpack="6.2", device="agx-orin", nvdla=0),
            "int8",
            "10.3, reported to break off there on Orin",
        ),
        (
            dict(target="jetson", jetpack="7.2", device="agx-orin", nvdla=0),
            "fp16",
            "10.7 or older, the last that",
        ),
        (dict(target="jetson", jetpack="7.1", device="agx-orin"), "fp16", "got 7.1, which is for Jetson Thor"),
        (dict(target="tensorrt", trt="8.4"), "fp16", "a version from 8.5 to 11, got 8.4"),
        (dict(target="tensorrt", nvdla=0), "fp16", "a Jetson that has the core, got a desktop GPU"),
        (dict(target="tensorrt", jetpack="6.2"), "fp16", "--jetpack: expected --target jetson, got --target tensorrt"),
    ],
)
def test_the_impossible_is_refused_before_the_checkpoint_is_read(
    tmp_path: Path, options: dict[str, Any], precision: str, message: str
) -> None:
    with pytest.raises(ExportError) as caught:
        export_checkpoint(tmp_path / "absent", tmp_path / "out", ExportOptions(precision=precision, **options))
    assert message in str(caught.value)
    assert os.listdir(tmp_path) == []


def recipe_for(precision: str, **options: object) -> Recipe:
    from mdpose_edge.export.targets.tensorrt_options import make_recipe

    target = "tensorrt" if "jetpack" not in options else "jetson"
    found = find_tensorrt_target(target, precision, **options)  # type: ignore[arg-type]
    return make_recipe(found, precision, convolutions=["a"], kept_float=())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("precision", "options", "expected"),
    [
        ("fp16", {"trt": "8.5"}, [("8.5 to below 8.6", "--fp16 ", "--buildOnly"), ("8.6 to", "--fp16 ", "--skipInf")]),
        ("int8", {"trt": "8.5"}, [("8.5 to", "--fp16 --int8 ", ""), ("8.6 to below 10.12", "--fp16 --int8 ", "")]),
        ("fp32", {"trt": "11"}, [("10.12 to below 11", "--noTF32 --strongly", ""), ("11 to", "--noTF32 --mem", "")]),
        (
            "int8", {"jetpack": "6.0", "device": "agx-orin", "nvdla": 1},
            [("8.6.2 to", "--fp16 --int8 --allowGPUFallback --calib=", "--useDLACore=1 --memPoolSize=workspace:4096")],
        ),
    ],
)  # fmt: skip
def test_trtexec_lines_are_those_of_each_version(
    exported: Make, precision: str, options: dict[str, object], expected: list[tuple[str, str, str]]
) -> None:
    bundle = open_bundle(exported("tensorrt", "fp16", trt="8.5"))
    lines = trtexec_commands(bundle, recipe_for(precision, **options))
    assert len(lines) == len(expected)
    for (versions, command), (label, flags, more) in zip(lines, expected, strict=True):
        assert label in versions
        assert command.startswith(f"trtexec --onnx={bundle.graph} {flags}")
        assert more in command


def test_a_golden_file_that_lacks_a_head_is_refused(exported: Make, tmp_path: Path) -> None:
    from dataclasses import replace

    from mdpose_edge.bundle import write_bundle

    source = open_bundle(exported("tensorrt", "fp16", trt="8.5"))
    with write_bundle(tmp_path / "bundle", replace(source.spec)) as directory:
        for name in source.spec.files:
            (directory / name).write_bytes((source.path / name).read_bytes())
        np.savez(directory / GOLDEN_FILE, images=np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(BundleError, match=r"images and 9 head tensors, got .*heads/o_p3"):
        read_golden(open_bundle(tmp_path / "bundle"))


def test_a_graph_that_states_its_precision_runs_on_onnxruntime(exported: Make, artifacts: Artifacts) -> None:
    spec, adapter = open_engine(exported("tensorrt", "fp16", trt="11"), "onnxruntime", threads=1)
    with adapter:
        images = np.zeros((1, spec.input.height, spec.input.width, 3), np.uint8)
        assert set(adapter.infer(images)) == set(spec.outputs)


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        pytest.param(
            {"trt": "11"},
            ", or use --reference-runtime onnxruntime, which computes this graph as it is written",
            id="as written",
        ),
        pytest.param({"trt": "8.5"}, "", id="made by the device"),
    ],
)
def test_where_tensorrt_is_missing_the_engine_that_can_is_named(
    exported: Make, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], advice: str
) -> None:
    bundle = exported("tensorrt", "fp16", **options)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingPackageError) as caught:
        open_engine(bundle, option="--reference-runtime")
    assert caught.value.do == f'run: pip install "mdpose-edge[tensorrt]"{advice}'
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackageError) as caught:
        open_engine(bundle)
    assert caught.value.do == 'run: pip install "mdpose-edge[tensorrt]"'


@pytest.mark.parametrize(
    ("target", "precision", "options"),
    [
        ("tensorrt", "fp16", {"trt": "8.5"}),
        ("jetson", "int8", {"jetpack": "6.0", "device": "agx-orin", "nvdla": 0}),
    ],
)
def test_a_precision_of_the_device_alone_is_not_simulated(
    exported: Make, target: str, precision: str, options: dict[str, object]
) -> None:
    with pytest.raises(EngineError, match=f"one that the device makes {precision}; run it there"):
        open_engine(exported(target, precision, **options), "onnxruntime")
