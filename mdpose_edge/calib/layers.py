"""Which layers of a float ONNX graph INT8 is for, and which of them stay float."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from mdpose_edge.common.onnx_graph import QUANTIZE_OPERATORS, OnnxGraph
from mdpose_edge.common.union_find import UnionFind
from mdpose_edge.errors import ExportError

if TYPE_CHECKING:
    import onnx

WEIGHTED = ("Conv",)
"""The operators with weights that INT8 is for."""
GATES = ("Sigmoid", "Tanh")
MIN_CHANNELS = 16
"""A convolution with fewer output channels gains nothing from INT8 kernels, which work on blocks of channels."""


def weighted_nodes(graph: OnnxGraph) -> list[onnx.NodeProto]:
    """List the nodes that INT8 is for, in graph order."""
    return [node for node in graph.nodes if node.op_type in WEIGHTED]


def float_nodes(graph: OnnxGraph, keep_float: Collection[str] = ()) -> list[onnx.NodeProto]:
    """List the weighted nodes that stay float: those asked for, every call of their place, and the narrow ones.

    Raises:
        ExportError: a name is that of no weighted node.
    """
    weighted = weighted_nodes(graph)
    known = {node.name for node in weighted}
    for name in sorted(set(keep_float) - known):
        expected, do = f"one of the graph's {len(known)} convolutions", "correct the name"
        raise ExportError("--keep-float", expected=expected, got=name, do=do)
    calls = {node.name: _place(graph, node) for node in weighted}
    kept = {calls[name] for name in keep_float}
    return [node for node in weighted if calls[node.name] in kept or _is_narrow(graph, node)]


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


def tied_inputs(graph: OnnxGraph) -> list[tuple[str, ...]]:
    """List the tensors that one place of the network is given in several calls, as in an unrolled recurrence.

    Such calls share their weights and the shape of their input; a head that serves several levels has other shapes.
    INT8 has one range for all of them: they are one layer, whose copies would differ otherwise.

    Returns:
        Groups of the data inputs of weighted nodes, two tensors at least in each; no tensor is in two.
    """
    calls: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for node in weighted_nodes(graph):
        calls.setdefault(_place(graph, node), []).append(node.input[0])
    sets = UnionFind[str]()
    for names in calls.values():
        sets.union(names)
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for names in calls.values() for name in names):
        groups.setdefault(sets.find(name), []).append(name)
    return [tuple(names) for names in groups.values() if len(names) > 1]


def gate_sums(graph: OnnxGraph) -> set[str]:
    """Return the names of the Adds whose sum only gates read: Sigmoids and Tanhs, through sums and slices.

    What a convolution adds to a gate stays float: nothing in INT8 reads the sum, and a gate's whole range is a few
    steps of an INT8 grid.
    """
    return {node.name for node in _gated(graph) if node.op_type == "Add"}


def _gated(graph: OnnxGraph) -> list[onnx.NodeProto]:
    """List the sums and slices that only gates read."""
    found: dict[str, onnx.NodeProto] = {}
    for node in reversed(graph.nodes):
        readers = [reader for name in node.output for reader in graph.consumers[name]]
        only_gates = readers and all(reader.op_type in GATES or reader.name in found for reader in readers)
        if only_gates and node.op_type in ("Add", "Slice", "Split"):
            found[node.name] = node
    return list(found.values())


def state_nodes(graph: OnnxGraph) -> list[onnx.NodeProto]:
    """List what follows from gates up to the next convolution in INT8: the arithmetic of a state, which stays float."""
    floats = {node.name for node in float_nodes(graph)}
    reached = {node.name for node in _gated(graph)}
    for node in graph.nodes:
        sources = [graph.producer[name] for name in node.input if name in graph.producer]
        stays = node.op_type not in WEIGHTED or node.name in floats
        if stays and any(source.name in reached for source in sources):
            reached.add(node.name)
    return [node for node in graph.nodes if node.name in reached]


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


def _place(graph: OnnxGraph, node: onnx.NodeProto) -> tuple[str, tuple[int, ...]]:
    """Return what calls of one place have in common: the weight, and the shape of the input."""
    return node.input[1], graph.shapes[node.input[0]]


def _is_narrow(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    return bool(graph.constants[node.input[1]].dims[0] < MIN_CHANNELS)
