"""Prove that a Q/DQ graph keeps TensorRT's rules; docs/int8.md has the reason for each.

A graph that breaks one may well run, at a fraction of the speed or with other numbers, and no engine says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mdpose_edge.calib.layers import WEIGHTED, gate_sums, weighted_nodes
from mdpose_edge.common.onnx_graph import QUANTIZE_OPERATORS, OnnxGraph
from mdpose_edge.errors import ExportError

if TYPE_CHECKING:
    import onnx

INPUT_PATH = ("Cast", "Transpose", "Sub", "Mul", "Add", "Div")
"""What may stand between the uint8 input and the first convolution."""


class Violation(NamedTuple):
    """A rule that is broken."""

    rule: str
    """Its key in RULES."""
    node: str
    """Where: name of a node, or of a tensor."""
    found: str
    """What is wrong there."""

    def __str__(self) -> str:
        return f"{self.rule} at {self.node}: {self.found}"


def lint_qdq(model: onnx.ModelProto, floats: type[np.floating[Any]] = np.float32) -> list[Violation]:
    """List every rule that a graph breaks, in the order of RULES; none for a graph that keeps them all.

    Args:
        model: the graph.
        floats: what it computes in where it is not int8: float16 in the form for strongly typed networks.
    """
    view = _QdqView(model, floats)
    return [Violation(rule, node, found) for rule, (check, _) in RULES.items() for node, found in check(view)]


def check_qdq(model: onnx.ModelProto, floats: type[np.floating[Any]] = np.float32) -> None:
    """Refuse a graph that breaks a rule: see `lint_qdq`.

    Raises:
        ExportError: with the first violation, and how many more there are.
    """
    violations = lint_qdq(model, floats)
    if not violations:
        return
    first = violations[0]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    raise ExportError("the Q/DQ graph", expected=RULES[first.rule][1], got=f"{first}{more}", do="report this")


class _QdqView(OnnxGraph):
    """A graph, and what its Q and DQ say."""

    def __init__(self, model: onnx.ModelProto, floats: type[np.floating[Any]]) -> None:
        super().__init__(model)
        self.constants = self.initializers  # what a node gives is computed, also where it could be folded
        self.floats = floats
        self.pairs = [node for node in self.nodes if node.op_type in QUANTIZE_OPERATORS]

    def origin(self, tensor: str) -> str | None:
        """Return the float tensor behind a DQ and its Q, or None where `tensor` is no such thing."""
        dequantize = self.producer.get(tensor)
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            return None
        quantize = self.producer.get(dequantize.input[0])
        return quantize.input[0] if quantize is not None and quantize.op_type == "QuantizeLinear" else None

    def float_source(self, tensor: str) -> onnx.NodeProto | None:
        """Return the node that computes a tensor, seen through Q/DQ; None for constants and the graph's inputs."""
        return self.producer.get(self.origin(tensor) or tensor)

    def is_weight(self, node: onnx.NodeProto) -> bool:
        """Say whether a Q or DQ works on a constant."""
        source = node.input[0] if node.op_type == "QuantizeLinear" else self.origin(node.output[0])
        return source is None or source in self.constants

    def scale_of(self, tensor: str) -> float | None:
        """Return the scale of the Q that reads a float tensor, None where none does."""
        for node in self.consumers[tensor]:
            if node.op_type == "QuantizeLinear":
                value = self.value(node.input[1])
                return None if value is None else float(value.reshape(-1)[0])
        return None


_Findings = Iterator[tuple[str, str]]


def _three_inputs(view: _QdqView) -> _Findings:
    for node in view.pairs:
        if len(node.input) != 3 or not all(node.input):
            yield node.name, f"inputs {list(node.input)}"


def _zero_points(view: _QdqView) -> _Findings:
    for node in view.pairs:
        zero = view.value(node.input[2]) if len(node.input) == 3 else None
        if zero is not None and (zero.dtype != np.int8 or zero.any()):
            yield node.name, f"{zero.dtype} {zero.reshape(-1)[np.argmax(zero.reshape(-1) != 0)]}"
        elif zero is None and len(node.input) == 3:
            yield node.name, "one that is computed"


