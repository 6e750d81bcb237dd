"""The repository's configurations, held against Triton's own schema."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("google.protobuf")
pytest.importorskip("onnxruntime")

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from mdpose_edge.bundle import open_bundle
from mdpose_edge.families.mdpose.heads import mdpose_spec
from mdpose_edge.spec import NO_KEYPOINTS, InputSpec
from mdpose_edge.triton.config import pbtxt
from mdpose_edge.triton.decode_step import pose_outputs
from tests.artifacts import SIZE, Artifacts
from tests.unit.triton.conftest import OPTIONS

SCHEMA = Path(__file__).parents[2] / "goldens" / "triton_model_config.binpb"
MODELS = ("people", "people_graph", "people_decode")


@pytest.fixture(scope="module")
def schema() -> Any:
    """The message class ModelConfig, from model_config.proto as Triton's client ships it."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(descriptor_pb2.FileDescriptorProto.FromString(SCHEMA.read_bytes()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))


@pytest.fixture(scope="module")
def configs(schema: Any, repository: Path) -> dict[str, Any]:
    return {
        name: text_format.Parse((repository / name / "config.pbtxt").read_text(encoding="utf-8"), schema())
        for name in MODELS
    }


def test_the_schema_is_that_of_the_client_package() -> None:
    """Where tritonclient is installed, by chance or by a developer; the wheel has the file without its grpc extra."""
    found = importlib.util.find_spec("tritonclient")
    if found is None or found.origin is None:
        pytest.skip("tritonclient is not installed; pip install --no-deps tritonclient is enough")
    path = Path(found.origin).parent / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.DESCRIPTOR.serialized_pb == SCHEMA.read_bytes()


@pytest.mark.parametrize(
    "text", ['nme: "a"', "max_batch_size: two", 'input { data_type: "TYPE_FP32" }', "input { dims: [1.5] }"]
)
def test_the_schema_refuses_what_is_not_in_it(schema: Any, text: str) -> None:
    with pytest.raises(text_format.ParseError):
        text_format.Parse(text, schema())


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_named_like_its_folder_and_batches(configs: dict[str, Any], name: str) -> None:
    assert configs[name].name == name
    assert configs[name].max_batch_size == OPTIONS.max_batch


def test_the_graph_is_batched_dynamically_and_warmed_up(configs: dict[str, Any]) -> None:
    graph = configs["people_graph"]
    assert graph.backend == "onnxruntime"
    assert graph.WhichOneof("scheduling_choice") == "dynamic_batching"
    assert graph.dynamic_batching.max_queue_delay_microseconds == OPTIONS.queue_delay_us
    assert [group.count for group in graph.instance_group] == [OPTIONS.instances]
    (warmup,) = graph.model_warmup
    assert warmup.batch_size == 1
    assert {key: (list(value.dims), value.zero_data) for key, value in warmup.inputs.items()} == {
        "image": ([SIZE, SIZE, 3], True)
    }


def test_the_graph_has_the_tensors_of_the_spec(configs: dict[str, Any], artifacts: Artifacts) -> None:
    graph = configs["people_graph"]
    spec = open_bundle(artifacts.bundle("onnx")).spec
    assert tensors(graph.input) == {"image": ("TYPE_UINT8", [SIZE, SIZE, 3])}
    channels = {"o": 1, "mu": 34, "gamma": 34}
    cells = {head.name.partition("_")[2]: SIZE // head.stride for head in spec.heads}
    expected = {
        f"{kind}_{level}": ("TYPE_FP32", [count, n, n])
        for level, n in cells.items()
        for kind, count in channels.items()
    }
    assert tensors(graph.output) == expected
    assert [output.name for output in graph.output] == list(spec.outputs)


def test_decoding_stays_on_the_cpu(configs: dict[str, Any]) -> None:
    decode = configs["people_decode"]
    assert decode.backend == "python"
    (group,) = decode.instance_group
    assert group.Kind.Name(group.kind) == "KIND_CPU"


def test_the_ensemble_offers_what_the_documents_say(configs: dict[str, Any]) -> None:
    ensemble = configs["people"]
    assert ensemble.platform == "ensemble"
    assert tensors(ensemble.input) == {"image": ("TYPE_UINT8", [SIZE, SIZE, 3]), "frame_wh": ("TYPE_INT32", [2])}
    assert tensors(ensemble.output) == {
        "count": ("TYPE_INT32", [1]),
        "keypoints_xy": ("TYPE_FP32", [100, 17, 2]),
        "scores": ("TYPE_FP32", [100]),
        "sigma_xy": ("TYPE_FP32", [100, 17, 2]),
    }


def test_outputs_follow_what_the_model_knows() -> None:
    poses = mdpose_spec(InputSpec(64, 64))
    boxes = replace(poses, keypoints=NO_KEYPOINTS, classes=("person", "table"))
    spatial = replace(poses, dimensions=3)
    assert list(pose_outputs(boxes)) == ["count", "scores", "boxes_xyxy", "classes"]
    assert pose_outputs(boxes)["boxes_xyxy"] == ("float32", (100, 4))
    assert pose_outputs(spatial)["keypoints_3d"] == ("float32", (100, 17, 3))


def test_the_ensemble_connects_every_tensor_with_one_of_its_kind(configs: dict[str, Any]) -> None:
    ensemble = configs["people"]
    flowing = tensors(ensemble.input)
    for step in ensemble.ensemble_scheduling.step:
        model = configs[step.model_name]
        assert step.model_version == -1
        wanted, given = tensors(model.input), tensors(model.output)
        assert {key: flowing[value] for key, value in step.input_map.items()} == wanted
        for key, value in step.output_map.items():
            assert value not in flowing, f"{value} has two sources"
            flowing[value] = given[key]
    assert {name: flowing[name] for name in tensors(ensemble.output)} == tensors(ensemble.output)


def test_openvino_runs_on_the_cpu_alone(schema: Any, artifacts: Artifacts, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from mdpose_edge.triton.repository import write_repository

    out = write_repository(artifacts.bundle("openvino", "fp16"), tmp_path / "out")
    graph = text_format.Parse((out / "pose_graph" / "config.pbtxt").read_text(encoding="utf-8"), schema())
    assert graph.backend == "openvino"
    assert graph.instance_group[0].Kind.Name(graph.instance_group[0].kind) == "KIND_CPU"


def test_text_format_quotes_text_and_not_words(schema: Any) -> None:
    text = pbtxt({"name": 'a "b" \\ ü', "max_batch_size": 2, "version_policy": {"specific": {"versions": [1, 3]}}})
    message = text_format.Parse(text, schema())
    assert message.name == 'a "b" \\ ü'
    assert list(message.version_policy.specific.versions) == [1, 3]


def tensors(fields: Any) -> dict[str, tuple[str, list[int]]]:
    return {field.name: (kind_name(field), list(field.dims)) for field in fields}


def kind_name(field: Any) -> str:
    name: str = field.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[field.data_type].name
    return name
