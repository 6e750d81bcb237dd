"""Which layers of a float ONNX graph INT8 is for, and which of them stay float."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from mdpose_edge.common.onnx_graph import QUANTIZE_OPERATORS, OnnxGraph
from mdpose_edge.errors import ExportError

if TYPE_CHECKING:
    import onnx

WEIGHTED = ("Conv",)
"""The operators with weights that INT8 is for."""
MIN_CHANNELS = 16
"""A convolution with fewer output channels gains nothing from INT8 kernels, which work on blocks of channels."""


def weighted_nodes(graph: OnnxGraph) -> list[onnx.NodeProto]:
    """List the nodes that INT8 is for, in graph order."""
    return [node for node in graph.nodes if node.op_type in WEIGHTED]


def float_nodes(graph: OnnxGraph, keep_float: Collection[str] = ()) -> list[onnx.NodeProto]:
    """List the weighted nodes that stay float: those asked for, and the narrow ones (MIN_CHANNELS).

    Raises:
        ExportError: a name is that of no weighted node.
    """
    weighted = weighted_nodes(graph)
    known = {node.name for node in weighted}
    for name in sorted(set(keep_float) - known):
        expected, do = f"one of the graph's {len(known)} convolutions", "correct the name"
        raise ExportError("--keep-float", expected=expected, got=name, do=do)
    return [node for node in weighted if node.name in keep_float or _is_narrow(graph, node)]


def main_branch(graph: OnnxGraph, add: onnx.NodeProto) -> int | None:
    """Say which input of a residual Add is the convolution that an engine fuses with it.

    That is a convolution's output which nothing else reads; of two, the deeper one, since the other is the projection
    on the skip path.

    Returns:
        0 or 1, or None where neither input is one.
    """
    fusable = [
        i
        for i, name in enumerate(add.input)
        if name in graph.producer and graph.producer[name].op_type in WEIGHTED and len(graph.consumers[name]) == 1
    ]
    return max(fusable, key=lambda i: graph.depth[add.input[i]], default=None)


def check_float_source(graph: OnnxGraph) -> None:
    """Refuse to quantize what is quantized already.

    Raises:
        ExportError: naming the first such node.
    """
    for node in graph.nodes:
        if node.op_type in QUANTIZE_OPERATORS or node.op_type.startswith("QLinear") or node.op_type.endswith("Integer"):
            raise ExportError(
                "the source of INT8",
                expected="a float graph",
                got=f"one that is quantized already: {node.op_type} {node.name}",
                do="export from the float checkpoint",
            )


def _is_narrow(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    return bool(graph.constants[node.input[1]].dims[0] < MIN_CHANNELS)
