"""Make mdpose_edge/assets/doctor.onnx, the tiny graph that `mdpose-edge doctor` starts engines on.

    python scripts/doctor_graph.py [FILE]

The same numbers give the same bytes, and a test compares them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper

from mdpose_edge.doctor.tiny import GRAPH_FILE, OPSET, SIDE, STRIDE, tiny_spec, tiny_weights

IR_VERSION = 8
"""Old enough for every engine that is supported."""


def make_graph() -> bytes:
    """Build the graph: cast, transpose, mean of each cell, 1x1 convolution, Swish, a 1x1 convolution for each head."""
    weights = [
        numpy_helper.from_array(array[..., None, None] if array.ndim == 2 else array, f"{name}_{part}")
        for name, arrays in tiny_weights().items()
        for part, array in zip("wb", arrays, strict=True)
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["cells"], kernel_shape=[STRIDE] * 2, strides=[STRIDE] * 2),
        helper.make_node("Conv", ["cells", "hidden_w", "hidden_b"], ["hidden"], kernel_shape=[1, 1]),
        helper.make_node("Sigmoid", ["hidden"], ["gate"]),
        helper.make_node("Mul", ["hidden", "gate"], ["swish"]),
        *(
            helper.make_node("Conv", ["swish", f"{name}_w", f"{name}_b"], [name], kernel_shape=[1, 1])
            for name in tiny_spec().outputs
        ),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, SIDE, SIDE, 3])]
    outputs = [
        helper.make_tensor_value_info(head.name, TensorProto.FLOAT, [1, *tiny_spec().head_shape(head)])
        for head in tiny_spec().heads
    ]
    graph = helper.make_graph(nodes, "doctor", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


if __name__ == "__main__":
    default = Path(__file__).resolve().parents[1] / "mdpose_edge" / "assets" / GRAPH_FILE
    Path(sys.argv[1] if len(sys.argv) > 1 else default).write_bytes(make_graph())
