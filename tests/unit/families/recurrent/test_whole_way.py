"""From training to the gate, on crude people in seconds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("openvino")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx

from mdpose_edge.calib.layers import gate_sums, tied_inputs
from mdpose_edge.calib.openvino_float import convolutions
from mdpose_edge.calib.openvino_tied import range_of
from mdpose_edge.calib.qdq_lint import lint_qdq
from mdpose_edge.check.gate import check
from mdpose_edge.checkpoint import read_checkpoint
from mdpose_edge.common.onnx_graph import OnnxGraph
from mdpose_edge.export.bundle import export_checkpoint
from mdpose_edge.export.options import ExportOptions
from mdpose_edge.families.recurrent.training import FAMILY
from mdpose_edge.nvdla.dry_run import dry_run, load_source
from mdpose_edge.train.config import read_config
from mdpose_edge.train.log import read_csv
from mdpose_edge.train.loop import train
from tests.artifacts import Artifacts


@pytest.fixture(scope="module")
def run_folder(crude_people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("recurrent") / "run"
    options = {
        "family": "recurrent", "input": {"height": 64, "width": 64},
        "network": {"backbone": "test_resnet", "channels": 16, "hidden": 16, "layers": 2, "people": 3, "curriculum": 8},
        "loss": {"heat_sigma": 1.0, "stop_after": 10},
        "augment": {"rotation_prob": 0.0, "expand_prob": 0.0, "crop_prob": 0.0},
        "optimizer": {"name": "adamw", "lr": 3.0e-3}, "schedule": {"iterations": 40, "kind": "cosine"},
        "batch_size": 8, "pretrained": False, "workers": 0, "log_every": 10,
    }  # fmt: skip
    train(read_config(options, "test"), crude_people, out)
    return out


def test_it_trains_and_its_log_has_its_columns(run_folder: Path) -> None:
    rows = read_csv(run_folder / "log.csv")
    assert float(rows[-1]["heat"]) < 0.8 * float(rows[0]["heat"])
    for row in rows:
        assert float(row["loss"]) == pytest.approx(sum(float(row[part]) for part in FAMILY.parts), rel=1e-4)
    stops = [float(row["stop"]) for row in rows]
    assert not any(stops[:10]) and all(stops[10:])
    watched = [row for row in rows if row["p_person"]]
    assert len(watched) == 4 and all(0 < float(row["p_person"]) < 1 for row in watched)


def test_the_gate_measures_its_steps(run_folder: Path, crude_people: Path, tmp_path: Path) -> None:
    model = run_folder / "model.safetensors"
    bundles = [
        export_checkpoint(model, tmp_path / target, ExportOptions(target)).path for target in ("onnx", "openvino")
    ]
    found = check(bundles[1], bundles[0], crude_people, "train", limit=8, threads=1)
    assert found.verdict.held, found.verdict.sentence()
    findings = {finding.key: finding for finding in found.verdict.findings}
    assert all(findings[key].held for key in ("stop_flips", "count_error", "step_error"))
    assert set(found.to_json_dict()["outputs"]) == set(read_checkpoint(model).spec.outputs)


def test_other_weights_fall_at_the_gate(
    run_folder: Path, crude_people: Path, tmp_path: Path, artifacts: Artifacts
) -> None:
    reference = export_checkpoint(run_folder / "model.safetensors", tmp_path / "onnx", ExportOptions("onnx")).path
    found = check(artifacts.of("recurrent").bundle("onnx"), reference, crude_people, "train", limit=4, threads=1)
    findings = {finding.key: finding for finding in found.verdict.findings}
    assert found.verdict.held is False
    assert "different cells" in findings["step_error"].note  # two people, and three


def test_weights_are_stored_once_and_nothing_loops(artifacts: Artifacts) -> None:
    path = artifacts.of("recurrent").bundle("onnx") / "model.onnx"
    graph = OnnxGraph(onnx.load(path))
    kinds = {node.op_type for node in graph.nodes}
    assert not kinds & {"Loop", "Scan", "LSTM", "If"}
    assert all(node.op_type != "Concat" or node.output[0] == "stop" for node in graph.nodes)
    stored = sum(tensor.ByteSize() for tensor in graph.initializers.values())
    assert path.stat().st_size < 1.3 * stored
    calls = [node.input[1] for node in graph.nodes if node.op_type == "Conv" and "from_hidden" in node.name]
    assert len(calls) == 6 and len(set(calls)) == 2  # 2 people x 2 calls, no state before the first; 2 layers


def test_a_place_has_one_scale_in_every_step_and_gates_are_float(artifacts: Artifacts) -> None:
    path = artifacts.of("recurrent").bundle("tensorrt", "int8")
    model = onnx.load(next(path.glob("*.onnx")))
    float_graph = OnnxGraph(onnx.load(artifacts.of("recurrent").bundle("onnx") / "model.onnx"))
    groups = tied_inputs(float_graph)
    assert sorted(map(len, groups)) == [2, 2, 2, 4, 4]  # maps, two maxima; the two layers' states
    assert lint_qdq(model, np.float16) == []
    graph = OnnxGraph(model)
    quantized = {node.input[0]: graph.value(node.input[1]) for node in graph.nodes if node.op_type == "QuantizeLinear"}
    for names in groups:
        assert len({float(quantized[name]) for name in names if name in quantized}) <= 1
    sums = gate_sums(graph)
    assert (
        len(sums) == len(gate_sums(float_graph)) == 10
    )  # 2 feedbacks, 6 states, and the last cells, which end in a gate
    dequantized = {name for node in graph.nodes if node.op_type == "DequantizeLinear" for name in node.output}
    for node in graph.nodes:
        if node.name in sums or node.op_type in ("Sigmoid", "Tanh", "Mul", "ReduceMax"):
            assert dequantized.isdisjoint(node.input), node.name


def test_a_scale_that_differs_in_one_step_is_named(artifacts: Artifacts) -> None:
    path = artifacts.of("recurrent").bundle("tensorrt", "int8")
    model = onnx.load(next(path.glob("*.onnx")))
    (conv,) = [node for node in model.graph.node if node.name.endswith("layers.1/from_hidden_1/Conv")]
    by_output = {node.output[0]: node for node in model.graph.node}
    dequantize = by_output[conv.input[0]]
    quantize = by_output[dequantize.input[0]]
    other = onnx.numpy_helper.from_array(
        onnx.numpy_helper.to_array(
            next(tensor for tensor in model.graph.initializer if tensor.name == quantize.input[1])
        )
        * 2,
        "other_scale",
    )
    model.graph.initializer.append(other)
    quantize.input[1] = dequantize.input[1] = "other_scale"
    assert {violation.rule for violation in lint_qdq(model, np.float16)} == {"tied-scales"}


def test_openvino_has_one_range_for_a_place_too(artifacts: Artifacts) -> None:
    pytest.importorskip("nncf")
    from mdpose_edge.runtimes.openvino_session import read_graph

    path = artifacts.of("recurrent").bundle("openvino", "int8")
    graph = read_graph(str(next(path.glob("*.xml"))), where="test", feature="test")
    found = {}
    for name, node in convolutions(graph).items():
        source = node.input_value(0).get_node()
        if "decoder" in name and source.get_type_name() == "FakeQuantize":
            place = re.sub(r"_\d+$", "", name.rpartition("/")[0])
            found.setdefault(place, []).append((range_of(source, 1), range_of(source, 2)))
    assert {len(ranges) for ranges in found.values()} >= {2, 3, 4}
    assert all(len(set(ranges)) == 1 for ranges in found.values()), found
    floats = ("Sigmoid", "Tanh", "Multiply")
    gates = [
        node
        for node in graph.get_ordered_ops()
        if "decoder" in node.get_friendly_name() and node.get_type_name() in floats
    ]
    read = {value.get_node().get_type_name() for node in gates for value in node.input_values()}
    assert gates and "FakeQuantize" not in read


def test_nvdla_leaves_the_stop_to_the_gpu_and_runs_the_rest_of_it(artifacts: Artifacts) -> None:
    off = {}
    for family in ("mdpose", "recurrent"):
        source = load_source(artifacts.of(family).bundle("onnx"))
        found = dry_run(source.graph, precision="fp16", tensorrt=(8, 6, 2))
        off[family] = {item.op: item.reason for item in found.off_nvdla}
    assert off["recurrent"].keys() - off["mdpose"].keys() == {"ReduceMax"}
    assert "largest value of a whole map" in off["recurrent"]["ReduceMax"]
