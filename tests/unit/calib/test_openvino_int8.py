"""INT8 for OpenVINO: where NNCF puts quantizers, and what becomes of the head's Swish."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

ov = pytest.importorskip("openvino")
pytest.importorskip("nncf")

from mdpose_edge.calib import openvino_int8  # noqa: E402
from mdpose_edge.calib.dataset import CalibrationSet  # noqa: E402
from mdpose_edge.calib.openvino_int8 import METHODS, fuse_swish, read_float_graph  # noqa: E402
from mdpose_edge.common.onnx_graph import OnnxGraph  # noqa: E402
from mdpose_edge.errors import ConfigError, ExportError  # noqa: E402
from tests.unit.calib.float_graph import HEADS, make_calibration, make_float_graph, run_graph  # noqa: E402
from tests.unit.calib.quantized import quantize_openvino  # noqa: E402


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> CalibrationSet:
    return make_calibration(tmp_path_factory.mktemp("int8"))


@pytest.fixture(scope="module")
def made(calibration: CalibrationSet) -> ov.Model:
    return quantize_openvino(make_float_graph(), calibration)


def run_openvino(graph: ov.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    compiled = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    outputs = compiled([images])
    return {name: outputs[name] for name in ("o", "mu", "gamma")}


def quantized_convolutions(graph: ov.Model) -> set[str]:
    """Name the convolutions whose data comes from a quantizer."""
    return {
        node.get_friendly_name().removesuffix("/WithoutBiases")
        for node in graph.get_ops()
        if node.get_type_name() == "Convolution" and comes_from_quantizer(node)
    }


def comes_from_quantizer(convolution: ov.Node) -> bool:
    source = convolution.input_value(0).get_node()
    while source.get_type_name() in ("Concat", "MaxPool", "Interpolate"):
        source = source.input_value(0).get_node()
    return bool(source.get_type_name() == "FakeQuantize")


def test_every_convolution_is_quantized_but_those_with_few_channels(made: ov.Model) -> None:
    convolutions = {node.name for node in make_float_graph().graph.node if node.op_type == "Conv"}
    assert quantized_convolutions(made) == convolutions - {"node_o"}


def test_the_swish_of_the_head_runs_inside_the_convolution(made: ov.Model) -> None:
    kinds = [node.get_type_name() for node in made.get_ops()]
    assert kinds.count("Swish") == 1
    assert "Sigmoid" not in kinds
    compiled = ov.Core().compile_model(made, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    layers = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    (kind,) = {
        layer["layerType"].astype(str)
        for layer in layers
        if "node_tower" in layer["originalLayersNames"].astype(str).split(",")
    }
    assert kind == "Convolution"


def test_fusing_swish_changes_no_value(calibration: CalibrationSet) -> None:
    model = make_float_graph()
    graph = read_float_graph(model)
    fuse_swish(graph)
    image = calibration.inputs[:1]
    for name, expected in run_graph(model, image).items():
        np.testing.assert_allclose(run_openvino(graph, image)[name], expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("method", METHODS)
def test_it_computes_what_the_float_graph_computes(calibration: CalibrationSet, method: str) -> None:
    image = calibration.inputs[:1]
    got = run_openvino(quantize_openvino(make_float_graph(), calibration, method=method), image)
    for name, expected in run_graph(make_float_graph(), image).items():
        assert 0 < np.sqrt(np.square(got[name] - expected).mean()) < 0.15 * expected.std()


def test_convolutions_stay_float_on_demand(calibration: CalibrationSet, made: ov.Model) -> None:
    kept = {"node_root_conv", "node_project", "node_mu"}  # behind a Concat, a MaxPool, a Swish
    graph = quantize_openvino(make_float_graph(), calibration, keep_float=kept)
    assert quantized_convolutions(graph) == quantized_convolutions(made) - kept


def test_what_is_float_is_as_it_was(calibration: CalibrationSet, made: ov.Model) -> None:
    """With every convolution returned, nothing but the sums of residuals is int8 any longer."""
    model = make_float_graph()
    everything = {node.name for node in model.graph.node if node.op_type == "Conv"}
    graph = quantize_openvino(model, calibration, keep_float=everything)
    image = calibration.inputs[:1]
    got, int8, expected = run_openvino(graph, image), run_openvino(made, image), run_graph(model, image)
    for name in HEADS:
        error, quantized = (np.sqrt(np.square(one[name] - expected[name]).mean()) for one in (got, int8))
        assert error < 0.5 * quantized
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "Convolution":
            assert node.input_value(1).get_node().get_type_name() == "Constant"


def test_another_choice_of_float_layers_measures_nothing_again(calibration: CalibrationSet) -> None:
    seen: list[int] = []
    made = openvino_int8.quantize_openvino(
        OnnxGraph(make_float_graph()), calibration, progress=lambda done, total: seen.append(done)
    )
    measured = len(seen)
    for keep_float in ((), ("node_tower_conv",), ()):
        graph = made.keeping_float(keep_float)
        assert ("node_tower_conv" in quantized_convolutions(graph)) == (not keep_float)
    assert len(seen) == measured


def test_a_batch_is_taken_and_progress_goes_over_the_images(
    calibration: CalibrationSet, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[int, int]] = []
    quantize_openvino(make_float_graph(batch=3), calibration, progress=lambda *step: seen.append(step))
    assert seen[:2] == [(3, 4), (4, 4)]
    assert capsys.readouterr().out == ""


def test_bad_options_are_one_sentence(calibration: CalibrationSet) -> None:
    with pytest.raises(
        ConfigError, match="--calib-method: expected one of min-max, percentile, mse for OpenVINO, got ent"
    ):
        quantize_openvino(make_float_graph(), calibration, method="entropy")
    with pytest.raises(ConfigError, match="expected one of min-max, percentile, entropy, mse, got kl"):
        quantize_openvino(make_float_graph(), calibration, method="kl")
    with pytest.raises(ExportError, match="--keep-float: expected one of the graph's 13 convolutions, got tower"):
        quantize_openvino(make_float_graph(), calibration, keep_float=["tower"])


def test_what_is_quantized_already_is_no_source(calibration: CalibrationSet) -> None:
    from tests.unit.calib.quantized import quantize_qdq

    with pytest.raises(ExportError, match="expected a float graph, got one that is quantized already: QuantizeLinear"):
        quantize_openvino(quantize_qdq(make_float_graph(), calibration).model, calibration)


def test_nncf_reports_nothing_to_its_vendor() -> None:
    code = (
        "from mdpose_edge.calib.openvino_int8 import import_nncf; import_nncf()\n"
        "from nncf.telemetry.wrapper import telemetry; print(type(telemetry).__name__)\n"
        "import os; print('NNCF_CI' in os.environ)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NNCF_", "PYTEST_"))}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert result.stdout.split() == ["MagicMock", "False"], result.stderr
