"""The linter: a graph that keeps the rules, and one that breaks each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mdpose_edge.calib.qdq_lint import RULES, check_qdq, lint_qdq
from mdpose_edge.errors import ExportError
from tests.unit.calib.float_graph import make_calibration, make_float_graph, node_named, onnx
from tests.unit.calib.quantized import quantize_qdq

Model = "onnx.ModelProto"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return quantize_qdq(make_float_graph(), make_calibration(tmp_path_factory.mktemp("int8"))).model


@pytest.fixture
def model(sound: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that a test may spoil."""
    copy = onnx.ModelProto()
    copy.CopyFrom(sound)
    return copy


def test_a_sound_graph_breaks_no_rule(sound: onnx.ModelProto) -> None:
    assert lint_qdq(sound) == []
    check_qdq(sound)


def test_a_float_graph_breaks_no_rule() -> None:
    assert lint_qdq(make_float_graph()) == []


def set_constant(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    tensor.CopyFrom(onnx.numpy_helper.from_array(value, name))


def constant(model: onnx.ModelProto, name: str) -> np.ndarray:
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    return onnx.numpy_helper.to_array(tensor)


def add_constant(model: onnx.ModelProto, name: str, value: np.ndarray) -> str:
    model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return name


def add_pair(model: onnx.ModelProto, tensor: str, reader: str, index: int, scale: float = 0.1) -> None:
    """Put a Q/DQ pair on one input of a node."""
    node = node_named(model, reader)
    scales = add_constant(model, f"{reader}_s", np.float32(scale)), add_constant(model, f"{reader}_z", np.int8(0))
    pair = [
        onnx.helper.make_node("QuantizeLinear", [tensor, *scales], [f"{reader}_q"], f"{reader}_Q"),
        onnx.helper.make_node("DequantizeLinear", [f"{reader}_q", *scales], [f"{reader}_dq"], f"{reader}_DQ"),
    ]
    node.input[index] = f"{reader}_dq"
    place = list(model.graph.node).index(node)
    for part in reversed(pair):
        model.graph.node.insert(place, part)


def drop_pair(model: onnx.ModelProto, tensor: str, reader: str, index: int) -> None:
    """Let one input of a node read the float tensor again."""
    node_named(model, reader).input[index] = tensor


def two_inputs(model: onnx.ModelProto) -> None:
    node_named(model, "joined_QuantizeLinear").input.pop()


def unsigned_zero_point(model: onnx.ModelProto) -> None:
    set_constant(model, "joined_zero_point", np.uint8(128))


def shifted_zero_point(model: onnx.ModelProto) -> None:
    set_constant(model, "root_conv.weight_zero_point", np.arange(16, dtype=np.int8) // 15)


def computed_zero_point(model: onnx.ModelProto) -> None:
    zero = add_constant(model, "raw_zero", np.zeros((), np.int8))
    model.graph.node.insert(0, onnx.helper.make_node("Identity", [zero], ["computed_zero"], "computed"))
    for kind in ("Quantize", "Dequantize"):
        node_named(model, f"joined_{kind}Linear").input[2] = "computed_zero"


def negative_scale(model: onnx.ModelProto) -> None:
    set_constant(model, "joined_scale", np.float32(-0.1))


def half_scale(model: onnx.ModelProto) -> None:
    set_constant(model, "up_scale", np.float16(0.1))


def weights_per_tensor(model: onnx.ModelProto) -> None:
    set_constant(model, "root_conv.weight_scale", np.float32(0.01))
    set_constant(model, "root_conv.weight_zero_point", np.int8(0))


def weights_on_axis_one(model: onnx.ModelProto) -> None:
    node_named(model, "node_tower_conv_weight_DequantizeLinear").attribute[0].i = 1


def activations_per_channel(model: onnx.ModelProto) -> None:
    set_constant(model, "up_scale", np.full(16, 0.1, np.float32))
    set_constant(model, "up_zero_point", np.zeros(16, np.int8))


def something_between(model: onnx.ModelProto) -> None:
    dequantize = node_named(model, "joined_DequantizeLinear")
    between = onnx.helper.make_node("MaxPool", [dequantize.input[0]], ["between"], "between", kernel_shape=[1, 1])
    dequantize.input[0] = "between"
    model.graph.node.insert(list(model.graph.node).index(dequantize), between)


def another_scale_behind(model: onnx.ModelProto) -> None:
    name = add_constant(model, "other_scale", np.float32(0.3))
    node_named(model, "up_DequantizeLinear").input[1] = name


def dead_pair(model: onnx.ModelProto) -> None:
    model.graph.node.remove(node_named(model, "up_DequantizeLinear"))
    drop_pair(model, "up", "node_merged", 1)


def float_weights(model: onnx.ModelProto) -> None:
    drop_pair(model, "root_conv.weight", "node_root_conv", 1)


def float_data(model: onnx.ModelProto) -> None:
    drop_pair(model, "joined", "node_root_conv", 0)


def int8_bias(model: onnx.ModelProto) -> None:
    add_pair(model, "root_conv.bias", "node_root_conv", 2)


def before_an_activation(model: onnx.ModelProto) -> None:
    add_pair(model, "tower_conv", "node_tower_sigmoid", 0)


def between_convolution_and_relu(model: onnx.ModelProto) -> None:
    add_pair(model, "root_conv", "node_root", 0)


def on_the_branch_too(model: onnx.ModelProto) -> None:
    add_pair(model, "block2_conv2", "node_block2_add", 0)


def on_the_branch_only(model: onnx.ModelProto) -> None:
    drop_pair(model, "block1", "node_block2_add", 1)
    add_pair(model, "block2_conv2", "node_block2_add", 0)


def on_the_main_of_two_convolutions(model: onnx.ModelProto) -> None:
    drop_pair(model, "project", "node_block1_add", 1)
    add_pair(model, "block1_conv2", "node_block1_add", 0)


def none_on_the_skip(model: onnx.ModelProto) -> None:
    drop_pair(model, "block1", "node_block2_add", 1)


def scales_apart_around_a_concat(model: onnx.ModelProto) -> None:
    set_constant(model, "joined_scale", constant(model, "joined_scale") * np.float32(2))


def two_scales_for_one_weight(model: onnx.ModelProto) -> None:
    node_named(model, "node_block2_conv1").input[1] = node_named(model, "node_block1_conv1").input[1]


def int8_output(model: onnx.ModelProto) -> None:
    node_named(model, "node_mu").output[0] = "mu_raw"
    scales = add_constant(model, "mu_s", np.float32(0.1)), add_constant(model, "mu_z", np.int8(0))
    model.graph.node.append(onnx.helper.make_node("QuantizeLinear", ["mu_raw", *scales], ["mu_q"], "mu_Q"))
    model.graph.node.append(onnx.helper.make_node("DequantizeLinear", ["mu_q", *scales], ["mu"], "mu_DQ"))


def int8_normalisation(model: onnx.ModelProto) -> None:
    add_pair(model, "centred", "node_normalized", 0)


def a_pool_before_the_stem(model: onnx.ModelProto) -> None:
    node = node_named(model, "node_normalized")
    pool = onnx.helper.make_node("AveragePool", [node.input[0]], ["smooth"], "smooth", kernel_shape=[1, 1])
    node.input[0] = "smooth"
    model.graph.node.insert(list(model.graph.node).index(node), pool)


PLANTED: list[tuple[str, Callable[[onnx.ModelProto], None], str]] = [
    ("three-inputs", two_inputs, "joined_QuantizeLinear"),
    ("zero-points", unsigned_zero_point, "joined_QuantizeLinear: uint8 128"),
    ("zero-points", shifted_zero_point, "node_root_conv_weight_QuantizeLinear: int8 1"),
    ("zero-points", computed_zero_point, "joined_QuantizeLinear: one that is computed"),
    ("scales", negative_scale, "joined_QuantizeLinear: float32 -0.1"),
    ("scales", half_scale, "up_QuantizeLinear: float16"),
    ("weights-per-channel", weights_per_tensor, "1 scales on axis 0 for 16 channels"),
    ("weights-per-channel", weights_on_axis_one, "16 scales on axis 1 for 16 channels"),
    ("activations-per-tensor", activations_per_channel, "up_QuantizeLinear: 16 scales"),
    ("pairs-whole", something_between, "MaxPool between reads int8"),
    ("pairs-whole", another_scale_behind, "up_DequantizeLinear takes another scale"),
    ("pairs-whole", dead_pair, "up_QuantizeLinear: int8 that no DequantizeLinear reads"),
    ("both-inputs", float_weights, "node_root_conv: int8 data and float weights"),
    ("both-inputs", float_data, "node_root_conv: int8 weights and float data"),
    ("float-bias", int8_bias, "node_root_conv"),
    ("readers", before_an_activation, "Sigmoid node_tower_sigmoid behind it"),
    ("readers", between_convolution_and_relu, "Relu node_root behind it"),
    ("skip-only", on_the_branch_too, "node_block2_add: Q/DQ on the branch of node_block2_conv2"),
    ("skip-only", on_the_branch_only, "node_block2_add: Q/DQ on the branch of node_block2_conv2"),
    ("skip-only", on_the_main_of_two_convolutions, "node_block1_add: Q/DQ on the branch of node_block1_conv2"),
    ("skip-only", none_on_the_skip, "node_block2_add: none on the skip input"),
    ("common-scales", scales_apart_around_a_concat, "node_joined: scales"),
    ("tied-scales", two_scales_for_one_weight, "node_block2_conv1: block1_conv1.weight is given scales"),
    ("float-outputs", int8_output, "mu: DequantizeLinear mu_DQ"),
    ("input-untouched", int8_normalisation, "node_normalized_Q: Q/DQ before the first convolution's input"),
    ("input-untouched", a_pool_before_the_stem, "AveragePool before the first convolution"),
]


@pytest.mark.parametrize(
    ("rule", "plant", "found"), PLANTED, ids=[f"{rule}-{plant.__name__}" for rule, plant, _ in PLANTED]
)
def test_a_planted_violation_is_named(
    model: onnx.ModelProto, rule: str, plant: Callable[[onnx.ModelProto], None], found: str
) -> None:
    plant(model)
    named = [str(violation) for violation in lint_qdq(model) if violation.rule == rule]
    assert any(found in text for text in named), [str(violation) for violation in lint_qdq(model)]
    with pytest.raises(ExportError, match=r"the Q/DQ graph: expected .*; report this"):
        check_qdq(model)


def test_every_rule_has_a_violation_planted() -> None:
    assert {rule for rule, _, _ in PLANTED} == RULES.keys()


def test_the_message_says_the_rule_the_node_and_how_many_more(model: onnx.ModelProto) -> None:
    negative_scale(model)
    message = (
        r"expected constant, .* scales of .*, got scales at joined_QuantizeLinear: float32 -0.1.* \(and \d+ more\)"
    )
    with pytest.raises(ExportError, match=message):
        check_qdq(model)


def test_the_default_form_of_onnxruntime_breaks_many(tmp_path: Path) -> None:
    from tests.unit.calib.quantized import quantize_onnxruntime

    made = quantize_onnxruntime(make_float_graph(), make_calibration(tmp_path))
    assert {"zero-points", "readers", "float-bias", "skip-only"} <= {found.rule for found in lint_qdq(made.model)}
