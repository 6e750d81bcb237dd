"""Graphs of a few nodes, for rules that are worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

OPSET = 17
Shape = Sequence[int | str]


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Shape],
    outputs: Sequence[str],
    constants: Mapping[str, NDArray[Any]] | None = None,
    kind: int = onnx.TensorProto.FLOAT,
) -> onnx.ModelProto:
    """Make a model; shapes of outputs are inferred."""
    graph = helper.make_graph(
        list(nodes),
        "rules",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])


def one(
    op: str, shape: Shape = (1, 16, 32, 32), constants: Sequence[NDArray[Any]] = (), **attributes: Any
) -> onnx.ModelProto:
    """Make a model of one node, with constants as its inputs after the first; it is called "node"."""
    named = {f"c{i}": array for i, array in enumerate(constants)}
    node = helper.make_node(op, ["x", *named], ["y"], name="node", **attributes)
    return model([node], {"x": shape}, ["y"], named)


def conv(
    shape: Shape = (1, 16, 32, 32), out: int = 16, kernel: Sequence[int] = (3, 3), group: int = 1, **attributes: Any
) -> onnx.ModelProto:
    """Make a convolution of a map, padded by 1 where nothing is said."""
    attributes.setdefault("pads", [1, 1, 1, 1])
    weights = np.zeros((out, int(shape[1]) // group, *kernel), np.float32)
    return one("Conv", shape, [weights], group=group, **attributes)
