"""How far each activation reaches: one pass over a calibration set, which keeps histograms and no activations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.calib.dataset import CalibrationSet
from mdpose_edge.calib.graph import GraphView, check_float_source
from mdpose_edge.calib.once import Once
from mdpose_edge.calib.thresholds import DEFAULT_METHOD, check_method, find_threshold
from mdpose_edge.common.optional import require
from mdpose_edge.errors import EngineError, ExportError
from mdpose_edge.runtimes.onnxruntime_session import open_session

if TYPE_CHECKING:
    import onnx

BINS = 4096
"""Of a histogram of magnitudes. The upper half may be empty, since its end is a power of two."""
VALUES_PER_IMAGE = 1 << 18
"""Of a tensor that enter its histogram: larger ones are thinned out evenly. Least and largest value count all."""

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


@dataclass(frozen=True)
class TensorRange:
    """Of one activation tensor."""

    low: float
    """The least value seen, and 0 where all are above."""
    high: float
    """The largest value seen, and 0 where all are below."""
    amax: float
    """The magnitude at which the method clips; positive."""

    @property
    def scale(self) -> float:
        """Give the step of symmetric int8: amax / 127."""
        return self.amax / 127


class MagnitudeHistogram:
    """A histogram of |x| whose range grows by doubling, so that no value has to be seen twice."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.end = 0.0
        """The upper edge: a power of two, 0 as long as nothing but zeros was seen."""
        self.low = self.high = 0.0

    def add(self, values: NDArray[np.float32], phase: int) -> None:
        """Count the values of one image.

        Args:
            values: of any shape.
            phase: where thinning starts; another one for each image, so that no column is left out for good.

        Raises:
            ExportError: a value is not finite.
        """
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            do = "train it again: no range can be measured on it"
            raise ExportError("the network", expected="finite activations", got=f"{low} and {high}", do=do)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._reach(max(high, -low))
        flat = values.reshape(-1)
        stride = -(-flat.size // VALUES_PER_IMAGE)
        magnitudes = np.abs(flat[phase % stride :: stride])
        if self.end:
            bins = np.minimum((magnitudes * np.float32(BINS / self.end)).astype(np.int32), BINS - 1)
            self.counts += np.bincount(bins, minlength=BINS)

    def _reach(self, peak: float) -> None:
        if not self.end and peak:
            self.end = float(2.0 ** np.ceil(np.log2(peak)))
        while self.end < peak:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, np.int64)])
            self.end *= 2


def measure_ranges(
    model: onnx.ModelProto,
    calibration: CalibrationSet,
    *,
    method: str = DEFAULT_METHOD,
    progress: Progress | None = None,
) -> dict[str, TensorRange]:
    """Measure the range of every float activation of a graph, on onnxruntime.

    Args:
        model: float32, one uint8 input (N, H, W, 3) of static shape. Not modified.
        calibration: inputs of that size.
        method: one of METHODS.
        progress: called after each batch.

    Returns:
        Ranges by tensor name, in the order of the graph; the graph's input comes first, as it is after the cast.

    Raises:
        MissingPackageError: onnxruntime or onnx is not installed.
        ExportError: an activation is not finite, or the graph cannot be run.
        ConfigError: no such method.
    """
    histograms = collect_histograms(model, calibration, progress=progress)
    return ranges_of(histograms, method)


def ranges_for(
    model: onnx.ModelProto,
    calibration: CalibrationSet,
    method: str,
    keep_float: Collection[str],
    progress: Progress | None,
    once: Once,
) -> dict[str, TensorRange]:
    """Measure ranges for a quantizer, what it was asked for being refused before the minutes that this takes.

    The arguments are those of the quantizers: see `quantize_qdq`.

    Raises:
        ExportError: the graph is quantized already, has no such node, or its activations are not finite.
        ConfigError: no such method.
    """
    check_float_source(model)
    check_method(method)
    GraphView(model).kept_float(keep_float)
    return once(lambda: measure_ranges(model, calibration, method=method, progress=progress))


def collect_histograms(
    model: onnx.ModelProto, calibration: CalibrationSet, *, progress: Progress | None = None
) -> dict[str, MagnitudeHistogram]:
    """Give the histogram of every float activation; see `measure_ranges`. One pass serves every method."""
    (graph_input,) = model.graph.input
    batch = graph_input.type.tensor_type.shape.dim[0].dim_value
    histograms: dict[str, MagnitudeHistogram] = {graph_input.name: MagnitudeHistogram()}
    run = observed_session(model)
    done = 0
    for images in batches(calibration.inputs, batch):
        count = min(batch, len(calibration) - done)
        tensors = {graph_input.name: images.astype(np.float32), **run(images)}
        for name, values in tensors.items():
            histogram = histograms.setdefault(name, MagnitudeHistogram())
            for offset in range(count):
                histogram.add(values[offset], done + offset)
        done += count
        if progress is not None:
            progress(done, len(calibration))
    return histograms


def ranges_of(histograms: Mapping[str, MagnitudeHistogram], method: str) -> dict[str, TensorRange]:
    """Decide where each tensor is clipped.

    Raises:
        ConfigError: no such method.
    """
    found = {}
    for name, histogram in histograms.items():
        peak = max(histogram.high, -histogram.low)
        threshold = find_threshold(histogram.counts, histogram.end, peak, method)
        # A tensor of zeros quantizes to zeros at any step.
        found[name] = TensorRange(histogram.low, histogram.high, threshold or 1.0)
    return found


def batches(inputs: NDArray[np.uint8], batch: int) -> Iterator[NDArray[np.uint8]]:
    """Cut inputs into batches of a static size; the last one is filled up with its own last image."""
    for start in range(0, len(inputs), batch):
        rows = np.minimum(np.arange(start, start + batch), len(inputs) - 1)
        yield np.ascontiguousarray(inputs[rows])


def observed_session(
    model: onnx.ModelProto, tensors: Mapping[str, object] | None = None
) -> Callable[[NDArray[np.uint8]], dict[str, NDArray[np.float32]]]:
    """Load a graph with its activations as outputs.

    Args:
        model: of static shape. Not modified.
        tensors: the names to give, or None for every float tensor that a node computes.

    Returns:
        What maps a batch of images to activations by name.

    Raises:
        ExportError: onnxruntime refuses the graph.
    """
    onnx = require("onnx", extra="export", feature="measuring ranges")
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    names = list(_float_activations(onnx, graph) if tensors is None else tensors)
    del graph.graph.output[:]
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    (input_name,) = (value.name for value in graph.graph.input)
    try:
        session = open_session(graph.SerializeToString(), where="the graph", feature="measuring ranges", optimized=True)
    except EngineError as error:
        raise ExportError("the graph", expected="one that onnxruntime runs", got=error.got, do="report this") from error

    def run(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return dict(zip(names, session.run(names, {input_name: images}), strict=True))

    return run


def _float_activations(onnx: Any, model: onnx.ModelProto) -> list[str]:
    inferred = onnx.shape_inference.infer_shapes(model)
    values = (*inferred.graph.value_info, *inferred.graph.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    return [name for node in inferred.graph.node for name in node.output if name in floats]
