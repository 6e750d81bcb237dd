"""INT8 for onnxruntime's CPU provider: it must turn into integer kernels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mdpose_edge.calib.dataset import CalibrationSet
from mdpose_edge.calib.qdq import QdqModel
from mdpose_edge.errors import ConfigError, ExportError
from tests.unit.calib.float_graph import make_calibration, make_float_graph, onnx, relative_errors
from tests.unit.calib.quantized import quantize_onnxruntime, quantize_qdq


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> CalibrationSet:
    return make_calibration(tmp_path_factory.mktemp("int8"))


@pytest.fixture(scope="module")
def made(calibration: CalibrationSet) -> QdqModel:
    return quantize_onnxruntime(make_float_graph(), calibration)


def optimized_operators(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    """Count the operators that onnxruntime runs in place of a graph's."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


def test_convolutions_become_integer_kernels(made: QdqModel, calibration: CalibrationSet, tmp_path: Path) -> None:
    ran = optimized_operators(made.model, tmp_path)
    assert ran["QLinearConv"] == len(made.quantized) == 12
    assert made.kept_float == ("node_o",)
    tensorrt_form = quantize_qdq(make_float_graph(), calibration).model
    assert optimized_operators(tensorrt_form, tmp_path)["QLinearConv"] == 0


def test_activations_are_unsigned_and_weights_signed(made: QdqModel) -> None:
    kinds = {tensor.name: tensor.data_type for tensor in made.model.graph.initializer}
    zero_points = {kinds[node.input[2]] for node in made.model.graph.node if node.op_type == "QuantizeLinear"}
    assert zero_points == {onnx.TensorProto.UINT8}
    assert kinds["root_conv.weight_quantized"] == onnx.TensorProto.INT8


def test_the_input_path_and_the_activations_of_the_head_are_float(made: QdqModel) -> None:
    producer = {name: node.op_type for node in made.model.graph.node for name in node.output}
    for node in made.model.graph.node:
        if node.op_type in ("Sub", "Transpose"):
            assert producer[node.input[0]] != "DequantizeLinear"
    assert {producer[value.name] for value in made.model.graph.output} <= {"Conv", "DequantizeLinear"}


def test_it_computes_what_the_float_graph_computes(made: QdqModel, calibration: CalibrationSet) -> None:
    errors = relative_errors(made.model, make_float_graph(), calibration.inputs[:1])
    assert 0 < max(errors.values()) < 0.1


def test_convolutions_stay_float_on_demand(calibration: CalibrationSet) -> None:
    made = quantize_onnxruntime(make_float_graph(), calibration, keep_float=["node_root_conv"])
    assert made.kept_float == ("node_root_conv", "node_o")
    assert "root_conv.weight" in {tensor.name for tensor in made.model.graph.initializer}


def test_bad_options_are_refused_before_measuring(calibration: CalibrationSet, made: QdqModel) -> None:
    def never(done: int, total: int, note: str = "", stage: str = "") -> None:
        raise AssertionError("measured before the options were checked")

    with pytest.raises(ConfigError, match="--calib-method"):
        quantize_onnxruntime(make_float_graph(), calibration, method="kl", progress=never)
    with pytest.raises(ExportError, match="--keep-float: expected one of the graph's 13 convolutions, got tower"):
        quantize_onnxruntime(make_float_graph(), calibration, keep_float=["tower"], progress=never)
    with pytest.raises(ExportError, match="expected a float graph, got one that is quantized already"):
        quantize_onnxruntime(made.model, calibration, progress=never)


def test_the_source_is_not_modified(calibration: CalibrationSet) -> None:
    source = make_float_graph()
    before = source.SerializeToString()
    quantize_onnxruntime(source, calibration)
    assert source.SerializeToString() == before
