"""How far each activation reaches: one pass over a calibration set, which keeps histograms and no activations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.calib.dataset import CalibrationSet
from mdpose_edge.calib.layers import check_float_source, float_nodes, tied_inputs
from mdpose_edge.calib.thresholds import DEFAULT_METHOD, check_method, find_threshold
from mdpose_edge.common.onnx_graph import OnnxGraph
from mdpose_edge.common.optional import require
from mdpose_edge.common.progress import Progress
from mdpose_edge.errors import EngineError, ExportError
from mdpose_edge.runtimes.onnxruntime_session import open_session

BINS = 4096
"""Of a histogram of magnitudes. The upper half may be empty, since its end is a power of two."""
VALUES_PER_IMAGE = 1 << 18
"""Of a tensor that enter its histogram: larger ones are thinned out evenly. Least and largest value count all."""


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
        """The step of symmetric int8: amax / 127."""
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
    graph: OnnxGraph,
    calibration: CalibrationSet,
    *,
    method: str = DEFAULT_METHOD,
    keep_float: Collection[str] = (),
    progress: Progress | None = None,
) -> dict[str, TensorRange]:
    """Measure the range of every float activation of a graph, on onnxruntime.

    Args:
        graph: float32, one uint8 input (N, H, W, 3) of static shape.
        calibration: inputs of that size.
        method: one of METHODS.
        keep_float: what a quantizer will be asked to leave float. It changes no range, and is refused here before the
            minutes that measuring takes.
        progress: called with (images done, images in all) after each batch.

    Returns:
        Ranges by tensor name, in the order of the graph; the graph's input comes first, as it is after the cast.

    Raises:
        MissingPackageError: onnxruntime or onnx is not installed.
        ExportError: the graph is quantized already, has no such node, cannot be run, or an activation is not finite.
        ConfigError: no such method.
    """
    check_float_source(graph)
    check_method(method)
    float_nodes(graph, keep_float)
    histograms = collect_histograms(graph, calibration, progress=progress)
    return ranges_of(histograms, method)


def collect_histograms(
    graph: OnnxGraph, calibration: CalibrationSet, *, progress: Progress | None = None
) -> dict[str, MagnitudeHistogram]:
    """Return the histogram of every float activation; see `measure_ranges`. One pass serves every method.

    What one place of the network is given in several calls has one histogram, of all of them: see `layers.tied_inputs`.
    """
    (input_name,) = graph.inputs
    batch = graph.shapes[input_name][0]
    histograms = {name: one for one, names in _tied_histograms(graph) for name in names}
    histograms[input_name] = MagnitudeHistogram()
    run = observed_session(graph)
    done = 0
    for images in batches(calibration.inputs, batch):
        count = min(batch, len(calibration) - done)
        tensors = {input_name: images.astype(np.float32), **run(images)}
        for name, values in tensors.items():
            histogram = histograms.setdefault(name, MagnitudeHistogram())
            for offset in range(count):
                histogram.add(values[offset], done + offset)
        done += count
        if progress is not None:
            progress(done, len(calibration))
    return histograms


def _tied_histograms(graph: OnnxGraph) -> Iterator[tuple[MagnitudeHistogram, tuple[str, ...]]]:
    for names in tied_inputs(graph):
        yield MagnitudeHistogram(), names


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


def observed_session(graph: OnnxGraph) -> Callable[[NDArray[np.uint8]], dict[str, NDArray[np.float32]]]:
    """Load a graph with its activations as outputs.

    Args:
        graph: float32, of static shape.

    Returns:
        What maps a batch of images to every float tensor that a node computes, by name.

    Raises:
        ExportError: onnxruntime refuses the graph.
    """
    onnx = require("onnx", extra="export", feature="measuring ranges")
    observed = onnx.ModelProto()
    observed.CopyFrom(graph.model)
    names = graph.float_activations
    del observed.graph.output[:]
    observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    (input_name,) = graph.inputs
    text = observed.SerializeToString()
    try:
        session = open_session(text, where="the graph", feature="measuring ranges", optimized=True)
    except EngineError as error:
        raise ExportError("the graph", expected="one that onnxruntime runs", got=error.got, do="report this") from error

    def run(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return dict(zip(names, session.run(names, {input_name: images}), strict=True))

    return run
