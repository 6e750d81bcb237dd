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
from typing import TYPE_CHECKING

from mdpose_edge.errors import CalibrationError
from mdpose_edge.nvdla.graph import GraphFacts
from mdpose_edge.trt.platforms import calibration_header, parse_version

if TYPE_CHECKING:
    import onnx

SAME_VALUES = ("MaxPool", "Resize")
"""Operators whose output holds values of their input and no others: one scale serves both."""
JOINED_INPUTS = ("Add", "Sub", "Max", "Min")
"""Operators whose inputs must have one scale in INT8 (NvInfer.h, IElementWiseLayer). Mul is left to TensorRT, which
takes the larger of the two by itself: written here, it would coarsen what the sigmoid of x * sigmoid(x) gives too."""


def calibration_cache(model: onnx.ModelProto, scales: Mapping[str, float], tensorrt: str) -> str:
    """Give the text of the cache for a graph.

    Args:
        model: without Q/DQ, of static shape. Not modified.
        scales: amax / 127 by tensor of this graph: those of the Q/DQ graph that was made of it.
        tensorrt: the version that will read it, like "8.6.2": another one refuses the file.

    Raises:
        CalibrationError: a scale is missing, or is not a positive number.
        ExportError: the graph has Q/DQ.
    """
    facts = GraphFacts(model)
    missing = missing_scales(facts, scales)
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        got = f"none for {', '.join(missing[:3])}{more}"
        raise CalibrationError("NVDLA", expected="a scale for every tensor", got=got, do="calibrate this very graph")
    return write_cache(joined_scales(facts, {name: scales[name] for name in facts.float_tensors}), tensorrt)


def missing_scales(facts: GraphFacts, scales: Mapping[str, float]) -> tuple[str, ...]:
    """List the tensors without a scale, in graph order: inputs, then what each node gives, the outputs among it."""
    return tuple(name for name in facts.float_tensors if name not in scales)


def joined_scales(facts: GraphFacts, scales: Mapping[str, float]) -> dict[str, float]:
    """Give tensors that must share a scale their largest.

    Args:
        facts: of the graph.
        scales: of every tensor. Not modified.
    """
    leader = {name: name for name in scales}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for group in _groups(facts):
        first, *others = (name for name in group if name in leader)
        for name in others:
            leader[find(name)] = find(first)
    largest: dict[str, float] = {}
    for name, scale in scales.items():
        largest[find(name)] = max(scale, largest.get(find(name), 0.0))
    return {name: largest[find(name)] for name in scales}


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


def _groups(facts: GraphFacts) -> Iterator[tuple[str, ...]]:
    for node in facts.nodes:
        activations = tuple(name for name in node.input if name in facts.shapes and name not in facts.constants)
        if node.op_type == "Concat":
            yield (*activations, *node.output)
        elif node.op_type in SAME_VALUES:
            yield (activations[0], node.output[0])
        elif node.op_type in JOINED_INPUTS and len(activations) > 1:
            yield activations
