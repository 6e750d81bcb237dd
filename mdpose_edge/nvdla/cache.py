"""INT8 scales for NVDLA: TensorRT's calibration cache, the only form in which its builder takes them below 11.

The file is text. Its first line names the version of TensorRT and the algorithm; each further line a tensor of the ONNX
graph and the scale amax / 127 as the hexadecimal digits of a big-endian float32 (read in cuDLA-samples'
data/model/qat2ptq.cache; NVIDIA's writer is tools/qdq-translator/utils.py of Deep-Learning-Accelerator-SW).

NVDLA runs a layer in INT8 only if every tensor around it has a scale, and wants one scale where TensorRT's header says
so: the inputs of an ElementWise layer, and by the same need of its hardware what a Concat joins.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from mdpose_edge.common.onnx_graph import OnnxGraph
from mdpose_edge.common.union_find import largest_by_group
from mdpose_edge.errors import CalibrationError
from mdpose_edge.nvdla.limits import check_no_qdq
from mdpose_edge.trt.platforms import calibration_header, parse_version

SAME_VALUES = ("MaxPool", "Resize")
"""Operators whose output holds values of their input and no others: one scale serves both."""
JOINED_INPUTS = ("Add", "Sub", "Max", "Min")
"""Operators whose inputs must have one scale in INT8 (NvInfer.h, IElementWiseLayer). Mul is left to TensorRT, which
takes the larger of the two by itself: written here, it would coarsen what the sigmoid of x * sigmoid(x) gives too."""


def calibration_cache(graph: OnnxGraph, scales: Mapping[str, float], tensorrt: str) -> str:
    """Return the text of the cache for a graph.

    Args:
        graph: without Q/DQ, of static shape.
        scales: amax / 127 by tensor of this graph: those of the Q/DQ graph that was made of it.
        tensorrt: the version that will read it, like "8.6.2": another one refuses the file.

    Raises:
        CalibrationError: a scale is missing, or is not a positive number.
        ExportError: the graph has Q/DQ.
    """
    check_no_qdq(graph)
    missing = missing_scales(graph, scales)
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        got = f"none for {', '.join(missing[:3])}{more}"
        raise CalibrationError("NVDLA", expected="a scale for every tensor", got=got, do="calibrate this very graph")
    return write_cache(joined_scales(graph, {name: scales[name] for name in _scaled_tensors(graph)}), tensorrt)


def missing_scales(graph: OnnxGraph, scales: Mapping[str, float]) -> tuple[str, ...]:
    """List the tensors without a scale, in graph order: inputs, then what each node gives, the outputs among it."""
    return tuple(name for name in _scaled_tensors(graph) if name not in scales)


def joined_scales(graph: OnnxGraph, scales: Mapping[str, float]) -> dict[str, float]:
    """Raise scales to the largest of those that must be one.

    Args:
        graph: without Q/DQ.
        scales: of every tensor. Not modified.
    """
    return largest_by_group(scales, _groups(graph))


def write_cache(scales: Mapping[str, float], tensorrt: str) -> str:
    """Write scales as a cache.

    Raises:
        CalibrationError: a scale is not a positive number within float32.
    """
    lines = [calibration_header(parse_version(tensorrt))]
    for name, scale in scales.items():
        stored = struct.pack(">f", scale) if 0 < scale < 3.4e38 else b""
        if not any(stored):
            raise CalibrationError(name, expected="a positive scale", got=str(scale), do="calibrate again")
        lines.append(f"{name}: {stored.hex()}")
    return "\n".join(lines) + "\n"


def _scaled_tensors(graph: OnnxGraph) -> list[str]:
    """List the graph's inputs and every float tensor that a node gives, in graph order."""
    return [*graph.inputs, *graph.float_activations]


def _groups(graph: OnnxGraph) -> Iterator[tuple[str, ...]]:
    for node in graph.nodes:
        activations = tuple(name for name in node.input if name in graph.shapes and name not in graph.constants)
        if node.op_type == "Concat":
            yield (*activations, *node.output)
        elif node.op_type in SAME_VALUES:
            yield (activations[0], node.output[0])
        elif node.op_type in JOINED_INPUTS and len(activations) > 1:
            yield activations
