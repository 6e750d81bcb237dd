"""The Q/DQ graph for TensorRT: where the pairs are, what their scales are, and what comes out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from mdpose_edge.calib import qdq
from mdpose_edge.calib.dataset import CalibrationSet
from mdpose_edge.calib.qdq import QdqModel
from mdpose_edge.calib.qdq_lint import lint_qdq
from mdpose_edge.calib.ranges import measure_ranges
from mdpose_edge.calib.thresholds import METHODS
from mdpose_edge.common.onnx_graph import OnnxGraph
from mdpose_edge.errors import ConfigError, ExportError
from tests.unit.calib.float_graph import (
    HEADS,
    make_calibration,
    make_float_graph,
    node_named,
    onnx,
    relative_errors,
)
from tests.unit.calib.quantized import quantize_qdq


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> CalibrationSet:
    return make_calibration(tmp_path_factory.mktemp("int8"))


@pytest.fixture(scope="module")
def made(calibration: CalibrationSet) -> QdqModel:
    return quantize_qdq(make_float_graph(), calibration)


def pairs(model: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    """Give, for each DQ, the float tensor behind it and each of its readers, as node[input]."""
    producer = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if (dequantize := producer.get(name)) is not None and dequantize.op_type == "DequantizeLinear":
                yield producer[dequantize.input[0]].input[0], f"{node.name.removeprefix('node_')}[{index}]"


def test_every_convolution_takes_int8_but_those_with_few_channels(made: QdqModel) -> None:
    assert made.kept_float == ("node_o",)
    convolutions = [node.name for node in made.model.graph.node if node.op_type == "Conv"]
    assert [name for name in convolutions if name != "node_o"] == list(made.quantized)
    found = set(pairs(made.model))
    assert ("normalized", "stem_conv[0]") in found
    assert ("joined", "root_conv[0]") in found
    assert {("tower", "mu[0]"), ("tower", "gamma[0]")} <= found
    assert not any(reader.startswith("o[") for _, reader in found)


def test_a_residual_has_its_pair_on_the_skip(made: QdqModel) -> None:
    found = {reader: tensor for tensor, reader in pairs(made.model) if "add" in reader or "merged" in reader}
    assert found == {"block1_add[1]": "project", "block2_add[1]": "block1", "merged[1]": "up"}


def test_one_tensor_has_one_pair_however_many_read_it(made: QdqModel) -> None:
    quantized = [node.input[0] for node in made.model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(quantized) == len(set(quantized) - {"tower"}) + ("tower" in quantized)
    assert {reader for tensor, reader in pairs(made.model) if tensor == "block1"} == {
        "block2_conv1[0]",
        "block2_add[1]",
    }


def test_what_meets_in_a_concat_has_one_scale(made: QdqModel, calibration: CalibrationSet) -> None:
    ranges = measure_ranges(OnnxGraph(make_float_graph()), calibration)
    assert ranges["block1"].scale != ranges["block2"].scale
    largest = max(ranges[name].scale for name in ("block1", "block2", "joined"))
    assert made.scales["block1"] == made.scales["block2"] == made.scales["joined"] == largest
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in made.model.graph.initializer}
    assert constants["block1_scale"] == np.float32(largest)


def test_scales_cover_every_activation_of_the_float_graph(made: QdqModel) -> None:
    tensors = {name for node in make_float_graph().graph.node for name in node.output}
    assert made.scales.keys() == tensors | {"image"}
    assert all(scale > 0 for scale in made.scales.values())
    with pytest.raises(TypeError):
        made.scales["image"] = 1.0  # type: ignore[index]


def test_weights_are_symmetric_per_output_channel(made: QdqModel) -> None:
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in made.model.graph.initializer}
    weight, scale = constants["root_conv.weight"], constants["root_conv.weight_scale"]
    np.testing.assert_allclose(scale, np.abs(weight).max(axis=(1, 2, 3)) / 127, rtol=1e-6)
    assert weight.dtype == np.float32


def test_interface_opset_and_float_source_stay(made: QdqModel) -> None:
    source = make_float_graph()
    before = source.SerializeToString()
    result = qdq.quantize_qdq(OnnxGraph(source), _some_ranges(source)).model
    assert source.SerializeToString() == before
    assert [value.name for value in result.graph.input] == ["image"]
    assert list(result.graph.output) == list(source.graph.output)
    assert (result.ir_version, list(result.opset_import)) == (source.ir_version, list(source.opset_import))


@pytest.mark.parametrize("method", METHODS)
def test_it_computes_what_the_float_graph_computes(calibration: CalibrationSet, method: str) -> None:
    source = make_float_graph()
    made = quantize_qdq(source, calibration, method=method)
    assert lint_qdq(made.model) == []
    errors = relative_errors(made.model, source, calibration.inputs[:1])
    assert 0 < max(errors.values()) < 0.1


def test_convolutions_stay_float_on_demand(calibration: CalibrationSet) -> None:
    source = make_float_graph()
    every = {node.name for node in source.graph.node if node.op_type == "Conv"}
    made = quantize_qdq(source, calibration, keep_float=every)
    assert (set(made.kept_float), made.quantized) == (every, ())
    assert list(pairs(made.model)) == []
    assert max(relative_errors(made.model, source, calibration.inputs[:1]).values()) == 0


def test_a_residual_of_a_float_convolution_is_float(calibration: CalibrationSet) -> None:
    made = quantize_qdq(make_float_graph(), calibration, keep_float=["node_block2_conv2"])
    assert "node_block2_conv2" in made.kept_float
    readers = {reader for _, reader in pairs(made.model)}
    assert not {"block2_conv2[0]", "block2_conv2[1]", "block2_add[0]", "block2_add[1]"} & readers


def test_each_convolution_can_be_the_only_one_in_int8(calibration: CalibrationSet) -> None:
    source = make_float_graph()
    every = {node.name for node in source.graph.node if node.op_type == "Conv"}
    ranges = measure_ranges(OnnxGraph(source), calibration, method="min-max")
    narrow = set(qdq.quantize_qdq(OnnxGraph(source), ranges).kept_float)
    for name in every - narrow:  # as accuracy control ranks layers
        assert qdq.quantize_qdq(OnnxGraph(source), ranges, every - {name}).quantized == (name,)


def test_weights_shared_by_levels_are_stored_once_with_a_pair_for_each(calibration: CalibrationSet) -> None:
    source = make_float_graph()
    node_named(source, "node_gamma").input[1:] = ["mu.weight", "mu.bias"]
    made = quantize_qdq(source, calibration)
    readers = [reader for tensor, reader in pairs(made.model) if tensor == "mu.weight"]
    assert sorted(readers) == ["gamma[1]", "mu[1]"]
    assert len([n for n in made.model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "mu.weight"]) == 2
    assert [tensor.name for tensor in made.model.graph.initializer].count("mu.weight_scale") == 1


def test_a_channel_of_zeros_stays_zero(calibration: CalibrationSet) -> None:
    source = make_float_graph()
    for tensor in source.graph.initializer:
        if tensor.name in ("mu.weight", "mu.bias"):
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(np.zeros_like(onnx.numpy_helper.to_array(tensor)), tensor.name)
            )
    ranges = measure_ranges(OnnxGraph(source), calibration)
    assert ranges["mu"].amax == 1.0
    assert lint_qdq(qdq.quantize_qdq(OnnxGraph(source), ranges).model) == []


def test_what_is_quantized_already_is_no_source(made: QdqModel, calibration: CalibrationSet) -> None:
    message = "the source of INT8: expected a float graph, got one that is quantized already: QuantizeLinear"
    with pytest.raises(ExportError, match=message):
        quantize_qdq(made.model, calibration)


def test_a_name_of_no_convolution_is_refused_before_measuring(calibration: CalibrationSet) -> None:
    message = r"--keep-float: expected one of the graph's 13 convolutions, got node_stem; correct the name"
    with pytest.raises(ExportError, match=message):
        quantize_qdq(make_float_graph(), calibration, keep_float=["node_stem"], progress=_never)


def test_an_unknown_method_is_refused(calibration: CalibrationSet) -> None:
    with pytest.raises(ConfigError, match="--calib-method"):
        quantize_qdq(make_float_graph(), calibration, method="kl", progress=_never)


def test_progress_goes_over_the_images(calibration: CalibrationSet) -> None:
    seen: list[tuple[int, int]] = []
    quantize_qdq(make_float_graph(batch=2), calibration, progress=lambda *step: seen.append(step))
    assert seen == [(2, 4), (4, 4)]


def _never(done: int, total: int) -> None:
    raise AssertionError("measured before the options were checked")


def _some_ranges(model: onnx.ModelProto) -> dict[str, object]:
    from mdpose_edge.calib.ranges import TensorRange

    names = ["image", *(name for node in model.graph.node for name in node.output)]
    return dict.fromkeys(names, TensorRange(-1.0, 1.0, 1.0))


def test_the_heads_are_float_tensors(made: QdqModel) -> None:
    kinds = {value.name: value.type.tensor_type.elem_type for value in made.model.graph.output}
    assert kinds == dict.fromkeys(HEADS, onnx.TensorProto.FLOAT)
