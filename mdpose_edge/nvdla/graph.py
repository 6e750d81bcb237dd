"""What the rules need to know of an ONNX graph: shapes, types and constants of its tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.optional import require
from mdpose_edge.errors import ExportError

if TYPE_CHECKING:
    import onnx

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
FLOAT_TYPES = ("FLOAT", "FLOAT16")


class GraphFacts:
    """A read-only view of a graph.

    Args:
        model: topologically sorted; its shapes are inferred here. Not modified.

    Raises:
        ExportError: it has Q/DQ, which TensorRT does not give to NVDLA; or its shapes cannot be inferred.
        MissingPackageError: onnx is not installed.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._onnx = require("onnx", extra="export", feature="looking into a graph")
        try:
            inferred = self._onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        except self._onnx.shape_inference.InferenceError as error:
            got = str(error).splitlines()[0]
            raise ExportError(
                "the graph", expected="shapes that can be inferred", got=got, do="export it again"
            ) from error
        graph = inferred.graph
        self.constants: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].HasField("t"):
                self.constants[node.output[0]] = node.attribute[0].t
            elif node.op_type == "Identity" and node.input[0] in self.constants:
                self.constants[node.output[0]] = self.constants[node.input[0]]
        self.nodes: list[onnx.NodeProto] = [node for node in graph.node if node.output[0] not in self.constants]
        for node in self.nodes:
            if node.op_type in QUANTIZERS:
                do = "give the float graph: NVDLA's scales come from a calibration cache"
                raise ExportError("NVDLA", expected="a graph without Q/DQ", got=node.name or node.op_type, do=do)
        self.shapes: dict[str, tuple[int, ...]] = {}
        """By tensor; a dimension that the graph leaves open is 0."""
        self.types: dict[str, str] = {}
        """By tensor, in ONNX's words: FLOAT, UINT8."""
        for name, tensor in self.constants.items():
            self.shapes[name] = tuple(tensor.dims)
            self.types[name] = self._onnx.TensorProto.DataType.Name(tensor.data_type)
        for value in (*graph.input, *graph.value_info, *graph.output):
            kind = value.type.tensor_type
            self.shapes[value.name] = tuple(axis.dim_value for axis in kind.shape.dim)
            self.types[value.name] = self._onnx.TensorProto.DataType.Name(kind.elem_type)
        self.inputs: list[str] = [value.name for value in graph.input if value.name not in self.constants]
        self.producer: dict[str, int] = {name: i for i, node in enumerate(self.nodes) for name in node.output}
        """By tensor, the number of the node that gives it."""

    @property
    def float_tensors(self) -> list[str]:
        """List the graph's inputs and every float tensor that a node gives, in graph order."""
        given = [name for node in self.nodes for name in node.output if name]
        return [*self.inputs, *(name for name in given if self.types.get(name) in FLOAT_TYPES)]

    def attributes(self, node: onnx.NodeProto) -> dict[str, Any]:
        """Give a node's attributes; texts are bytes in ONNX, and str here."""
        found = {item.name: self._onnx.helper.get_attribute_value(item) for item in node.attribute}
        return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}

    def constant(self, node: onnx.NodeProto, index: int) -> NDArray[np.generic] | None:
        """Give a node's input as an array, or None where it is absent or not a constant."""
        name = node.input[index] if index < len(node.input) else ""
        if name not in self.constants:
            return None
        array: NDArray[np.generic] = self._onnx.numpy_helper.to_array(self.constants[name])
        return array
