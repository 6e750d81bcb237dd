"""The graph itself, of DLA-34: what is in it, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from mdpose_edge.errors import ExportError  # noqa: E402
from mdpose_edge.export.onnx import check_onnx, to_fp16, to_onnx  # noqa: E402
from mdpose_edge.spec import ModelSpec  # noqa: E402
from tests.artifacts import write_random_checkpoint  # noqa: E402

PORTABLE = {"Add", "Cast", "Concat", "Conv", "MaxPool", "Mul", "Relu", "Resize", "Sigmoid", "Sub", "Transpose"}
"""Each is in the operator table of TensorRT 8.5's parser."""
FLOAT, FLOAT16, UINT8 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.UINT8


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[onnx.ModelProto, ModelSpec]:
    from mdpose_edge.checkpoint import load_network

    path = write_random_checkpoint(tmp_path_factory.mktemp("dla34") / "model.safetensors", backbone="dla34", batch=2)
    network, spec = load_network(path)
    return check_onnx(to_onnx(network, spec), spec), spec


@pytest.fixture
def graph(traced: tuple[onnx.ModelProto, ModelSpec]) -> onnx.ModelProto:
    """Return a copy that a test may spoil."""
    copy = onnx.ModelProto()
    copy.CopyFrom(traced[0])
    return copy


@pytest.fixture(scope="module")
def spec(traced: tuple[onnx.ModelProto, ModelSpec]) -> ModelSpec:
    return traced[1]


def types_of(values: list[onnx.ValueInfoProto]) -> dict[str, tuple[int, tuple[int, ...]]]:
    return {
        value.name: (value.type.tensor_type.elem_type, tuple(d.dim_value for d in value.type.tensor_type.shape.dim))
        for value in values
    }


def test_the_format_is_one_that_old_parsers_read(graph: onnx.ModelProto) -> None:
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 17)]
    assert graph.ir_version <= 8
    assert not graph.functions
    assert {node.op_type for node in graph.graph.node} == PORTABLE


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "mobilenetv2_100"])
def test_padding_is_part_of_each_convolution_whatever_its_kind(backbone: str, tmp_path: Path) -> None:
    import torch

    from mdpose_edge.checkpoint import load_network

    onnxruntime = pytest.importorskip("onnxruntime")
    network, spec = load_network(write_random_checkpoint(tmp_path / "model.safetensors", backbone=backbone))
    model = check_onnx(to_onnx(network, spec), spec)
    assert {node.op_type for node in model.graph.node} <= PORTABLE | {"Clip"}
    image = np.random.default_rng(0).integers(0, 256, (1, spec.input.height, spec.input.width, 3), np.uint8)
    outputs = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"image": image})
    with torch.no_grad():
        heads = [raw.numpy() for level in network(torch.from_numpy(image)) for raw in level]
    for got, want in zip(outputs, heads, strict=True):
        np.testing.assert_allclose(got, want[:, : got.shape[1]], rtol=1e-3, atol=1e-4)


def test_input_and_outputs_are_the_specs(graph: onnx.ModelProto, spec: ModelSpec) -> None:
    assert types_of(graph.graph.input) == {"image": (UINT8, (2, 64, 64, 3))}
    outputs = types_of(graph.graph.output)
    assert tuple(outputs) == spec.outputs
    assert outputs["mu_p4"] == (FLOAT, (2, 34, 4, 4))


def test_every_tensor_has_a_static_shape(graph: onnx.ModelProto) -> None:
    known = types_of(graph.graph.value_info) | types_of(graph.graph.output)
    assert {name for node in graph.graph.node for name in node.output} == known.keys()
    assert all(shape and all(size > 0 for size in shape) for _, shape in known.values())


def test_equal_biases_are_constants_all_the_same(traced: tuple[onnx.ModelProto, ModelSpec]) -> None:
    from mdpose_edge.families.mdpose.network import MDPoseNetwork

    spec = traced[1]
    untrained = MDPoseNetwork(spec, auxiliary_center=True).eval()  # whose biases are zero
    graph = check_onnx(to_onnx(untrained, spec), spec).graph
    constants = {tensor.name for tensor in graph.initializer}
    biases = [node.input[2] for node in graph.node if node.op_type == "Conv"]
    assert constants.issuperset(biases)
    assert {node.op_type for node in graph.node} == PORTABLE


