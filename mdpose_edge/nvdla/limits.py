"""What NVDLA runs: one rule for each operator, from NVIDIA's documents.

Sources, by the marks in the rules:
[H] comments in NvInfer.h of TensorRT 10.16; [G] "DLA Supported Layers and Restrictions" in TensorRT's guide, 8.5 to
11.4; [O] operators/README.md of NVIDIA/Deep-Learning-Accelerator-SW; [L] what TensorRT's logs say in public reports
(onnx/tensorflow-onnx#1632, NVIDIA-AI-IOT/jetson_dla_tutorial#3, the forum's 219158).

Where the documents restrict a layer without saying how, or contradict one another, the verdict is "unsure", with the
reason. Two limits cannot be known off the device: whether weights and data of a convolution fit the core's buffer
(TensorRT tries), and how much memory the pools have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.onnx_graph import FLOAT_TYPES, QUANTIZE_OPERATORS, OnnxGraph
from mdpose_edge.errors import ExportError
from mdpose_edge.trt.platforms import Version, show

if TYPE_CHECKING:
    import onnx

MAX_BATCH, MAX_SIDE = 4096, 8192  # [H] [G] any other axis
DIV_SINCE: Version = (8, 6)


@dataclass(frozen=True)
class LayerSupport:
    """Where a layer runs, and why not on NVDLA."""

    place: Literal["nvdla", "gpu", "unsure"]
    reason: str = ""


FITS = LayerSupport("nvdla")


@dataclass(frozen=True)
class EngineSettings:
    """What the engine is built for."""

    precision: Literal["fp16", "int8"]
    tensorrt: Version


@dataclass(frozen=True)
class NodeContext:
    """A node with what the rules look at."""

    graph: OnnxGraph
    node: onnx.NodeProto
    attributes: Mapping[str, Any]
    settings: EngineSettings

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """Return the shape of an input."""
        return self.graph.shapes.get(self.node.input[index], ())

    def constant(self, index: int) -> NDArray[Any] | None:
        """Return an input as an array, or None where it is absent or not a constant."""
        return self.graph.value(self.node.input[index]) if index < len(self.node.input) else None

    def pair(self, name: str, default: int) -> tuple[int, ...]:
        """Return an attribute that has one number for each spatial axis."""
        return tuple(self.attributes.get(name, (default, default)))


def check_no_qdq(graph: OnnxGraph) -> None:
    """Refuse a graph with Q/DQ, which TensorRT does not give to NVDLA.

    Raises:
        ExportError: naming the first such node.
    """
    for node in graph.nodes:
        if node.op_type in QUANTIZE_OPERATORS:
            do = "give the float graph: NVDLA's scales come from a calibration cache"
            raise ExportError("NVDLA", expected="a graph without Q/DQ", got=node.name or node.op_type, do=do)


def judge(graph: OnnxGraph, node: onnx.NodeProto, settings: EngineSettings) -> LayerSupport:
    """Say where a node runs."""
    layer = NodeContext(graph, node, graph.attributes(node), settings)
    if node.op_type not in RULES:
        return gpu("NVDLA has no such layer, or TensorRT does not offer it")
    for rule in (_general, RULES[node.op_type]):
        verdict = rule(layer)
        if verdict.place != "nvdla":
            return verdict
    return FITS


def gpu(reason: str) -> LayerSupport:
    """Make the verdict that a layer cannot run on NVDLA."""
    return LayerSupport("gpu", reason)


def unsure(reason: str) -> LayerSupport:
    """Make the verdict that the documents do not tell."""
    return LayerSupport("unsure", reason)


def _general(layer: NodeContext) -> LayerSupport:
    activations = [name for name in layer.node.input if name and name not in layer.graph.constants]
    for name in (*activations, *layer.node.output):
        kind = layer.graph.types.get(name, "an unknown type")
        shape = layer.graph.shapes.get(name, ())
        if kind not in FLOAT_TYPES:
            return gpu(f"{name} is {kind.lower()}: NVDLA computes FP16 and INT8")
        if 0 in shape:
            return gpu(f"{name} has an open dimension: shapes must be static")
        if len(shape) != 4:
            return gpu(f"{name} has {len(shape)} axes: NVDLA takes N, C, H, W")
        if shape[0] > MAX_BATCH or max(shape[1:]) > MAX_SIDE:
            return gpu(f"{name} is {_by(shape)}: at most {MAX_BATCH} images, and {MAX_SIDE} along any other axis")
    return FITS


def _convolution(layer: NodeContext) -> LayerSupport:
    """[H] [G]; in INT8, grouped convolutions need a multiple of 4 channels in a group."""
    weights = layer.shape(1)
    if layer.node.input[1] not in layer.graph.constants:
        return gpu("its weights are computed: NVDLA takes constant ones")
    outputs, in_group, kernel = weights[0], weights[1], weights[2:]
    group = layer.attributes.get("group", 1)
    pads = tuple(layer.attributes.get("pads", (0, 0, 0, 0)))
    checks = (
        ("kernel", kernel, 1, 32),
        ("stride", layer.pair("strides", 1), 1, 8),
        ("dilation", layer.pair("dilations", 1), 1, 32),
        ("padding", pads, 0, 31),
        ("output channels", (outputs,), 1, 8192),
        ("groups", (group,), 1, 8192),
    )
    wrong = _first_outside(checks)
    if wrong is not None:
        return wrong
    if any(pad >= side for pad, side in zip(pads, (*kernel, *kernel), strict=True)):
        return gpu(f"padding {_by(pads)}: less than the kernel's {_by(kernel)}")
    if layer.settings.precision == "int8" and group > 1 and (in_group % 4 or outputs // group % 4):
        got = f"{in_group} and {outputs // group}"
        return gpu(f"{got} channels into and out of a group: a multiple of 4 in INT8")
    return FITS


def _deconvolution(layer: NodeContext) -> LayerSupport:
    """[H] [G] padding must be 0, so that a bilinear upsampling by a transposed convolution falls back."""
    kernel = layer.shape(1)[2:]
    if any(layer.attributes.get("pads", ())) or any(layer.attributes.get("output_padding", ())):
        return gpu(f"padding {_by(tuple(layer.attributes['pads']))}: a transposed convolution must have none")
    if layer.attributes.get("group", 1) != 1:
        return gpu(f"{layer.attributes['group']} groups: a transposed convolution must have one")
    if layer.pair("dilations", 1) != (1, 1):
        return gpu("dilated: a transposed convolution must not be")
    if all(1 <= side <= 32 for side in kernel) or (kernel[1] == 1 and kernel[0] in (64, 96, 128)):
        return FITS
    return gpu(f"kernel {_by(kernel)}: 1 to 32, or 64, 96 or 128 by 1")


def _pooling(layer: NodeContext) -> LayerSupport:
    """[H] [G]."""
    if len(layer.node.output) > 1 and layer.node.output[1]:
        return gpu("it gives indices: NVDLA gives values alone")
    if layer.pair("dilations", 1) != (1, 1):
        return gpu("a dilated window: NVDLA has none")
    checks = (
        ("window", layer.pair("kernel_shape", 1), 1, 8),
        ("stride", layer.pair("strides", 1), 1, 16),
        ("padding", tuple(layer.attributes.get("pads", (0, 0, 0, 0))), 0, 7),
    )
    return _first_outside(checks) or FITS


def _clip(layer: NodeContext) -> LayerSupport:
    """[G] "Clipped ReLU": from 0."""
    low = layer.constant(1)
    if low is None or float(low) != 0.0:
        return gpu("it does not clip at 0 from below: NVDLA has the clipped ReLU alone")
    return FITS


def _elementwise(layer: NodeContext) -> LayerSupport:
    """[H] SUM, PROD, MAX, MIN, SUB; [L] a Constant layer stays on the GPU."""
    if len(layer.node.input) != 2:
        return gpu(f"{len(layer.node.input)} inputs: NVDLA takes two")
    if any(name in layer.graph.constants for name in layer.node.input):
        return unsure("one input is a constant, which TensorRT keeps on the GPU unless it can fold it")
    if layer.shape(0) != layer.shape(1):
        return unsure(f"it broadcasts {_by(layer.shape(0))} and {_by(layer.shape(1))}: restricted, not said how")
    return FITS


def _minimum(layer: NodeContext) -> LayerSupport:
    """[H] names kMIN, [O] says None."""
    verdict = _elementwise(layer)
    return unsure("NVIDIA's documents contradict one another") if verdict is FITS else verdict


def _division(layer: NodeContext) -> LayerSupport:
    """[G] from 8.6 on; [L] older ones: "DLA cores do not support DIV ElementWise operation"."""
    if layer.settings.tensorrt < DIV_SINCE:
        return gpu(f"division needs TensorRT {show(DIV_SINCE)}")
    return _elementwise(layer)


def _concatenation(layer: NodeContext) -> LayerSupport:
    """[H] [G] the third-last axis, that is the channels."""
    axis = layer.attributes["axis"]
    if axis not in (1, -3):
        return gpu(f"along axis {axis}: NVDLA joins channels, axis 1, alone")
    if len(layer.node.input) < 2:
        return gpu("one input: at least two")
    return FITS


NEAREST = {("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("half_pixel", "round_prefer_ceil")}
"""(coordinates, rounding) that NVDLA has [H] [G]."""


def _resize(layer: NodeContext) -> LayerSupport:
    """[G] [L] constant scales, whole, the first two 1."""
    scales = layer.constant(2)
    if scales is None or scales.size != 4:
        return gpu("its scales are not four constants: a size instead is a dynamic shape to TensorRT")
    if not np.array_equal(scales[:2], (1, 1)):
        return gpu(f"it scales images or channels by {_by(tuple(scales[:2]))}: these must be 1")
    mode = layer.attributes.get("mode", "nearest")
    coordinates = layer.attributes.get("coordinate_transformation_mode", "half_pixel")
    rounding = layer.attributes.get("nearest_mode", "round_prefer_floor")
    largest = {"nearest": 32, "linear": 4}.get(mode)
    if largest is None:
        return gpu(f"{mode}: nearest or linear")
    if mode == "nearest" and (coordinates, rounding) not in NEAREST:
        return gpu(f"nearest by {coordinates} and {rounding}: asymmetric and floor, or half_pixel")
    if mode == "linear" and coordinates != "half_pixel":
        return gpu(f"linear by {coordinates}: half_pixel")
    if any(scale != round(scale) or not 1 <= scale <= largest for scale in scales[2:].tolist()):
        return gpu(f"scales {_by(tuple(scales[2:]))}: whole numbers from 1 to {largest}")
    return FITS


def _slice(layer: NodeContext) -> LayerSupport:
    """[G] four axes, constant, in steps of 1."""
    bounds = [layer.constant(index) for index in range(1, len(layer.node.input))]
    if any(bound is None for bound, name in zip(bounds, layer.node.input[1:], strict=True) if name):
        return gpu("its bounds are computed: NVDLA takes constant ones")
    steps = bounds[3] if len(bounds) > 3 else None
    return FITS if steps is None or (steps == 1).all() else gpu("in steps: NVDLA takes every value of a range")


def _cast(layer: NodeContext) -> LayerSupport:
    return gpu("it converts types: NVDLA computes FP16 and INT8")


def _fits(layer: NodeContext) -> LayerSupport:
    return FITS


def _gpu(reason: str) -> Callable[[NodeContext], LayerSupport]:
    def rule(layer: NodeContext) -> LayerSupport:
        return gpu(reason)

    return rule


def _unsure(reason: str) -> Callable[[NodeContext], LayerSupport]:
    def rule(layer: NodeContext) -> LayerSupport:
        return unsure(reason)

    return rule


def _first_outside(checks: tuple[tuple[str, tuple[int, ...], int, int], ...]) -> LayerSupport | None:
    for what, values, low, high in checks:
        if any(not low <= value <= high for value in values):
            return gpu(f"{what} {_by(values)}: {low} to {high}")
    return None


def _by(numbers: tuple[Any, ...]) -> str:
    return "x".join(f"{number:g}" for number in numbers)


def _sampling(layer: NodeContext) -> LayerSupport:
    return gpu("NVDLA cannot sample at computed places: train the family adaptive with network.adaptive=bank or none")


def _reduction(layer: NodeContext) -> LayerSupport:
    return gpu("it takes the largest value of a whole map: NVDLA pools windows of 8 x 8 at most")


_SHUFFLE = _unsure("a Shuffle layer: documented as restricted, not how; logs show it on the GPU")
_PRODUCT = _unsure("native as a fully connected layer; for which shapes is not said")
_ORIN = _unsure("on Orin alone, and for some shapes")

RULES: Mapping[str, Callable[[NodeContext], LayerSupport]] = {
    "Add": _elementwise,
    "AveragePool": _pooling,
    "BatchNormalization": _fits,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concatenation,
    "Conv": _convolution,
    "ConvTranspose": _deconvolution,
    "Div": _division,
    "Flatten": _SHUFFLE,
    "Gemm": _PRODUCT,
    "GridSample": _sampling,
    "Identity": _fits,
    "LeakyRelu": _fits,
    "MatMul": _PRODUCT,
    "Max": _elementwise,
    "MaxPool": _pooling,
    "Min": _minimum,
    "Mul": _elementwise,
    "PRelu": _fits,
    "ReduceMax": _reduction,
    "Relu": _fits,
    "Reshape": _SHUFFLE,
    "Resize": _resize,
    "Sigmoid": _fits,
    "Slice": _slice,
    "Softmax": _ORIN,
    "Squeeze": _SHUFFLE,
    "Sub": _elementwise,
    "Sum": _elementwise,
    "Tanh": _fits,
    "Transpose": _SHUFFLE,
    "Unsqueeze": _SHUFFLE,
}
"""By ONNX operator. What is missing here has no layer on NVDLA: Exp, Softplus, GlobalAveragePool, ..."""
