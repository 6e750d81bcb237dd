"""A tiny float graph with all that INT8 placement meets: residuals, a concat, a pool, a pyramid, a SiLU head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mdpose_edge.calib.dataset import CalibrationSet
from tests.unit.calib.frames import SPEC, make_small_set

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

WIDTH = 16
HEADS = {"o": 1, "mu": 34, "gamma": 34}


class _Builder:
    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, kind: str, name: str, *inputs: str, **options: object) -> str:
        self.nodes.append(onnx.helper.make_node(kind, list(inputs), [name], f"node_{name}", **options))
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(onnx.numpy_helper.from_array(value, name))
        return name

    def conv(self, name: str, source: str, outputs: int, inputs: int = WIDTH, size: int = 3) -> str:
        scale = np.sqrt(2 / (inputs * size * size))
        weight = self.random.normal(0, scale, (outputs, inputs, size, size)).astype(np.float32)
        bias = self.random.normal(0, 0.1, outputs).astype(np.float32)
        constants = self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)
        return self.add("Conv", name, source, *constants, pads=[size // 2] * 4, kernel_shape=[size, size])

    def silu(self, name: str, source: str) -> str:
        return self.add("Mul", name, source, self.add("Sigmoid", f"{name}_sigmoid", source))


def make_float_graph(batch: int = 1) -> onnx.ModelProto:
    """Make the graph; nodes are called node_<output>."""
    b = _Builder()
    x = b.add("Transpose", "nchw", b.add("Cast", "cast", "image", to=onnx.TensorProto.FLOAT), perm=[0, 3, 1, 2])
    x = b.add("Sub", "centred", x, b.constant("mean", np.full((1, 3, 1, 1), 110, np.float32)))
    x = b.add("Mul", "normalized", x, b.constant("inverse_std", np.full((1, 3, 1, 1), 1 / 58, np.float32)))
    stem = b.add("Relu", "stem", b.conv("stem_conv", x, WIDTH, inputs=3))
    pooled = b.add("MaxPool", "pooled", stem, kernel_shape=[2, 2], strides=[2, 2])
    # A block whose skip is projected, one whose skip is plain, and their root, as in DLA.
    skip = b.conv("project", pooled, WIDTH, size=1)
    branch = b.conv("block1_conv2", b.add("Relu", "block1_relu", b.conv("block1_conv1", pooled, WIDTH)), WIDTH)
    block1 = b.add("Relu", "block1", b.add("Add", "block1_add", branch, skip))
    branch = b.conv("block2_conv2", b.add("Relu", "block2_relu", b.conv("block2_conv1", block1, WIDTH)), WIDTH)
    block2 = b.add("Relu", "block2", b.add("Add", "block2_add", branch, block1))
    root = b.add(
        "Relu", "root", b.conv("root_conv", b.add("Concat", "joined", block2, block1, axis=1), WIDTH, 2 * WIDTH)
    )
    top = b.conv("lateral1", b.add("MaxPool", "half", root, kernel_shape=[2, 2], strides=[2, 2]), WIDTH, size=1)
    scales = b.constant("twice", np.array([1, 1, 2, 2], np.float32))
    merged = b.add("Add", "merged", b.conv("lateral0", root, WIDTH, size=1), b.add("Resize", "up", top, "", scales))
    tower = b.silu("tower", b.conv("tower_conv", merged, WIDTH))
    for name, channels in HEADS.items():
        b.conv(name, tower, channels)
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, [batch, SPEC.height, SPEC.width, 3])
    outputs = [
        onnx.helper.make_tensor_value_info(
            name, onnx.TensorProto.FLOAT, [batch, channels, SPEC.height // 2, SPEC.width // 2]
        )
        for name, channels in HEADS.items()
    ]
    graph = onnx.helper.make_graph(b.nodes, "tiny", [image], outputs, b.constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)


def make_calibration(folder: Path, count: int = 4) -> CalibrationSet:
    """Make a set of noise images of the graph's size."""
    return make_small_set(folder, count)


def node_named(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    (node,) = [node for node in model.graph.node if node.name == name]
    return node


def run_graph(model: onnx.ModelProto, images: np.ndarray) -> dict[str, np.ndarray]:
    """Run a graph on onnxruntime."""
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in model.graph.output]
    return dict(zip(names, session.run(names, {"image": images}), strict=True))


def relative_errors(model: onnx.ModelProto, reference: onnx.ModelProto, images: np.ndarray) -> dict[str, float]:
    """Give, by output, the rms difference of two graphs relative to the second's spread."""
    got, expected = run_graph(model, images), run_graph(reference, images)
    return {
        name: float(np.sqrt(np.square(got[name] - tensor).mean()) / tensor.std()) for name, tensor in expected.items()
    }
