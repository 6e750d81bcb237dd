"""Each rule, one step inside its limit and one step beyond, worked out by hand from NVIDIA's documents."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import TensorProto, helper

from mdpose_edge.common.onnx_graph import OnnxGraph
from mdpose_edge.nvdla.limits import RULES, EngineSettings, LayerSupport, judge
from tests.unit.nvdla.graphs import conv, model, one


def verdict(made: onnx.ModelProto, precision: str = "fp16", tensorrt: tuple[int, ...] = (8, 6, 2)) -> LayerSupport:
    graph = OnnxGraph(made)
    return judge(graph, graph.nodes[-1], EngineSettings(precision, tensorrt))  # type: ignore[arg-type]


def pool(kernel: int, stride: int = 1, pad: int = 0, **more: Any) -> onnx.ModelProto:
    sides = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
    return one("MaxPool", **{**sides, **more})


def resize(scales: list[float], **attributes: Any) -> onnx.ModelProto:
    defaults = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], name="node", **{**defaults, **attributes})
    return model([node], {"x": (1, 8, 4, 4)}, ["y"], {"scales": np.array(scales, np.float32)})


def resize_to_size() -> onnx.ModelProto:
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], name="node", mode="nearest")
    return model([node], {"x": (1, 8, 4, 4)}, ["y"], {"sizes": np.array([1, 8, 8, 8], np.int64)})


def pair(op: str, second: tuple[int, ...] = (1, 8, 4, 4)) -> onnx.ModelProto:
    return model([helper.make_node(op, ["a", "b"], ["y"], name="node")], {"a": (1, 8, 4, 4), "b": second}, ["y"])


def concat(axis: int, inputs: int = 2) -> onnx.ModelProto:
    names = [f"x{i}" for i in range(inputs)]
    node = helper.make_node("Concat", names, ["y"], name="node", axis=axis)
    return model([node], dict.fromkeys(names, (1, 8, 4, 4)), ["y"])


def deconv(kernel: tuple[int, int] = (2, 2), group: int = 1, **attributes: Any) -> onnx.ModelProto:
    weights = np.zeros((16, 16 // group, *kernel), np.float32)
    return one("ConvTranspose", constants=[weights], group=group, **attributes)


def sliced(step: int) -> onnx.ModelProto:
    return one("Slice", constants=[np.array([value], np.int64) for value in (0, 8, 2, step)])


def clip(low: float) -> onnx.ModelProto:
    return one("Clip", constants=[np.float32(low).reshape(()), np.float32(6).reshape(())])


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(conv(), id="3x3"),
        pytest.param(conv(kernel=(7, 7), pads=[3] * 4, shape=(1, 3, 736, 736)), id="7x7 stem"),
        pytest.param(conv(kernel=(32, 32), pads=[31] * 4), id="kernel and padding at their ends"),
        pytest.param(conv(kernel=(1, 32), pads=[0] * 4), id="kernel 1x32"),
        pytest.param(conv(strides=[8, 8]), id="stride 8"),
        pytest.param(conv(shape=(1, 16, 80, 80), dilations=[32, 32]), id="dilation 32"),
        pytest.param(conv(shape=(1, 1, 8, 8), out=8192), id="8192 outputs"),
        pytest.param(conv(group=16), id="depthwise in FP16"),
        pytest.param(conv(shape=(4096, 1, 3, 3), out=1), id="batch 4096"),
        pytest.param(conv(shape=(1, 1, 8192, 3), out=1), id="side 8192"),
        pytest.param(pool(8, 16, 3), id="window 8, stride 16"),
        pytest.param(deconv(), id="transposed 2x2"),
        pytest.param(deconv(kernel=(64, 1)), id="transposed 64x1"),
        pytest.param(one("Relu"), id="relu"),
        pytest.param(one("Sigmoid"), id="sigmoid"),
        pytest.param(clip(0.0), id="clipped relu"),
        pytest.param(pair("Add"), id="add"),
        pytest.param(pair("Mul"), id="mul"),
        pytest.param(pair("Div"), id="div on 8.6"),
        pytest.param(concat(1), id="channels"),
        pytest.param(concat(-3), id="channels from behind"),
        pytest.param(resize([1, 1, 2, 2]), id="nearest by 2, as nn.Upsample"),
        pytest.param(resize([1, 1, 32, 1]), id="nearest by 32"),
        pytest.param(
            resize([1, 1, 2, 2], coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_ceil"),
            id="nearest by half_pixel",
        ),
        pytest.param(
            resize([1, 1, 4, 4], mode="linear", coordinate_transformation_mode="half_pixel"), id="linear by 4"
        ),
        pytest.param(sliced(1), id="slice"),
    ],
)
def test_within_its_limits_a_layer_runs_on_nvdla(made: onnx.ModelProto) -> None:
    assert verdict(made) == LayerSupport("nvdla", "")


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        pytest.param(conv(kernel=(33, 3)), "kernel 33x3: 1 to 32", id="kernel 33"),
        pytest.param(conv(strides=[9, 9]), "stride 9x9: 1 to 8", id="stride 9"),
        pytest.param(conv(shape=(1, 16, 80, 80), dilations=[33, 33]), "dilation 33x33: 1 to 32", id="dilation 33"),
        pytest.param(conv(kernel=(32, 32), pads=[32] * 4), "padding 32x32x32x32: 0 to 31", id="padding 32"),
        pytest.param(conv(pads=[3, 0, 0, 0]), "padding 3x0x0x0: less than the kernel's 3x3", id="padding like kernel"),
        pytest.param(conv(shape=(1, 1, 8, 8), out=8193), "y is 1x8193x8x8: at most", id="8193 outputs"),
        pytest.param(conv(shape=(4097, 1, 3, 3), out=1), "x is 4097x1x3x3: at most 4096 images", id="batch 4097"),
        pytest.param(conv(shape=(1, 1, 8193, 3), out=1), "x is 1x1x8193x3: at most", id="side 8193"),
        pytest.param(conv(shape=("n", 16, 8, 8)), "x has an open dimension", id="open batch"),
        pytest.param(pool(9), "window 9x9: 1 to 8", id="window 9"),
        pytest.param(pool(2, 17), "stride 17x17: 1 to 16", id="pooling stride 17"),
        pytest.param(pool(3, dilations=[2, 2]), "a dilated window", id="dilated pooling"),
        pytest.param(deconv(kernel=(4, 4), pads=[1] * 4, strides=[2, 2]), "padding 1x1x1x1", id="bilinear upsampling"),
        pytest.param(deconv(group=16), "16 groups", id="grouped transposed"),
        pytest.param(deconv(kernel=(33, 33)), "kernel 33x33: 1 to 32, or 64, 96 or 128 by 1", id="transposed 33"),
        pytest.param(clip(-1.0), "it does not clip at 0 from below", id="clip from -1"),
        pytest.param(concat(2), "along axis 2", id="rows joined"),
        pytest.param(resize([1, 1, 33, 33]), "scales 33x33: whole numbers from 1 to 32", id="nearest by 33"),
        pytest.param(resize([1, 1, 1.5, 1.5]), "scales 1.5x1.5: whole numbers", id="nearest by 1.5"),
        pytest.param(resize([1, 2, 2, 2]), "scales images or channels by 1x2", id="channels scaled"),
        pytest.param(
            resize([1, 1, 2, 2], nearest_mode="ceil"), "nearest by asymmetric and ceil", id="nearest rounding"
        ),
        pytest.param(resize([1, 1, 2, 2], mode="linear"), "linear by asymmetric: half_pixel", id="linear asymmetric"),
        pytest.param(
            resize([1, 1, 5, 5], mode="linear", coordinate_transformation_mode="half_pixel"),
            "scales 5x5: whole numbers from 1 to 4",
            id="linear by 5",
        ),
        pytest.param(resize([1, 1, 2, 2], mode="cubic"), "cubic: nearest or linear", id="cubic"),
        pytest.param(resize_to_size(), "a size instead is a dynamic shape", id="sizes"),
        pytest.param(sliced(2), "in steps", id="slice in steps"),
        pytest.param(one("Softplus"), "NVDLA has no such layer", id="softplus"),
        pytest.param(one("Exp"), "NVDLA has no such layer", id="exp"),
        pytest.param(one("GlobalAveragePool"), "NVDLA has no such layer", id="global pooling"),
        pytest.param(one("Relu", shape=(1, 16)), "x has 2 axes", id="two axes"),
        pytest.param(one("Cast", to=TensorProto.FLOAT16), "it converts types", id="cast"),
    ],
)
def test_beyond_its_limits_a_layer_leaves_and_the_reason_is_named(made: onnx.ModelProto, reason: str) -> None:
    found = verdict(made)
    assert found.place == "gpu"
    assert reason in found.reason


def test_a_camera_image_is_no_tensor_for_nvdla() -> None:
    node = helper.make_node("Cast", ["image"], ["y"], to=TensorProto.FLOAT)
    found = verdict(model([node], {"image": (1, 8, 8, 3)}, ["y"], kind=TensorProto.UINT8))
    assert found == LayerSupport("gpu", "image is uint8: NVDLA computes FP16 and INT8")


def test_grouped_convolutions_need_fours_in_int8_alone() -> None:
    made = conv(group=8, out=16)  # 2 channels into a group, 2 out of it
    assert verdict(made, "fp16").place == "nvdla"
    found = verdict(made, "int8")
    assert found == LayerSupport("gpu", "2 and 2 channels into and out of a group: a multiple of 4 in INT8")
    assert verdict(conv(group=4), "int8").place == "nvdla"


def test_division_came_with_8_6() -> None:
    assert verdict(pair("Div"), tensorrt=(8, 5, 2)) == LayerSupport("gpu", "division needs TensorRT 8.6")


def test_weights_that_are_computed_leave() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="node")
    made = model([node], {"x": (1, 4, 8, 8), "w": (4, 4, 1, 1)}, ["y"])
    assert verdict(made).reason == "its weights are computed: NVDLA takes constant ones"


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        pytest.param(one("Transpose", perm=[0, 3, 1, 2]), "a Shuffle layer", id="transpose"),
        pytest.param(one("Mul", constants=[np.ones((1, 16, 1, 1), np.float32)]), "one input is a constant", id="scale"),
        pytest.param(pair("Add", (1, 8, 1, 1)), "it broadcasts 1x8x4x4 and 1x8x1x1", id="broadcast"),
        pytest.param(pair("Min"), "contradict", id="minimum"),
        pytest.param(one("Softmax", axis=1), "on Orin alone", id="softmax"),
    ],
)
def test_what_the_documents_leave_open_is_unsure(made: onnx.ModelProto, reason: str) -> None:
    found = verdict(made)
    assert found.place == "unsure"
    assert reason in found.reason


def test_every_rule_is_for_an_operator_of_onnx() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    assert RULES.keys() <= known
