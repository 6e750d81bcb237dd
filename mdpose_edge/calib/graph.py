"""What a quantizer needs to know of a float ONNX graph: who feeds whom, and which nodes INT8 is for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from functools import cached_property
from typing import TYPE_CHECKING

from mdpose_edge.errors import ExportError

if TYPE_CHECKING:
    import onnx

WEIGHTED = ("Conv",)
"""The operators with weights that INT8 is for."""
QUANTIZED_OPERATORS = ("QuantizeLinear", "DequantizeLinear")
MIN_CHANNELS = 16
"""A convolution with fewer output channels gains nothing from INT8 kernels, which work on blocks of channels."""


class GraphView:
    """A read-only view of a graph: producers, consumers and depths.

    Args:
        model: topologically sorted. It must not change as long as the view is used.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.constants: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs: list[str] = [value.name for value in model.graph.input]
        self.outputs: list[str] = [value.name for value in model.graph.output]
        self.producer: dict[str, onnx.NodeProto] = {name: node for node in self.nodes for name in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                if name:
                    self.consumers[name].append(node)

    @cached_property
    def weighted(self) -> list[onnx.NodeProto]:
        """List the nodes that INT8 is for."""
        return [node for node in self.nodes if node.op_type in WEIGHTED]

    @cached_property
    def head(self) -> list[onnx.NodeProto]:
        """List the weighted nodes that give the graph's outputs."""
        return [self.producer[name] for name in self.outputs if self.producer[name].op_type in WEIGHTED]

    @cached_property
    def depth(self) -> dict[str, int]:
        """Give, by tensor, the number of nodes on the longest way to it from the input; Q/DQ do not count.

        So a graph has the same depths before and after quantization, however little of it is in int8.
        """
        depths: dict[str, int] = defaultdict(int)
        for node in self.nodes:
            deepest = max((depths[name] for name in node.input), default=0)
            for name in node.output:
                depths[name] = deepest + (node.op_type not in QUANTIZED_OPERATORS)
        return depths

    def sources(self, node: onnx.NodeProto) -> list[onnx.NodeProto | None]:
        """Give the producer of each of a node's inputs, None for constants and the graph's inputs."""
        return [self.producer.get(name) for name in node.input]

    def main_branch(self, add: onnx.NodeProto) -> int | None:
        """Say which input of a residual Add is the convolution that an engine fuses with it.

        That is a convolution's output which nothing else reads; of two, the deeper one, since the other is the
        projection on the skip path.

        Returns:
            0 or 1, or None where neither input is one.
        """
        fusable = [
            i
            for i, source in enumerate(self.sources(add))
            if source is not None and source.op_type in WEIGHTED and len(self.consumers[add.input[i]]) == 1
        ]
        return max(fusable, key=lambda i: self.depth[add.input[i]], default=None)

    def kept_float(self, keep_float: Collection[str]) -> list[onnx.NodeProto]:
        """List the weighted nodes that stay float: those asked for, and the narrow ones (MIN_CHANNELS).

        Raises:
            ExportError: a name is that of no weighted node.
        """
        known = {node.name for node in self.weighted}
        for name in sorted(set(keep_float) - known):
            expected, do = f"one of the graph's {len(known)} convolutions", "correct the name"
            raise ExportError("--keep-float", expected=expected, got=name, do=do)
        return [node for node in self.weighted if node.name in keep_float or self._is_narrow(node)]

    def _is_narrow(self, node: onnx.NodeProto) -> bool:
        return bool(self.constants[node.input[1]].dims[0] < MIN_CHANNELS)


def check_float_source(model: onnx.ModelProto) -> None:
    """Refuse to quantize what is quantized already.

    Raises:
        ExportError: naming the first such node.
    """
    for node in model.graph.node:
        if (
            node.op_type in QUANTIZED_OPERATORS
            or node.op_type.startswith("QLinear")
            or node.op_type.endswith("Integer")
        ):
            raise ExportError(
                "the source of INT8",
                expected="a float graph",
                got=f"one that is quantized already: {node.op_type} {node.name}",
                do="export from the float checkpoint",
            )