def test_no_work_is_done_twice(graph: onnx.ModelProto) -> None:
    work = Counter(
        (node.op_type, *node.input, *(a.SerializeToString() for a in node.attribute)) for node in graph.graph.node
    )
    assert work.most_common(1)[0][1] == 1


def test_nothing_of_the_machine_is_in_the_file(graph: onnx.ModelProto) -> None:
    assert str(Path(__file__).parents[3]).encode() not in graph.SerializeToString()
    assert not any(node.doc_string for node in graph.graph.node)


def test_fp16_is_float16_from_the_cast_of_the_input_to_the_casts_of_the_outputs(
    graph: onnx.ModelProto, spec: ModelSpec
) -> None:
    half = check_onnx(to_fp16(graph), spec)
    assert types_of(half.graph.input) == types_of(graph.graph.input)
    assert types_of(half.graph.output) == types_of(graph.graph.output)
    assert {kind for kind, _ in types_of(half.graph.value_info).values()} == {FLOAT16}
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    assert {node.input[0] for node in casts} & {"image"} == {"image"}
    assert len(casts) == 1 + len(spec.outputs)
    scales = {node.input[2] for node in half.graph.node if node.op_type == "Resize"}
    assert {t.data_type for t in half.graph.initializer if t.name in scales} == {FLOAT}
    assert {t.data_type for t in half.graph.initializer if t.name not in scales} == {FLOAT16}


def test_fp16_leaves_the_original_alone(graph: onnx.ModelProto) -> None:
    before = graph.SerializeToString()
    to_fp16(graph)
    assert graph.SerializeToString() == before


@pytest.mark.parametrize("value", [1e5, float("inf"), float("nan")])
def test_fp16_refuses_a_weight_that_it_would_clip(graph: onnx.ModelProto, value: float) -> None:
    weight = max(graph.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    array = onnx.numpy_helper.to_array(weight).copy()
    array.flat[0] = value
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    with pytest.raises(ExportError, match="weights within float16's 65504, got"):
        to_fp16(graph)


def first(graph: onnx.ModelProto, kind: str) -> onnx.NodeProto:
    return next(node for node in graph.graph.node if node.op_type == kind)


def use_sizes(graph: onnx.ModelProto) -> None:
    resize = first(graph, "Resize")
    (shape,) = [v.type.tensor_type.shape for v in graph.graph.value_info if v.name == resize.output[0]]
    sizes = np.array([d.dim_value for d in shape.dim], np.int64)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(sizes, "sizes"))
    resize.input[2] = ""
    resize.input.append("sizes")


def unfold_a_batch_norm(graph: onnx.ModelProto) -> None:
    relu = first(graph, "Relu")
    (shape,) = [v.type.tensor_type.shape for v in graph.graph.value_info if v.name == relu.input[0]]
    ones = np.ones(shape.dim[1].dim_value, np.float32)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(ones, "ones"))
    norm = onnx.helper.make_node("BatchNormalization", [relu.input[0], "ones", "ones", "ones", "ones"], ["normed"])
    relu.input[0] = "normed"
    graph.graph.node.insert(list(graph.graph.node).index(relu), norm)


def make_batch_dynamic(graph: onnx.ModelProto) -> None:
    del graph.graph.value_info[:]
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(use_sizes, "constant float32 scales for .*Resize", id="resize by sizes"),
        pytest.param(unfold_a_batch_norm, "every batch norm folded into a convolution, got 1 left", id="batch norm"),
        pytest.param(make_batch_dynamic, "a static shape of image", id="dynamic batch"),
        pytest.param(lambda g: setattr(g, "ir_version", 10), "IR version 8 at most, got 10", id="IR version"),
        pytest.param(lambda g: setattr(g.opset_import[0], "version", 16), "opset 17 alone", id="opset"),
        pytest.param(lambda g: g.graph.output.reverse(), "the outputs o_p3, mu_p3", id="order of outputs"),
        pytest.param(lambda g: g.graph.node.reverse(), "expected a valid one", id="unsorted"),
        pytest.param(lambda g: first(g, "Relu").input.append("image"), "expected a valid one", id="invalid node"),
    ],
)
def test_a_graph_that_breaks_a_rule_is_refused(
    graph: onnx.ModelProto, spec: ModelSpec, spoil: Callable[[onnx.ModelProto], object], message: str
) -> None:
    check_onnx(graph, spec)
    spoil(graph)
    with pytest.raises(ExportError, match=message):
        check_onnx(graph, spec)
