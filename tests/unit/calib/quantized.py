"""Float graphs measured and quantized in one go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING

from mdpose_edge.calib import onnxruntime_int8, openvino_int8, qdq
from mdpose_edge.calib.dataset import CalibrationSet
from mdpose_edge.calib.qdq import QdqModel
from mdpose_edge.calib.ranges import TensorRange, measure_ranges
from mdpose_edge.calib.thresholds import DEFAULT_METHOD
from mdpose_edge.common.onnx_graph import OnnxGraph
from mdpose_edge.common.progress import Progress

if TYPE_CHECKING:
    import onnx
    import openvino


def _quantize(
    quantize: Callable[[OnnxGraph, Mapping[str, TensorRange], Collection[str]], QdqModel],
    model: onnx.ModelProto,
    calibration: CalibrationSet,
    *,
    method: str = DEFAULT_METHOD,
    keep_float: Collection[str] = (),
    progress: Progress | None = None,
) -> QdqModel:
    graph = OnnxGraph(model)
    ranges = measure_ranges(graph, calibration, method=method, keep_float=keep_float, progress=progress)
    return quantize(graph, ranges, keep_float)


quantize_qdq = partial(_quantize, qdq.quantize_qdq)
quantize_onnxruntime = partial(_quantize, onnxruntime_int8.quantize_onnxruntime)


def quantize_openvino(
    model: onnx.ModelProto,
    calibration: CalibrationSet,
    *,
    method: str = openvino_int8.DEFAULT_METHOD,
    keep_float: Collection[str] = (),
    progress: Progress | None = None,
) -> openvino.Model:
    made = openvino_int8.quantize_openvino(
        OnnxGraph(model), calibration, method=method, keep_float=keep_float, progress=progress
    )
    return made.keeping_float(keep_float)
