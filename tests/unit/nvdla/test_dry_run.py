from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import helper

from mdpose_edge.common.onnx_graph import OnnxGraph
from mdpose_edge.errors import BundleError, ExportError
from mdpose_edge.nvdla.dry_run import dry_run, load_source
from tests.artifacts import Artifacts
from tests.command import command_runner
from tests.unit.nvdla.graphs import model, one
from tests.unit.trt.conftest import exported

__all__ = ["exported"]
Make = Callable[..., Path]

TENSORRT = (8, 6, 2)
SHAPE = (1, 16, 32, 32)
WEIGHTS = {"w": np.zeros((16, 16, 1, 1), np.float32)}


def chain(*ops: str) -> onnx.ModelProto:
    """Make a chain of nodes called by their number; Exp leaves NVDLA, Conv and Relu do not."""
    nodes = []
    for i, op in enumerate(ops):
        inputs = [f"t{i}", "w"] if op == "Conv" else [f"t{i}"]
        nodes.append(helper.make_node(op, inputs, [f"t{i + 1}"], name=str(i)))
    return model(nodes, {"t0": SHAPE}, [f"t{len(ops)}"], WEIGHTS)


def test_each_node_is_placed_and_the_arithmetic_added_up() -> None:
    found = dry_run(OnnxGraph(chain("Conv", "Relu", "Exp", "Conv")), precision="fp16", tensorrt=TENSORRT)
    assert [(item.node, item.op, item.place) for item in found.placements] == [
        ("0", "Conv", "nvdla"), ("1", "Relu", "nvdla"), ("2", "Exp", "gpu"), ("3", "Conv", "nvdla")
    ]  # fmt: skip
    assert [item.node for item in found.off_nvdla] == ["2"]
    assert found.placements[0].macs == 16 * 32 * 32 * 16  # outputs, each of 16 products
    assert found.share_of_macs == 1.0
    assert found.to_json_dict()["placements"][2]["reason"]


def test_arithmetic_on_the_gpu_is_not_counted() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], name="on"),
        helper.make_node("Conv", ["y", "w"], ["z"], name="off", strides=[9, 9]),  # 4 x 4 cells of 32 x 32
    ]
    found = dry_run(OnnxGraph(model(nodes, {"x": SHAPE}, ["z"], WEIGHTS)), precision="fp16", tensorrt=TENSORRT)
    assert found.share_of_macs == pytest.approx(32 * 32 / (32 * 32 + 4 * 4))


@pytest.mark.parametrize(
    ("ops", "loadables"),
    [
        pytest.param(["Conv", "Relu"], 1, id="one"),
        pytest.param(["Exp", "Conv", "Relu", "Exp"], 1, id="in the middle"),
        pytest.param(["Conv", "Exp", "Conv"], 2, id="an island between"),
        pytest.param(["Conv", "Exp", "Exp", "Conv", "Exp", "Conv"], 3, id="two islands"),
        pytest.param(["Exp"], 0, id="none"),
    ],
)
def test_what_the_gpu_parts_are_loadables(ops: list[str], loadables: int) -> None:
    assert dry_run(OnnxGraph(chain(*ops)), precision="fp16", tensorrt=TENSORRT).loadables == loadables


