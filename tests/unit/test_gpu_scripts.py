"""scripts/gpu goes its whole way without a GPU: prepare, dry run, Markdown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.artifacts import Artifacts
from tests.unit.trt.stand_ins import write_packages

for package in ("torch", "timm", "onnx", "onnxruntime", "openvino", "faster_coco_eval"):
    pytest.importorskip(package)

ROOT = Path(__file__).parents[2]
STEPS = {"about", "machine", "build", "conformance", "accuracy", "latency", "mismatch"}


def run(module: str, *words: object, packages: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"scripts.gpu.{module}", *map(str, words)]
    paths = [str(path) for path in (ROOT, packages) if path is not None]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)


@pytest.fixture(scope="module")
def inputs(artifacts: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gpu") / "inputs"
    result = run("prepare", artifacts.checkpoint(), out, "--images", 2, "--calibration-images", 2, "--people", 1, 2)
    assert result.returncode == 0, result.stderr
    return out


@pytest.fixture(scope="module")
def proved(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gpu") / "out"
    words = ["--dry-run", "--rounds", 2, "--calls", 2, "--torch-python", sys.executable]
    result = run("prove_tensorrt", inputs, out, *words)
    assert result.returncode == 0, result.stderr
    return out


@pytest.fixture(scope="module")
def report(proved: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((proved / "prove.json").read_text())
    return found


def test_every_step_ran_and_says_what_it_left_out(report: dict[str, Any]) -> None:
    assert report.keys() == STEPS
    assert report["about"]["dry_run"] is True
    silent = {name for name, step in report.items() if "not_run" not in step} - {"about", "build"}
    assert silent == set()
    assert all("not_run" in engine for engine in report["build"].values() if isinstance(engine, dict))


def test_the_recipes_ask_for_int8_in_the_backbone(report: dict[str, Any]) -> None:
    asked = {
        name: engine["backbone"]["asked_in_int8"] / engine["backbone"]["convolutions"]
        for name, engine in report["build"].items()
        if isinstance(engine, dict)
    }
    assert asked == {"bundles/fp16-1": 0, "bundles/fp16-8": 0, "bundles/int8-1": 1, "bundles/int8-8": 1}


def test_the_suite_passes_against_recorded_answers(report: dict[str, Any]) -> None:
    suite = report["conformance"]
    assert suite["tests"] > 40
    assert suite["failed_tests"] == []
    assert suite["failures"] == suite["errors"] == suite["skipped"] == 0


def test_engines_and_torch_are_timed_in_turn(report: dict[str, Any]) -> None:
    table = report["latency"]["table"]
    assert len(table) == 6
    assert {"torch, batch 1", "torch, batch 8"} < table.keys()
    assert all(row["calls"] == 4 and 0 < row["p50_ms"] <= row["p99_ms"] for row in table.values())


def test_on_stand_ins_every_step_goes_its_real_way(inputs: Path, tmp_path: Path) -> None:
    """TensorRT and pycuda are the stand-ins of tests/unit/trt here; all else is what a GPU machine runs."""
    out, packages = tmp_path / "out", write_packages(tmp_path / "packages", "8.5.1")
    result = run("prove_tensorrt", inputs, out, "--rounds", 1, "--calls", 1, packages=packages)
    assert result.returncode == 0, result.stderr
    report = json.loads((out / "prove.json").read_text())
    assert report["machine"]["host"]["tensorrt"] == "8.5.1"
    assert not any("failed" in step or "not_run" in step for step in report.values())
    for name, engine in report["build"].items():
        if isinstance(engine, dict):
            assert engine["backbone"]["wider_than_asked"] == [], name
            assert json.loads((out / engine["inspector"]).read_text())["Layers"]
    suite = report["conformance"]
    assert suite["tests"] > 40
    assert suite["failed_tests"] == []
    assert suite["skipped"] == 0
    assert len(report["latency"]["table"]) == 4
    assert len(report["mismatch"]["cases"]) == 4
    assert run("render", out, "--inputs", inputs).stdout.startswith("## TensorRT 8.5.1 on NVIDIA Test GPU\n")


def test_an_engine_that_is_refused_is_described_and_the_other_steps_go_on(inputs: Path, tmp_path: Path) -> None:
    out, packages = tmp_path / "out", write_packages(tmp_path / "packages", "8.5.1", error=1e3)
    words = ["--rounds", 1, "--calls", 1, "--torch-python", sys.executable]
    result = run("prove_tensorrt", inputs, out, *words, packages=packages)
    assert result.returncode == 1
    report = json.loads((out / "prove.json").read_text())
    for engine in ("fp16-1", "int8-8"):
        found = report["build"][f"bundles/{engine}"]
        assert found["failed"].startswith("mdpose-edge: self-test of o_p3: expected a largest error of at most")
        assert json.loads((out / f"inspector-{engine}.json").read_text())["Layers"]
    assert report["latency"]["table"].keys() == {"torch, batch 1", "torch, batch 8"}
    assert "tensorrt int8, batch 8: EngineError: " in report["latency"]["failed"]
    assert "nothing to spoil" in report["mismatch"]["failed"]
    rendered = run("render", out, "--inputs", inputs)
    assert rendered.returncode == 1
    short = "build, accuracy, latency, mismatch, accuracy in fp16, accuracy in int8"
    assert f"Short of its aim: {short}." in rendered.stdout.replace("conformance, ", "")


def test_torch_computes_the_exported_network(inputs: Path, artifacts: Artifacts, tmp_path: Path) -> None:
    """Given the weights, the rebuilt network gives what the exported graph gives: what is timed is the same work."""
    import onnx
    import torch

    from mdpose_edge.runtimes.registry import open_engine
    from scripts.gpu.torch_worker import ExportedNetwork

    network = ExportedNetwork(json.loads((inputs / "network.json").read_text()))
    bundle = artifacts.bundle("onnx")
    for tensor in onnx.load(bundle / "model.onnx").graph.initializer:
        value = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
        getattr(network, network._names[tensor.name]).copy_(value)
    spec, adapter = open_engine(bundle, threads=1)
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    with adapter, torch.inference_mode():
        expected = adapter.infer(images)
        found = dict(zip(spec.outputs, network(torch.from_numpy(images)), strict=True))
    for name, tensor in expected.items():
        np.testing.assert_allclose(found[name].numpy(), tensor, atol=1e-4 * np.abs(tensor).max())


def test_spoilt_engines_are_refused(report: dict[str, Any]) -> None:
    cases = report["mismatch"]["cases"]
    assert len(cases) == 4
    assert all(case["refused"] and "expected" in case["sentence"] for case in cases.values())


def test_the_section_of_a_dry_run_cannot_be_taken_for_a_measurement(proved: Path, inputs: Path) -> None:
    result = run("render", proved, "--inputs", inputs)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.startswith("## Dry run of scripts/gpu: no GPU")
    assert "NOT A MEASUREMENT" in result.stdout
    assert "Every aim was met." in result.stdout
    assert str(proved.parent) not in result.stdout


def test_a_lost_point_and_a_failed_step_are_named(proved: Path, inputs: Path, tmp_path: Path) -> None:
    report = json.loads((proved / "prove.json").read_text())
    report["accuracy"]["reference"]["AP"] = 0.9
    for precision in ("fp16", "int8"):
        report["accuracy"][precision]["figures"]["AP"] = 0.896  # 0.4 points less
    report["latency"] = {"failed": "ValueError: no torch"}
    (tmp_path / "prove.json").write_text(json.dumps(report))
    result = run("render", tmp_path, "--inputs", inputs)
    assert result.returncode == 1
    assert "Short of its aim: latency, accuracy in fp16.\n" in result.stdout


def test_inputs_that_arrived_damaged_are_not_proved(inputs: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "inputs"
    shutil.copytree(inputs, copy)
    graph = copy / "bundles" / "int8-1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    result = run("prove_tensorrt", copy, tmp_path / "out", "--dry-run", "--rounds", 1, "--calls", 1)
    assert result.returncode == 1
    assert "bundles/int8-1/model.onnx arrived damaged: bring it again" in result.stderr
