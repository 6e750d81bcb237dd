"""A look into an ONNX graph: who gives and who reads each tensor, its shape, its type and its value."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.optional import require
from mdpose_edge.errors import ExportError

if TYPE_CHECKING:
    import onnx

QUANTIZE_OPERATORS = ("QuantizeLinear", "DequantizeLinear")
FLOAT_TYPES = ("FLOAT", "FLOAT16")


class OnnxGraph:
    """A read-only view of a graph.

    Args:
        model: topologically sorted. It must not change as long as the view is used.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.initializers: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        self.constants = dict(self.initializers)
        """Initializers, what a Constant gives, and each Identity of these."""
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].HasField("t"):
                self.constants[node.output[0]] = node.attribute[0].t
            elif node.op_type == "Identity" and node.input[0] in self.constants:
                self.constants[node.output[0]] = self.constants[node.input[0]]
        self.nodes: list[onnx.NodeProto] = [node for node in model.graph.node if node.output[0] not in self.constants]
        """In topological order, without those that give constants."""
        self.inputs: list[str] = [value.name for value in model.graph.input if value.name not in self.constants]
        self.outputs: list[str] = [value.name for value in model.graph.output]
        self.producer: dict[str, onnx.NodeProto] = {name: node for node in self.nodes for name in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                if name:
                    self.consumers[name].append(node)

    @cached_property
    def depth(self) -> dict[str, int]:
        """By tensor, the number of nodes on the longest way to it from the input; Q/DQ do not count.

        So a graph has the same depths before and after quantization, however little of it is in int8.
        """
        depths: dict[str, int] = defaultdict(int)
        for node in self.nodes:
            deepest = max((depths[name] for name in node.input), default=0)
            for name in node.output:
                depths[name] = deepest + (node.op_type not in QUANTIZE_OPERATORS)
        return depths

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """By tensor; a dimension that the graph leaves open is 0.

        Raises:
            ExportError: shapes cannot be inferred.
            MissingPackageError: onnx is not installed.
        """
        found = {name: tuple(tensor.dims) for name, tensor in self.constants.items()}
        for name, kind in self._tensor_types.items():
            found[name] = tuple(axis.dim_value for axis in kind.shape.dim)
        return found

    @cached_property
    def types(self) -> dict[str, str]:
        """By tensor, in ONNX's words: FLOAT, UINT8; raises what `shapes` raises."""
        type_name = self._onnx.TensorProto.DataType.Name
        found = {name: type_name(tensor.data_type) for name, tensor in self.constants.items()}
        return {**found, **{name: type_name(kind.elem_type) for name, kind in self._tensor_types.items()}}

    @property
    def float_activations(self) -> list[str]:
        """The float tensors that nodes give, in graph order."""
        given = [name for node in self.nodes for name in node.output if name]
        return [name for name in given if self.types.get(name) in FLOAT_TYPES]

    def value(self, name: str) -> NDArray[Any] | None:
        """Return a constant's value, or None for what is none."""
        if name not in self.constants:
            return None
        array: NDArray[np.generic] = self._onnx.numpy_helper.to_array(self.constants[name])
        return array

    def attributes(self, node: onnx.NodeProto) -> dict[str, Any]:
        """Return a node's attributes; texts are bytes in ONNX, and str here."""
        found = {item.name: self._onnx.helper.get_attribute_value(item) for item in node.attribute}
        return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}

    @cached_property
    def _tensor_types(self) -> dict[str, Any]:
        """Types with shapes of the graph's inputs and of all that nodes give."""
        inference = self._onnx.shape_inference
        try:
            graph = inference.infer_shapes(self.model, strict_mode=True, data_prop=True).graph
        except inference.InferenceError as error:
            expected, got = "shapes that can be inferred", str(error).splitlines()[0]
            raise ExportError("the graph", expected=expected, got=got, do="export it again") from error
        return {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info, *graph.output)}

    @cached_property
    def _onnx(self) -> Any:
        return require("onnx", extra="export", feature="looking into a graph")