def test_a_branch_around_an_island_cannot_close_a_circle() -> None:
    """Both ends of the skip are on NVDLA, but what is between waits for the first and feeds the second."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="first"),
        helper.make_node("Exp", ["a"], ["b"], name="island"),
        helper.make_node("Add", ["a", "b"], ["y"], name="second"),
    ]
    found = dry_run(OnnxGraph(model(nodes, {"x": SHAPE}, ["y"])), precision="fp16", tensorrt=TENSORRT)
    assert [item.place for item in found.placements] == ["nvdla", "gpu", "nvdla"]
    assert found.loadables == 2


def test_branches_that_meet_are_one_loadable_and_others_are_not() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Sigmoid", ["x"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
        helper.make_node("Tanh", ["x"], ["z"]),
    ]
    assert (
        dry_run(OnnxGraph(model(nodes, {"x": SHAPE}, ["y", "z"])), precision="fp16", tensorrt=TENSORRT).loadables == 2
    )


def test_too_many_loadables_are_said() -> None:
    found = dry_run(OnnxGraph(chain(*["Relu", "Exp"] * 17)), precision="fp16", tensorrt=TENSORRT)
    assert found.loadables == 17
    assert found.notes == ("17 loadables: a core holds 16 at a time",)


def test_the_product_of_a_silu_is_noted_in_int8() -> None:
    nodes = [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", ["x", "s"], ["y"])]
    made = model(nodes, {"x": SHAPE}, ["y"])
    assert dry_run(OnnxGraph(made), precision="fp16", tensorrt=TENSORRT).notes == ()
    (note,) = dry_run(OnnxGraph(made), precision="int8", tensorrt=TENSORRT).notes
    assert note.startswith("1 SiLUs (x * sigmoid(x))")
    gate = [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", ["s", "s"], ["y"])]
    assert dry_run(OnnxGraph(model(gate, {"x": SHAPE}, ["y"])), precision="int8", tensorrt=TENSORRT).notes == ()


def test_an_exported_bundle_leaves_at_its_input_alone(artifacts: Artifacts) -> None:
    pytest.importorskip("torch")
    found = dry_run(load_source(artifacts.bundle("onnx")).graph, precision="int8", tensorrt=TENSORRT)
    assert [(item.op, item.place) for item in found.off_nvdla] == [
        ("Cast", "gpu"), ("Transpose", "unsure"), ("Sub", "unsure"), ("Mul", "unsure")
    ]  # fmt: skip
    assert found.share_of_macs == 1.0
    assert found.loadables == 1


@pytest.mark.parametrize(
    ("precision", "tensorrt", "message"),
    [
        ("fp32", TENSORRT, "--precision: expected fp16 or int8, all that NVDLA computes, got fp32"),
        ("fp16", (10, 8), "--trt: expected TensorRT 10.7 or older, the last that builds for NVDLA, got 10.8"),
        ("int8", (11, 1), "--trt: expected TensorRT 10.7 or older, the last that builds for NVDLA, got 11.1"),
        ("int8", (10, 3), "NVDLA: expected a TensorRT whose INT8 without Q/DQ, which NVDLA needs, is sound, got 10.3"),
    ],
)
def test_what_nvdla_never_does_is_refused(precision: str, tensorrt: tuple[int, ...], message: str) -> None:
    with pytest.raises(ExportError) as caught:
        dry_run(OnnxGraph(chain("Relu")), precision=precision, tensorrt=tensorrt)
    assert str(caught.value).startswith(message)


def test_a_quantized_graph_is_refused() -> None:
    scale, zero = np.float32(0.1).reshape(()), np.zeros((), np.int8)
    with pytest.raises(ExportError, match="NVDLA: expected a graph without Q/DQ, got node; give the float graph"):
        dry_run(OnnxGraph(one("QuantizeLinear", constants=[scale, zero])), precision="int8", tensorrt=TENSORRT)


def test_what_is_no_onnx_graph_is_refused(artifacts: Artifacts, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(ExportError, match=r"expected an ONNX graph, got model\.xml; export one with --target onnx"):
        load_source(artifacts.bundle("openvino"))
    with pytest.raises(BundleError, match="expected a bundle directory"):
        load_source(artifacts.checkpoint())
    for name, content in (("none.onnx", None), ("cut.onnx", b"\x08\x08garbage"), ("empty.onnx", b"")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ExportError, match=f"{name}: expected an ONNX graph") as caught:
            load_source(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words", "found"),
    [
        ({"jetpack": "6.2", "device": "agx-orin"}, (), "fp16, TensorRT 10.3"),
        ({"jetpack": "6.2", "device": "agx-orin", "trt": "10.7"}, ("--precision", "int8"), "int8, TensorRT 10.7"),
        ({"jetpack": "5.1", "device": "xavier-nx", "nvdla": 1}, (), "fp16, TensorRT 8.5"),
        ({"jetpack": "6.2", "device": "agx-orin"}, ("--trt", "8.6.2"), "fp16, TensorRT 8.6.2"),
    ],
)
def test_the_default_is_what_the_bundle_was_exported_for(
    exported: Make,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
    words: tuple[str, ...],
    found: str,
) -> None:
    path = exported("jetson", "fp16", **options)
    code, out, _ = command_runner(monkeypatch, capsys)("nvdla", path, *words)
    assert code == 0
    assert out.startswith(f"{path}, {found}: ")


@pytest.mark.parametrize("words", [(), ("--trt", "8.6.2", "--precision", "fp16")])
@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("jetson", {"jetpack": "7.0", "device": "thor"}, "got one for Jetson Thor, which has none; export it for one"),
        ("jetson", {"jetpack": "6.2"}, "got one for Jetson Orin Nano, which has none; export it for one of these"),
        (
            "jetson",
            {"jetpack": "7.2", "device": "agx-orin"},
            "that builds for NVDLA, got a strongly typed one for 10.16",
        ),
        ("tensorrt", {"trt": "8.5"}, "(orin-nx, agx-orin, xavier-nx, agx-xavier), got one for desktop GPUs"),
    ],
)
def test_a_bundle_that_can_never_run_on_nvdla_is_refused(
    exported: Make,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: str,
    options: dict[str, Any],
    message: str,
    words: tuple[str, ...],
) -> None:
    path = exported(target, "fp16", **options)
    code, out, error = command_runner(monkeypatch, capsys)("nvdla", path, *words)
    assert (code, out) == (2, "")
    assert message in error
    assert error.count("\n") == 1


def test_int8_with_a_tensorrt_that_breaks_off_there_is_refused_as_by_the_export(
    exported: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = exported("jetson", "fp16", jetpack="6.2", device="agx-orin")
    code, out, error = command_runner(monkeypatch, capsys)("nvdla", path, "--precision", "int8")
    assert (code, out) == (2, "")
    assert "got 10.3, reported to break off there on Orin (NVIDIA/TensorRT#4797); use --precision fp16" in error
