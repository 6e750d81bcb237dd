"""INT8 in TensorRT's form: an ONNX graph with QuantizeLinear and DequantizeLinear where its engines want them.

The rules are those of docs/int8.md, and `qdq_lint` proves them on what is made here. Scales come from `ranges`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from mdpose_edge.calib.layers import (
    check_float_source,
    float_nodes,
    gate_sums,
    main_branch,
    tied_inputs,
    weighted_nodes,
)
from mdpose_edge.calib.qdq_lint import check_qdq
from mdpose_edge.calib.ranges import TensorRange
from mdpose_edge.common.onnx_graph import OnnxGraph
from mdpose_edge.common.optional import require
from mdpose_edge.common.union_find import largest_by_group

if TYPE_CHECKING:
    import onnx

SCHEME = "int8, symmetric: weights per output channel, activations per tensor, zero points 0"


@dataclass(frozen=True)
class QdqModel:
    """A graph in INT8, and how it came about."""

    model: onnx.ModelProto
    """Opset and interface of the float graph; weights float32 behind QuantizeLinear, as TensorRT 8 wants them."""
    scales: Mapping[str, float]
    """Symmetric scale amax / 127 of every activation tensor of the float graph by name, the input and those that stay
    float included. Tensors that a Concat joins share one, and so do those that one place is given in several calls."""
    quantized: tuple[str, ...]
    """Names of the weighted nodes in int8, in graph order."""
    kept_float: tuple[str, ...]
    """Names of the weighted nodes that stayed float, in graph order."""


def quantize_qdq(graph: OnnxGraph, ranges: Mapping[str, TensorRange], keep_float: Collection[str] = ()) -> QdqModel:
    """Quantize a float graph for TensorRT, and for onnxruntime's CUDA and TensorRT providers.

    Args:
        graph: float32, batch norms folded, of static shape.
        ranges: of its activations, as `measure_ranges` finds them.
        keep_float: names of convolutions to leave float, beside the narrow ones (`layers.float_nodes`).

    Raises:
        ExportError: the graph is quantized already, has no such node, or breaks a rule afterwards.
        MissingPackageError: the extra `export` is not installed.
    """
    onnx = require("onnx", extra="export", feature="INT8 graphs")
    check_float_source(graph)
    kept = {node.name for node in float_nodes(graph, keep_float)}
    gates = gate_sums(graph)
    scales = _shared_scales(graph, {name: found.scale for name, found in ranges.items()})
    result = onnx.ModelProto()
    result.CopyFrom(graph.model)
    writer = _Writer(result, scales)
    for node in list(result.graph.node):
        if node.op_type == "Conv" and node.name not in kept:
            writer.quantize_input(node, 0)
            writer.quantize_weight(node)
        elif node.op_type == "Add" and node.name not in gates:
            for index in _skip_inputs(graph, node, kept):
                writer.quantize_input(node, index)
    writer.finish()
    check_qdq(result)
    return QdqModel(
        model=result,
        scales=MappingProxyType(scales),
        quantized=tuple(node.name for node in weighted_nodes(graph) if node.name not in kept),
        kept_float=tuple(node.name for node in weighted_nodes(graph) if node.name in kept),
    )


def _skip_inputs(graph: OnnxGraph, add: onnx.NodeProto, kept: Collection[str]) -> list[int]:
    """Return the inputs of an Add that get Q/DQ: the skip, where the convolution that it is fused with is in int8."""
    main = main_branch(graph, add)
    if main is None:
        return []
    return [] if graph.producer[add.input[main]].name in kept else [1 - main]


def _shared_scales(graph: OnnxGraph, scales: Mapping[str, float]) -> dict[str, float]:
    """Raise scales that must be one to their largest: around a Concat, where an engine would have to requantize, and of
    what one place of the network is given in several calls.
    """
    concats = [(*node.input, *node.output) for node in graph.nodes if node.op_type == "Concat"]
    return largest_by_group(scales, (*concats, *tied_inputs(graph)))


class _Writer:
    """Adds Q/DQ to a graph, in place; each goes right before its first reader, so that the order stays topological."""

    def __init__(self, model: onnx.ModelProto, scales: Mapping[str, float]) -> None:
        self._onnx = require("onnx", extra="export", feature="INT8 graphs")
        self._model = model
        self._scales = scales
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._dequantized: dict[str, str] = {}
        self._before: dict[str, list[onnx.NodeProto]] = {}

    def quantize_input(self, node: onnx.NodeProto, index: int) -> None:
        """Put Q/DQ on an activation; readers of one tensor share the pair, so that engines see one int8 tensor."""
        name = node.input[index]
        if name not in self._dequantized:
            scale = self._constant(f"{name}_scale", np.float32(self._scales[name]))
            zero = self._constant(f"{name}_zero_point", np.int8(0))
            self._dequantized[name] = self._pair(node, name, name, scale, zero, axis=None)
        node.input[index] = self._dequantized[name]

    def quantize_weight(self, node: onnx.NodeProto) -> None:
        """Put Q/DQ of its own on a weight; the head's, which all levels share, are stored once all the same."""
        name = node.input[1]
        scale, zero = f"{name}_scale", f"{name}_zero_point"
        if scale not in self._constants:
            weight = self._onnx.numpy_helper.to_array(self._constants[name])
            peaks = np.abs(weight).max(axis=tuple(range(1, weight.ndim)))
            # A channel of zeros quantizes to zeros at any step.
            self._constant(scale, (np.where(peaks > 0, peaks, 1.0) / 127).astype(np.float32))
            self._constant(zero, np.zeros(len(weight), np.int8))
        node.input[1] = self._pair(node, name, f"{node.name}_weight", scale, zero, axis=0)

    def finish(self) -> None:
        """Write the nodes down."""
        ordered = [part for node in self._model.graph.node for part in (*self._before.get(node.name, ()), node)]
        del self._model.graph.node[:]
        self._model.graph.node.extend(ordered)
        inferred = self._onnx.shape_inference.infer_shapes(self._model, check_type=True, strict_mode=True)
        self._model.CopyFrom(inferred)

    def _pair(self, reader: onnx.NodeProto, tensor: str, prefix: str, scale: str, zero: str, axis: int | None) -> str:
        quantized, dequantized = f"{prefix}_quantized", f"{prefix}_dequantized"
        options = {} if axis is None else {"axis": axis}
        for kind, source, result in (
            ("QuantizeLinear", tensor, quantized),
            ("DequantizeLinear", quantized, dequantized),
        ):
            node = self._onnx.helper.make_node(kind, [source, scale, zero], [result], f"{prefix}_{kind}", **options)
            self._before.setdefault(reader.name, []).append(node)
        return dequantized

    def _constant(self, name: str, value: np.generic | np.ndarray) -> str:
        tensor = self._onnx.numpy_helper.from_array(np.asarray(value), name)
        self._constants[name] = tensor
        self._model.graph.initializer.append(tensor)
        return name
