"""A look into an ONNX graph."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from mdpose_edge.common.onnx_graph import OnnxGraph  # noqa: E402
from mdpose_edge.errors import ExportError  # noqa: E402


def make_model(rows: int = 4) -> onnx.ModelProto:
    """Cast, then a convolution whose weight is behind an Identity, beside a Constant that is added."""
    one = numpy_helper.from_array(np.float32(1), "one")
    nodes = [
        helper.make_node("Constant", [], ["shift"], "shift_node", value=one),
        helper.make_node("Identity", ["stored"], ["weight"], "weight_node"),
        helper.make_node("Cast", ["image"], ["float"], "cast", to=TensorProto.FLOAT),
        helper.make_node("QuantizeLinear", ["float", "one_scale"], ["int8"], "quantize"),
        helper.make_node("DequantizeLinear", ["int8", "one_scale"], ["again"], "dequantize"),
        helper.make_node("Conv", ["again", "weight"], ["found"], "conv", strides=[2, 2]),
        helper.make_node("Add", ["found", "shift"], ["sum"], "add"),
    ]
    stored = numpy_helper.from_array(np.full((4, 3, 1, 1), 2, np.float32), "stored")
    scale = numpy_helper.from_array(np.float32(1), "one_scale")
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [2, 3, 8, 6])],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [2, 4, rows, 3])],
        [stored, scale],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_constants_are_no_nodes_whatever_gives_them() -> None:
    graph = OnnxGraph(make_model())
    assert [node.name for node in graph.nodes] == ["cast", "quantize", "dequantize", "conv", "add"]
    assert set(graph.constants) == {"stored", "weight", "shift", "one_scale"}
    assert set(graph.initializers) == {"stored", "one_scale"}
    assert graph.value("weight").tolist() == np.full((4, 3, 1, 1), 2.0).tolist()
    assert graph.value("shift") == 1
    assert graph.value("found") is None


def test_who_gives_and_who_reads() -> None:
    graph = OnnxGraph(make_model())
    assert (graph.inputs, graph.outputs) == (["image"], ["sum"])
    assert graph.producer["found"].name == "conv"
    assert "image" not in graph.producer and "weight" not in graph.producer
    assert [node.name for node in graph.consumers["found"]] == ["add"]
    assert [node.name for node in graph.consumers["one_scale"]] == ["quantize", "dequantize"]
    assert graph.attributes(graph.nodes[3]) == {"strides": [2, 2]}


def test_depths_pass_over_quantizers() -> None:
    depth = OnnxGraph(make_model()).depth
    assert [depth[name] for name in ("image", "float", "int8", "again", "found", "sum")] == [0, 1, 1, 1, 2, 3]


def test_shapes_and_types_of_every_tensor() -> None:
    graph = OnnxGraph(make_model())
    assert {name: graph.shapes[name] for name in ("image", "found", "weight", "shift")} == {
        "image": (2, 3, 8, 6),
        "found": (2, 4, 4, 3),
        "weight": (4, 3, 1, 1),
        "shift": (),
    }
    assert (graph.types["image"], graph.types["int8"], graph.types["found"]) == ("UINT8", "UINT8", "FLOAT")
    assert graph.float_activations == ["float", "again", "found", "sum"]


def test_shapes_that_do_not_fit_are_one_sentence() -> None:
    graph = OnnxGraph(make_model(rows=5))
    assert graph.producer["sum"].name == "add"  # what needs no shapes is known all the same
    with pytest.raises(ExportError, match="the graph: expected shapes that can be inferred"):
        _ = graph.shapes