def _scales(view: _QdqView) -> _Findings:
    for node in view.pairs:
        scale = view.value(node.input[1])
        if scale is None:
            yield node.name, "one that is computed"
        elif scale.dtype != view.floats or not (np.isfinite(scale) & (scale > 0)).all():
            yield node.name, f"{scale.dtype} {scale.min()}"


def _weights_per_channel(view: _QdqView) -> _Findings:
    for conv in weighted_nodes(view):
        name = view.origin(conv.input[1])
        if name is None or name not in view.constants:
            continue
        dequantize = view.producer[conv.input[1]]
        quantize = view.producer[dequantize.input[0]]
        channels = view.constants[name].dims[0]
        for node in (quantize, dequantize):
            scale = view.value(node.input[1])
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
            if scale is not None and (scale.shape != (channels,) or axis != 0):
                yield node.name, f"{scale.size} scales on axis {axis} for {channels} channels"


def _activations_per_tensor(view: _QdqView) -> _Findings:
    for node in view.pairs:
        scale = view.value(node.input[1])
        if scale is not None and scale.size != 1 and not view.is_weight(node):
            yield node.name, f"{scale.size} scales"


def _pairs_whole(view: _QdqView) -> _Findings:
    for node in view.pairs:
        if node.op_type == "QuantizeLinear":
            readers = view.consumers[node.output[0]]
            for reader in readers:
                if reader.op_type != "DequantizeLinear":
                    yield node.name, f"{reader.op_type} {reader.name} reads int8"
                elif list(reader.input[1:]) != list(node.input[1:]):
                    yield node.name, f"{reader.name} takes another scale or zero point"
            if not readers or node.output[0] in view.outputs:
                yield node.name, "int8 that no DequantizeLinear reads"
        elif view.origin(node.output[0]) is None:
            yield node.name, "no QuantizeLinear before it"


def _both_inputs(view: _QdqView) -> _Findings:
    for conv in weighted_nodes(view):
        data, weight = (view.origin(name) is not None for name in conv.input[:2])
        if data != weight:
            yield conv.name, f"int8 {'data' if data else 'weights'} and float {'weights' if data else 'data'}"


def _float_bias(view: _QdqView) -> _Findings:
    for conv in weighted_nodes(view):
        if len(conv.input) > 2 and conv.input[2] not in view.constants:
            yield conv.name, f"{conv.input[2]}, which is computed"


def _readers(view: _QdqView) -> _Findings:
    for node in view.pairs:
        if node.op_type == "DequantizeLinear":
            for reader in view.consumers[node.output[0]]:
                if reader.op_type not in (*WEIGHTED, "Add"):
                    yield node.name, f"{reader.op_type} {reader.name} behind it"


def _skip_only(view: _QdqView) -> _Findings:
    gates = gate_sums(view)
    for add in view.nodes:
        if add.op_type != "Add" or any(name in view.constants for name in add.input):
            continue
        main = None if add.name in gates else _main_branch(view, add)
        wanted = set() if main is None else {1 - main}
        found = {i for i, name in enumerate(add.input) if view.origin(name) is not None}
        if main is not None and main in found:
            source = view.float_source(add.input[main])
            assert source is not None
            yield add.name, f"Q/DQ on the branch of {source.name}"
        elif wanted - found:
            yield add.name, "none on the skip input"
        elif found - wanted:
            yield add.name, "Q/DQ beside a branch that is no int8 convolution"


def _common_scales(view: _QdqView) -> _Findings:
    for concat in view.nodes:
        if concat.op_type == "Concat":
            scales = {name: view.scale_of(name) for name in (*concat.input, *concat.output)}
            known = {scale for scale in scales.values() if scale is not None}
            if len(known) > 1:
                yield concat.name, f"scales {', '.join(f'{scale:.4g}' for scale in sorted(known))}"


