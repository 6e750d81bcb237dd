"""Convolutions of a graph that NNCF has quantized, returned to float: no range has to be measured again for it.

NNCF can leave layers out only by quantizing anew. Here the quantizers in front of a convolution are passed by, and its
weights and bias, which NNCF corrects for its int8 weights, become those of the float graph.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from mdpose_edge.common.optional import require

if TYPE_CHECKING:
    import openvino

BIAS_APART = "/WithoutBiases"
"""What OpenVINO adds to the name of an ONNX convolution whose bias it adds in a node of its own."""
_SELECTING = ("MaxPool", "Concat")
"""Operators that hand values on as they are, so that quantizers may stand before them in their readers' stead."""


def convolutions(graph: openvino.Model) -> dict[str, Any]:
    """Return the nodes of a graph's convolutions, by their ONNX names, in graph order."""
    found = [node for node in graph.get_ordered_ops() if "Convolution" in node.get_type_name()]
    return {node.get_friendly_name().removesuffix(BIAS_APART): node for node in found}


def return_to_float(quantized: openvino.Model, plain: openvino.Model, names: Collection[str]) -> openvino.Model:
    """Make a graph in which some convolutions are float.

    Args:
        quantized: what NNCF made of `plain`, by quantizers alone. Not modified.
        plain: the float graph. Not modified.
        names: of the convolutions, as in ONNX.
    """
    graph = quantized.clone()
    ours, theirs = convolutions(graph), convolutions(plain)
    for name in names:
        node, source = ours[name], theirs[name]
        node.input(0).replace_source_output(_unquantized(node.input_value(0)))
        node.input(1).replace_source_output(source.input_value(1))
        if node.get_friendly_name().endswith(BIAS_APART):
            _bias(node).replace_source_output(_bias(source).get_source_output())
    graph.validate_nodes_and_infer_types()
    return graph


def _unquantized(value: Any) -> Any:
    """Return a tensor as it was before the quantizers that lead to it, the operators in between made again."""
    node = value.get_node()
    if node.get_type_name() == "FakeQuantize":
        return node.input_value(0)
    if node.get_type_name() not in _SELECTING:
        return value
    before = node.input_values()
    after = [_unquantized(one) for one in before]
    if after == before:
        return value
    factory = require("openvino.utils.node_factory", extra="export", feature="OpenVINO graphs")
    version = node.get_type_info().version_id
    made = factory.NodeFactory(version).create(node.get_type_name(), after, node.get_attributes())
    return made.output(value.get_index())


def _bias(convolution: Any) -> Any:
    """Return the input through which a convolution's bias is added."""
    (add,) = (port.get_node() for port in convolution.output(0).get_target_inputs())
    (bias,) = (port for port in add.inputs() if port.get_source_output() != convolution.output(0))
    return bias
