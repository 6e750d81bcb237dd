from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("onnx")

import onnx
from onnx import helper

from mdpose_edge.common.onnx_graph import OnnxGraph
from mdpose_edge.errors import CalibrationError, ExportError
from mdpose_edge.nvdla.cache import (
    calibration_cache,
    joined_scales,
    missing_scales,
    write_cache,
)
from mdpose_edge.nvdla.dry_run import load_source
from mdpose_edge.trt.platforms import calibration_header, version_number
from tests.artifacts import Artifacts
from tests.unit.nvdla.caches import read_cache
from tests.unit.nvdla.graphs import model, one

SHAPE = (1, 16, 32, 32)


@pytest.mark.parametrize(
    ("version", "number"),
    [((8, 5, 2), 8502), ((8, 5, 3, 1), 8503), ((8, 6, 2), 8602), ((10, 3, 0), 100300), ((10, 7), 100700)],
)
def test_a_version_as_a_number(version: tuple[int, ...], number: int) -> None:
    assert version_number(version) == number
    assert calibration_header(version) == f"TRT-{number}-EntropyCalibration2"


def test_the_file_is_what_tensorrt_reads() -> None:
    """1/127 is 0x3c010204; the second is a line of NVIDIA's cuDLA sample."""
    text = write_cache(
        {"images": 1 / 127, "/model.0/act/Mul_output_0": struct.unpack(">f", b"\x3e\x6c\x93\x14")[0]}, "8.6.0"
    )
    assert text == "TRT-8600-EntropyCalibration2\nimages: 3c010204\n/model.0/act/Mul_output_0: 3e6c9314\n"


names = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1)
positive = st.floats(2.0**-126, 2.0**127, width=32)


@given(st.dictionaries(names, positive))
def test_what_is_written_is_read(scales: dict[str, float]) -> None:
    found = read_cache(write_cache(scales, "10.3.0"))
    assert (found.tensorrt, found.algorithm) == (100300, "EntropyCalibration2")
    assert found.scales == scales


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1e-60, 1e60])
def test_a_scale_that_is_no_positive_float32_is_not_written(scale: float) -> None:
    with pytest.raises(CalibrationError, match="x: expected a positive scale"):
        write_cache({"x": scale}, "8.6.2")


def concat_of_two_convolutions() -> onnx.ModelProto:
    """A root as in DLA-34, its skip, and an upsampling: a = conv(x), b = conv(x), y = up(concat(a, b)) ..."""
    weights = {"w": np.zeros((16, 16, 1, 1), np.float32), "v": np.zeros((16, 32, 1, 1), np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="a"),
        helper.make_node("Conv", ["x", "w"], ["b"], name="b"),
        helper.make_node("Concat", ["a", "b"], ["c"], name="c", axis=1),
        helper.make_node("Conv", ["c", "v"], ["d"], name="d"),
        helper.make_node("Add", ["d", "x"], ["e"], name="e"),
        helper.make_node("MaxPool", ["e"], ["f"], name="f", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Sigmoid", ["f"], ["g"], name="g"),
        helper.make_node("Mul", ["f", "g"], ["h"], name="h"),
    ]
    return model(nodes, {"x": SHAPE}, ["h"], weights)


SCALES = {"x": 1.0, "a": 2.0, "b": 3.0, "c": 2.5, "d": 5.0, "e": 6.0, "f": 5.5, "g": 0.1, "h": 0.7}


def test_tensors_that_must_share_a_scale_get_their_largest() -> None:
    joined = joined_scales(OnnxGraph(concat_of_two_convolutions()), SCALES)
    assert joined == {
        **dict.fromkeys("abc", 3.0),  # what a Concat joins, and its output
        **dict.fromkeys("dx", 5.0),  # both inputs of the Add
        **dict.fromkeys("ef", 6.0),  # pooling takes values of its input
        "g": 0.1,  # a product's inputs are left as they are
        "h": 0.7,
    }


def test_groups_that_touch_are_one() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Concat", ["x", "a"], ["b"], axis=1),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Add", ["b", "c"], ["d"]),
    ]
    graph = OnnxGraph(model(nodes, {"x": SHAPE}, ["d"]))
    joined = joined_scales(graph, {"x": 1.0, "a": 2.0, "b": 1.5, "c": 4.0, "d": 9.0})
    assert joined == {"x": 4.0, "a": 4.0, "b": 4.0, "c": 4.0, "d": 9.0}


def test_the_cache_of_a_graph_has_every_tensor_in_order() -> None:
    found = read_cache(calibration_cache(OnnxGraph(concat_of_two_convolutions()), SCALES | {"stranger": 1.0}, "8.5.2"))
    assert found.tensorrt == 8502
    assert list(found.scales) == list("xabcdefgh")


def test_tensors_without_a_scale_are_listed() -> None:
    made = concat_of_two_convolutions()
    few = {name: scale for name, scale in SCALES.items() if name in "xad"}
    assert missing_scales(OnnxGraph(made), few) == ("b", "c", "e", "f", "g", "h")
    with pytest.raises(CalibrationError, match="a scale for every tensor, got none for b, c, e and 3 more"):
        calibration_cache(OnnxGraph(made), few, "8.6.2")


def test_weights_and_shapes_need_none(artifacts: Artifacts) -> None:
    pytest.importorskip("torch")
    graph = load_source(artifacts.bundle("onnx")).graph
    tensors = missing_scales(graph, {})
    given = {name for node in graph.model.graph.node for name in node.output}
    assert set(tensors) == given | {"image"}
    assert set(tensors) >= {output.name for output in graph.model.graph.output}


def test_a_quantized_graph_gets_no_cache() -> None:
    scale, zero = np.float32(0.1).reshape(()), np.zeros((), np.int8)
    with pytest.raises(ExportError, match="expected a graph without Q/DQ"):
        calibration_cache(OnnxGraph(one("QuantizeLinear", constants=[scale, zero])), {"x": 1.0, "y": 1.0}, "8.6.2")
