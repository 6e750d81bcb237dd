"""Reading what TensorRT says it built: the words of 8.5, of 8.6 and of 10, and names of fused layers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from mdpose_edge.errors import EngineError
from mdpose_edge.export.targets.tensorrt_options import find_tensorrt_target, make_recipe
from mdpose_edge.trt.inspection import Inspection, check_inspection, inspect_engine
from mdpose_edge.trt.recipe import Recipe

NAMES = [f"/backbone/conv{i}/Conv" for i in range(20)]
INT8 = "Thirty-two wide channel vectorized row major Int8 format"
FP16 = "Channel major FP16 format where channel % 8 == 0"
FP32 = "Row major linear FP32"


def recipe(precision: str = "int8", nvdla: bool = False) -> Recipe:
    assert precision in ("int8", "fp16")
    kept = NAMES[-1:] if precision == "int8" else ()
    if nvdla:
        target = find_tensorrt_target("jetson", precision, jetpack="6.0", device="agx-orin", nvdla=0)
    else:
        target = find_tensorrt_target("tensorrt", precision, trt="8.5")
    return make_recipe(target, precision, convolutions=NAMES, kept_float=kept)  # type: ignore[arg-type]


def layer(name: str, kind: str = INT8, layer_type: str = "CaskConvolution", **more: Any) -> dict[str, Any]:
    return {"Name": name, "LayerType": layer_type, "Inputs": [{"Name": "x", "Format/Datatype": kind}], **more}


def inspected(layers: list[dict[str, Any]], **options: Any) -> Inspection:
    chosen = options.pop("recipe", recipe())
    core = chosen.nvdla_core
    return inspect_engine(json.dumps({"Layers": layers}), chosen, core, options.pop("gpu_convolutions", ()))


def as_asked() -> list[dict[str, Any]]:
    return [layer(name) for name in NAMES[:-1]] + [layer(NAMES[-1], FP16)]


@pytest.mark.parametrize(
    ("words", "precision"),
    [
        (INT8, "int8"),
        ("Int8", "int8"),
        (FP16, "fp16"),
        ("Row major linear FP16 format", "fp16"),
        ("Half", "fp16"),
        ("BFloat16", "bf16"),
        (FP32, "fp32"),
        ("Float", "fp32"),
        ("Two wide channel vectorized", "unknown"),
    ],
)
def test_the_words_for_a_precision_are_understood(words: str, precision: str) -> None:
    found = inspected([layer(NAMES[0], words)])
    assert found.built[precision] >= 1


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(layer(f"w + QuantizeLinear_9 + {NAMES[0]} + PWN(Relu_1)"), id="fused with its neighbours"),
        pytest.param(layer(f"{NAMES[0]} || {NAMES[1]}"), id="two side by side"),
        pytest.param(layer("__myl_Conv_0", Metadata=f"[ONNX Layer: {NAMES[0]}]\x1e[ONNX Layer: Relu]"), id="metadata"),
    ],
)
def test_a_convolution_is_found_under_the_names_of_fused_layers(entry: dict[str, Any]) -> None:
    assert NAMES[0] not in inspected([entry]).other_precision


def test_a_name_that_only_begins_alike_is_another() -> None:
    found = inspected([layer("/backbone/conv1/Conv_2")])
    assert "/backbone/conv1/Conv" in found.other_precision


def test_what_was_asked_passes() -> None:
    found = inspected([*as_asked(), layer("Reformatting CopyNode", layer_type="Reformat")])
    assert (found.other_precision, found.reformats, found.layers) == ((), 1, 21)
    assert found.asked == found.built == {"int8": 19, "fp16": 1}
    check_inspection(found, recipe(), None)


def test_one_in_twenty_may_fall_back_and_two_may_not() -> None:
    layers = as_asked()
    layers[0] = layer(NAMES[0], FP16)
    check_inspection(inspected(layers), recipe(), None)
    layers[1] = layer(NAMES[1], FP32)
    with pytest.raises(
        EngineError, match=r"at least 19 of 20 convolutions in int8, got 18: TensorRT fell back for /backb"
    ):
        check_inspection(inspected(layers), recipe(), None)


def test_a_convolution_that_no_layer_names_counts_as_fallen_back() -> None:
    found = inspected(as_asked()[2:])
    assert found.built["unknown"] == 2
    with pytest.raises(EngineError, match="got 18"):
        check_inspection(found, recipe(), None)


def test_a_narrower_type_is_no_fallback() -> None:
    layers = [layer(name) for name in NAMES]
    assert inspected(layers, recipe=recipe("fp16")).other_precision == ()


def test_a_convolution_that_runs_twice_counts_as_its_wider_run() -> None:
    found = inspected([*as_asked(), layer(NAMES[0], FP32)])
    assert found.other_precision == (NAMES[0],)


def test_nvdla_is_one_layer_for_many() -> None:
    chosen = recipe("fp16", nvdla=True)
    found = inspected([layer("{ForeignNode[a...b]}", layer_type="DLA")], recipe=chosen)
    assert found.built == {"nvdla": 20}
    check_inspection(found, chosen, 0)


def test_a_convolution_that_left_nvdla_is_seen_twice_over() -> None:
    """By what the builder said beforehand, and by a GPU layer of its name."""
    chosen = recipe("fp16", nvdla=True)
    nvdla = layer("{ForeignNode[a...b]}", layer_type="DLA")
    for found in (
        inspected([nvdla], recipe=chosen, gpu_convolutions=(NAMES[3],)),
        inspected([nvdla, layer(NAMES[3], FP16)], recipe=chosen),
    ):
        assert found.off_nvdla == (NAMES[3],)
        with pytest.raises(EngineError, match="20 of 20 convolutions on NVDLA, got 19"):
            check_inspection(found, replace(chosen, limits=replace(chosen.limits, other_precision=1.0)), 0)


def test_an_engine_without_any_layer_on_nvdla_is_refused() -> None:
    chosen = recipe("fp16", nvdla=True)
    found = inspected([layer("x", layer_type="Shuffle")], recipe=chosen)
    with pytest.raises(EngineError, match="expected layers on NVDLA, got none"):
        check_inspection(found, chosen, 0)


@pytest.mark.parametrize("text", ["", "{}", '{"Layers": []}', '{"Layers": ["Conv_0 + Relu_1"]}'])
def test_an_account_without_details_is_an_error(text: str) -> None:
    with pytest.raises(EngineError, match="expected TensorRT's account of each layer, got an unreadable one"):
        inspect_engine(text, recipe(), None, ())
