"""A family that the package has never heard of goes the whole way; all of it is in tests/unit/families/template/."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")

import torch

from mdpose_edge.calib.make import make_calibration_set
from mdpose_edge.check.gate import check
from mdpose_edge.check.report import render
from mdpose_edge.checkpoint import load_network, save_checkpoint
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.evaluate import coco_figures, evaluate, figure_names
from mdpose_edge.export.bundle import export_checkpoint
from mdpose_edge.export.options import ExportOptions
from mdpose_edge.families.registry import FAMILIES, evaluation_options, training_of
from mdpose_edge.runtimes.registry import read_model_spec
from mdpose_edge.spec import NO_KEYPOINTS, InputSpec
from mdpose_edge.train.config import AugmentConfig, read_config
from mdpose_edge.train.log import read_csv
from mdpose_edge.train.loop import train
from mdpose_edge.train.validation import Validation
from mdpose_edge.triton.repository import write_repository
from mdpose_edge.view.hub import Hub, InferredFrame, describe
from tests.command import Run, command_runner

SIZE = 64


@pytest.fixture(scope="module", autouse=True)
def template_family() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "template", "tests.unit.families.template")
        yield


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return command_runner(monkeypatch, capsys)


@pytest.fixture(scope="module")
def run_folder(crude_people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("template") / "run"
    options = {
        "family": "template", "input": {"height": SIZE, "width": SIZE}, "loss": {"size_weight": 0.5},
        "augment": {"rotation_prob": 0.0, "expand_prob": 0.0, "crop_prob": 0.0},
        "optimizer": {"name": "adamw", "lr": 3.0e-3}, "schedule": {"iterations": 20, "kind": "cosine"},
        "batch_size": 8, "pretrained": False, "workers": 0, "log_every": 5, "eval_every": 10, "picture_every": 20,
    }  # fmt: skip
    config = read_config(options, "test")
    assert config.augment == AugmentConfig(rotation_prob=0.0, expand_prob=0.0, crop_prob=0.0)
    decode = evaluation_options(config.family)
    train(config, crude_people, out, validation=Validation(crude_people, "train", decode, coco_figures, figure_names))
    return out


@pytest.fixture(scope="module")
def calibration(crude_people: Path, run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training pictures, brighter and darker: 102 that differ."""
    folder = tmp_path_factory.mktemp("template")
    (folder / "images").mkdir()
    for path in sorted((crude_people / "train2017").iterdir())[:3]:
        small = cv2.resize(cv2.imread(str(path)), (SIZE, SIZE))
        for step in range(34):
            picture = cv2.convertScaleAbs(small, alpha=0.5 + step / 60)
            assert cv2.imwrite(str(folder / "images" / f"{path.stem}-{step}.png"), picture)
    size = read_model_spec(run_folder / "model.safetensors").input
    make_calibration_set(folder / "images", folder / "set", size, num=102)
    return folder / "set"


