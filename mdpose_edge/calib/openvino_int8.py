"""INT8 for OpenVINO, by NNCF: u8 or s8 activations and s8 weights, as its CPU kernels take them."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.calib.dataset import CalibrationSet
from mdpose_edge.calib.layers import check_float_source, float_nodes, state_nodes, tied_inputs, weighted_nodes
from mdpose_edge.calib.openvino_float import convolutions, return_to_float
from mdpose_edge.calib.openvino_tied import tie_ranges
from mdpose_edge.calib.ranges import batches
from mdpose_edge.calib.thresholds import check_method
from mdpose_edge.common.onnx_graph import OnnxGraph
from mdpose_edge.common.optional import require
from mdpose_edge.common.progress import Progress
from mdpose_edge.errors import ConfigError
from mdpose_edge.runtimes.openvino_session import read_graph

if TYPE_CHECKING:
    import onnx
    import openvino

METHODS = ("min-max", "percentile", "mse")
"""Those that NNCF has."""
DEFAULT_METHOD = "mse"
SCHEME = "int8 by FakeQuantize: weights symmetric per output channel, activations asymmetric per tensor"
PRESET = "MIXED"
"""Activations asymmetric: a Swish reaches from -0.28 to far above zero, and half of a symmetric grid would be idle."""
OUTLIERS = 1e-4
"""Share of the values that "percentile" leaves outside, at either end."""


@dataclass(frozen=True)
class NncfGraph:
    """A float graph with the quantizers that NNCF placed by its own measurements."""

    quantized: openvino.Model
    """All convolutions in int8 but the narrow ones (`layers.float_nodes`)."""
    plain: openvino.Model
    """Without the quantizers."""
    source: OnnxGraph

    def keeping_float(self, names: Collection[str] = ()) -> openvino.Model:
        """Make the graph in which some convolutions more are float; nothing is measured again for it.

        Args:
            names: of convolutions, as in ONNX.

        Raises:
            ExportError: there is none of a name.
        """
        narrow = {node.name for node in float_nodes(self.source)}
        returned = {node.name for node in float_nodes(self.source, names)} - narrow
        return return_to_float(self.quantized, self.plain, returned)


def quantize_openvino(
    graph: OnnxGraph,
    calibration: CalibrationSet,
    *,
    method: str = DEFAULT_METHOD,
    keep_float: Collection[str] = (),
    progress: Progress | None = None,
) -> NncfGraph:
    """Measure ranges and place quantizers for OpenVINO.

    Args:
        graph: float32, of static shape.
        calibration: what ranges are measured on; it must fit the model's input (`CalibrationSet.check_fits`).
        method: one of METHODS, by NNCF's estimators: global extremes; the mean over images of the quantiles at
            OUTLIERS; least squared error on a histogram.
        keep_float: what `NncfGraph.keeping_float` will be asked for, refused here before the minutes that this takes.
        progress: called with (images read, images in all).

    Raises:
        ExportError: the graph is quantized already, or has no such node.
        ConfigError: NNCF has no such method.
        MissingPackageError: the extra `export` is not installed.
    """
    check_method(method)
    if method not in METHODS:
        do = "choose one of these, or another target"
        raise ConfigError("--calib-method", expected=f"one of {', '.join(METHODS)} for OpenVINO", got=method, do=do)
    check_float_source(graph)
    float_nodes(graph, keep_float)
    plain = read_float_graph(graph.model)
    fuse_swish(plain)
    quantized = _quantize(plain, graph, method, calibration, progress)
    tie_ranges(quantized, _places(graph))
    return NncfGraph(quantized, plain, graph)


def _places(graph: OnnxGraph) -> list[list[str]]:
    """Return the names of the convolutions that must share a range."""
    weighted = weighted_nodes(graph)
    return [[node.name for node in weighted if node.input[0] in names] for names in tied_inputs(graph)]


def read_float_graph(model: onnx.ModelProto) -> openvino.Model:
    """Read an ONNX graph without `openvino.convert_model`, which reports its use to the vendor.

    Biases arrive as arithmetic on shapes; folded here, they fuse into their convolutions.
    """
    passes = require("openvino.passes", extra="export", feature="OpenVINO graphs")
    graph = read_graph(model.SerializeToString(), where="the graph", feature="OpenVINO graphs")
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(graph)
    return graph


def fuse_swish(graph: openvino.Model) -> None:
    """Write x * sigmoid(x) as one Swish, in place.

    NNCF puts a quantizer between Sigmoid and Multiply, which keeps OpenVINO from fusing them: the activation then runs
    by itself, in float. It leaves a Swish whole, which becomes part of the int8 convolution before it.
    """
    operators = require("openvino.opset8", extra="export", feature="OpenVINO graphs")
    for multiply in [node for node in graph.get_ordered_ops() if node.get_type_name() == "Multiply"]:
        sources = [value.get_node() for value in multiply.input_values()]
        for sigmoid, other in (sources, sources[::-1]):
            if sigmoid.get_type_name() == "Sigmoid" and sigmoid.input_value(0) == other.output(0):
                swish = operators.swish(sigmoid.input_value(0))
                swish.set_friendly_name(multiply.get_friendly_name())
                for reader in multiply.output(0).get_target_inputs():
                    reader.replace_source_output(swish.output(0))
                break


def import_nncf() -> ModuleType:
    """Import NNCF in a way that it reports nothing to its vendor."""
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"  # read once, on import
    try:
        return require("nncf", extra="export", feature="INT8 for OpenVINO")
    finally:
        if before is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = before


def _quantize(
    plain: openvino.Model,
    source: OnnxGraph,
    method: str,
    calibration: CalibrationSet,
    progress: Progress | None,
) -> openvino.Model:
    nncf = import_nncf()
    narrow, state = ({node.name for node in nodes} for nodes in (float_nodes(source), state_nodes(source)))
    ignored = [node.get_friendly_name() for name, node in convolutions(plain).items() if name in narrow]
    ignored += [name for node in plain.get_ordered_ops() if (name := node.get_friendly_name()) in state - narrow]
    with _quiet(nncf):
        return nncf.quantize(
            plain,
            _dataset(nncf, plain.input(0).get_shape()[0], calibration, progress),
            preset=nncf.QuantizationPreset[PRESET],
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(calibration),
            ignored_scope=nncf.IgnoredScope(names=ignored),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                disable_channel_alignment=True,  # it would change weights that return_to_float takes from `plain`
                # It corrects each call of a place by itself, so that they would be other layers.
                disable_bias_correction=bool(tied_inputs(source)),
                activations_range_estimator_params=_range_estimator(method),
            ),
        )


@contextmanager
def _quiet(nncf: ModuleType) -> Iterator[None]:
    """Keep NNCF from printing: it draws progress bars of its own on stdout, where our results go.

    While it works it imports PyTorch's builder of CUDA extensions, which warns of a CUDA toolkit without a GPU.
    """
    nncf.set_log_level("ERROR")
    extensions = logging.getLogger("torch.utils.cpp_extension")
    level = extensions.level
    extensions.setLevel(logging.ERROR)
    try:
        with open(os.devnull, "w") as devnull, redirect_stdout(devnull):
            yield
    finally:
        extensions.setLevel(level)


def _dataset(nncf: ModuleType, batch: int, calibration: CalibrationSet, progress: Progress | None) -> Any:
    class Batches:
        def __iter__(self) -> Iterator[NDArray[np.uint8]]:
            for index, images in enumerate(batches(calibration.inputs, batch)):
                yield images
                if progress is not None:
                    progress(min(len(calibration), (index + 1) * batch), len(calibration))

    return nncf.Dataset(Batches())


def _range_estimator(method: str) -> Any:
    estimator = require("nncf.quantization.range_estimator", extra="export", feature="INT8 for OpenVINO")
    if method == "percentile":
        low, high = (
            estimator.StatisticsCollectorParameters(
                statistics_type=estimator.StatisticsType.QUANTILE,
                aggregator_type=estimator.AggregatorType.MEAN,
                quantile_outlier_prob=OUTLIERS,
            )
            for _ in range(2)
        )
        return estimator.RangeEstimatorParameters(low, high)
    known = estimator.RangeEstimatorParametersSet
    return {"min-max": known.MINMAX, "mse": known.HISTOGRAM}[method]