def _tied_scales(view: _QdqView) -> _Findings:
    """Calls of one place share their weight and the shape of their input."""
    calls: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for conv in weighted_nodes(view):
        calls[view.origin(conv.input[1]) or conv.input[1]].append(conv)
    for weight, convs in calls.items():
        found: dict[tuple[int, ...], dict[float | None, str]] = defaultdict(dict)
        for conv in convs if len(convs) > 1 else ():
            origin = view.origin(conv.input[0])
            scale = None if origin is None else view.scale_of(origin)
            found[view.shapes[origin or conv.input[0]]].setdefault(scale, conv.name)
        for scales in found.values():
            if len(scales) > 1:
                shown = ", ".join("float" if scale is None else f"{scale:.4g}" for scale in scales)
                yield list(scales.values())[1], f"{weight} is given scales {shown}"


def _float_outputs(view: _QdqView) -> _Findings:
    for name in view.outputs:
        if view.producer[name].op_type in QUANTIZE_OPERATORS or view.scale_of(name) is not None:
            yield name, f"{view.producer[name].op_type} {view.producer[name].name}"


def _input_untouched(view: _QdqView) -> _Findings:
    reached = list(view.inputs)
    for name in reached:
        for node in view.consumers[name]:
            if node.op_type in QUANTIZE_OPERATORS:
                if not all(reader.op_type in WEIGHTED for reader in _behind(view, node)):
                    yield node.name, "Q/DQ before the first convolution's input"
            elif node.op_type in INPUT_PATH:
                reached.extend(node.output)
            elif node.op_type not in WEIGHTED:
                yield node.name, f"{node.op_type} before the first convolution"


def _behind(view: _QdqView, quantize: onnx.NodeProto) -> list[onnx.NodeProto]:
    dequantizes = view.consumers[quantize.output[0]]
    return [reader for node in dequantizes for reader in view.consumers[node.output[0]]]


def _main_branch(view: _QdqView, add: onnx.NodeProto) -> int | None:
    """Say which input of an Add an int8 convolution gives that nothing else reads; of two, the deeper one."""
    fusable = []
    for i, name in enumerate(add.input):
        tensor = view.origin(name) or name
        source = view.float_source(name)
        if source is not None and source.op_type in WEIGHTED and len(view.consumers[tensor]) == 1:
            fusable.append((view.depth[tensor], i, view.origin(source.input[0]) is not None))
    _, main, is_int8 = max(fusable, default=(0, None, False))
    return main if is_int8 else None


_Check = Callable[[_QdqView], _Findings]
RULES: dict[str, tuple[_Check, str]] = {
    "three-inputs": (_three_inputs, "a scale and a zero point on every Q and DQ"),
    "zero-points": (_zero_points, "zero points that are int8 0"),
    "scales": (_scales, "constant, positive, finite scales of the graph's float type"),
    "weights-per-channel": (_weights_per_channel, "weights with one scale per output channel, on axis 0"),
    "activations-per-tensor": (_activations_per_tensor, "activations with one scale per tensor"),
    "pairs-whole": (_pairs_whole, "every Q read by DQs of its own scale and nothing else"),
    "both-inputs": (_both_inputs, "int8 on both inputs of a convolution, or on neither"),
    "float-bias": (_float_bias, "constant float biases"),
    "readers": (_readers, "DQ right before a convolution or a residual Add, never before an activation or a pool"),
    "skip-only": (_skip_only, "Q/DQ on the skip input of a residual Add, not on the convolution's branch"),
    "common-scales": (_common_scales, "one scale around a Concat"),
    "tied-scales": (_tied_scales, "one scale for what one place of the network is given in several calls"),
    "float-outputs": (_float_outputs, "float head outputs"),
    "input-untouched": (_input_untouched, "nothing quantized between the uint8 input and the first convolution"),
}
"""By key: the check, and what is expected."""