@pytest.fixture(scope="module")
def bundles(run_folder: Path, calibration: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, model = tmp_path_factory.mktemp("template"), run_folder / "model.safetensors"
    options = {
        "onnx": ExportOptions("onnx"),
        "openvino": ExportOptions("openvino"),
        "int8": ExportOptions("onnx", "int8", calib=calibration),
        "tensorrt": ExportOptions("tensorrt", "int8", calib=calibration),
    }
    return {name: export_checkpoint(model, folder / name, chosen).path for name, chosen in options.items()}


def test_it_trains_and_its_log_has_its_columns(run_folder: Path) -> None:
    rows = read_csv(run_folder / "log.csv")
    assert len(rows) == 20 and float(rows[-1]["loss"]) < 0.5 * float(rows[0]["loss"])
    for row in rows:
        assert float(row["loss"]) == pytest.approx(float(row["centre"]) + float(row["size"]), rel=1e-4)
    assert [bool(row["centres"]) for row in rows] == [False, False, False, False, True] * 4
    assert [row["iteration"] for row in read_csv(run_folder / "eval.csv")] == ["10", "20"]
    assert (run_folder / "curves.png").is_file() and list((run_folder / "pictures").iterdir())


def test_every_engine_says_the_same(bundles: dict[str, Path], run_folder: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    wanted = None
    for model in (run_folder / "model.safetensors", bundles["onnx"], bundles["openvino"]):
        with PoseEstimator(model, threshold=0.01) as estimator:
            poses = estimator(frame)
        wanted = wanted or poses
        assert len(poses) and len(poses) == len(wanted)
        np.testing.assert_allclose(poses.keypoints_xy, wanted.keypoints_xy, atol=0.01)


def test_it_is_evaluated(bundles: dict[str, Path], crude_people: Path) -> None:
    found = evaluate(bundles["openvino"], crude_people, "train", limit=8)
    assert found.figures["AP"] is not None and found.results


def test_the_gate_judges_it_by_what_any_model_has(bundles: dict[str, Path], crude_people: Path) -> None:
    found = check(bundles["openvino"], bundles["onnx"], crude_people, "train", limit=8, threads=1)
    assert found.verdict.held, found.verdict.sentence()
    findings = {finding.key: finding for finding in found.verdict.findings}
    assert findings["output_error"].held and "AP" in findings and not findings.keys() & {"nll", "component_kl"}
    assert set(found.to_json_dict()["outputs"]) == {"centre", "size"} and "centre" in render(found)


def test_it_is_inferred_on_pictures(bundles: dict[str, Path], crude_people: Path, run: Run, tmp_path: Path) -> None:
    picture = sorted((crude_people / "train2017").iterdir())[0]
    out = tmp_path / "poses.jsonl"
    code, _, err = run("infer", bundles["int8"], picture, "--jsonl", out, "--threshold", "0.01", "--track")
    assert code == 0, err
    (line,) = out.read_text().splitlines()
    pose = json.loads(line)["poses"][0]
    assert np.array(pose["sigma_xy"]).shape == (17, 2) and "track_id" in pose


def test_triton_serves_it_without_the_package(bundles: dict[str, Path], tmp_path: Path) -> None:
    repository = write_repository(bundles["onnx"], tmp_path / "repository")
    folder = repository / "pose_decode" / "1"
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        "sys.modules.update(dict.fromkeys(('torch', 'cv2', 'typer')))\n"
        "import json, pathlib, importlib\n"
        "from mdpose_edge.spec import ModelSpec\n"
        f"spec = ModelSpec.from_json(pathlib.Path({str(folder / 'spec.json')!r}).read_text())\n"
        f"vendored = json.loads(pathlib.Path({str(folder / 'vendored.json')!r}).read_text())\n"
        "decode = importlib.import_module(vendored['decoder'])\n"
        "print(decode.__file__, type(decode.make_decoder(spec, spec.decode)).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(folder / "tests/unit/families/template/decode.py"), "TemplateDecoder"]


def test_accuracy_control_finds_the_layer_at_fault_by_the_error_of_its_outputs(
    run_folder: Path, calibration: Path, crude_people: Path, tmp_path: Path
) -> None:
    network, spec = load_network(run_folder / "model.safetensors")
    with torch.no_grad():  # one channel is so large that its scale drowns the others
        network.neck[0].weight[0] *= 1000
        network.neck[0].bias[0] = 1000
        network.neck[2].weight[:, 0] = 0
    save_checkpoint(tmp_path / "hard.safetensors", spec, network.state_dict())
    options = ExportOptions(
        "onnx", "int8", calib=calibration, val_data=crude_people, val_split="train", max_drop=0.5,
        report=tmp_path / "page",
    )  # fmt: skip
    control = export_checkpoint(tmp_path / "hard.safetensors", tmp_path / "bundle", options).report["accuracy_control"]
    returned = [layer["nodes"][0] for layer in control["layers"] if layer["returned_to_float"]]
    assert control["trials"][0]["held"] is False and returned[0].startswith("/neck/")
    assert "cost alone, % of the spread of the outputs" in (tmp_path / "page" / "index.html").read_text()


def test_the_gate_lets_an_export_of_boxes_alone_through(calibration: Path, crude_people: Path, tmp_path: Path) -> None:
    training = training_of("template")
    spec = training.make_spec(training.network_config(), InputSpec(SIZE, SIZE), NO_KEYPOINTS)
    save_checkpoint(tmp_path / "boxes.safetensors", spec, training.network(spec).state_dict())
    options = {"calib": calibration, "val_data": crude_people, "val_split": "train", "val_limit": 8}
    done = export_checkpoint(tmp_path / "boxes.safetensors", tmp_path / "out", ExportOptions("onnx", "int8", **options))
    assert {finding["key"] for finding in done.report["gate"]["findings"]} >= {
        "settings", "calibration_images", "swapped_colours", "output_error", "AP", "box_iou",
    }  # fmt: skip


def test_the_view_shows_it(bundles: dict[str, Path]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    with PoseEstimator(bundles["onnx"], threshold=0.01) as estimator:
        poses, keypoints = estimator(frame), estimator.spec.keypoints
    about = describe(
        model="m", engine="onnxruntime", precision="fp32", source="s", threshold=0.01, start=0.01, stages=["engine"],
        keypoints=keypoints, tracked=False,
    )  # fmt: skip
    hub = Hub(about)
    messages = hub.watch()
    next(messages)
    hub.show(InferredFrame(0, frame, poses, None, {"engine": 1.0}, 2.0, 0))
    message = next(messages)
    assert len(json.loads(message[8 : 8 + int.from_bytes(message[:4], "big")])["poses"]) == len(poses) > 0
    hub.end("over")
