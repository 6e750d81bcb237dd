"""Boxes from training to the gate, the files and Triton, on drawn shapes in seconds."""

from __future__ import annotations

import csv
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
pytest.importorskip("faster_coco_eval")

from mdpose_edge.calib.make import make_calibration_set
from mdpose_edge.check.gate import check
from mdpose_edge.checkpoint import read_checkpoint
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.evaluate import BOX_FIGURES, evaluate
from mdpose_edge.export.bundle import export_checkpoint
from mdpose_edge.export.options import ExportOptions
from mdpose_edge.triton.repository import write_repository
from tests.command import Run, command_runner

SIZE, IMAGES = 64, 12
CATEGORIES = [{"id": 3, "name": "square"}, {"id": 17, "name": "disc"}]
CONFIG = """
family: mixture_dense
input: {height: 64, width: 64}
data: {format: instances}
network: {backbone: test_resnet, channels: 16, head_channels: 16, components: 2, heatmaps: false}
augment: {rotation_prob: 0.0, expand_prob: 0.0, crop_prob: 0.0}
optimizer: {name: adamw, lr: 3.0e-3}
schedule: {iterations: 120, kind: cosine}
batch_size: 8
pretrained: false
precision: fp32
workers: 0
log_every: 40
eval_every: 60
picture_every: 120
"""


def write_shapes(folder: Path, split: str, count: int = IMAGES) -> None:
    """Draw a bright square and a dark disc on grey in each picture, in COCO's layout."""
    rng = np.random.default_rng(5)
    (folder / f"{split}2017").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        canvas = np.full((SIZE, SIZE, 3), 128, np.uint8)
        name = f"{number:012d}.png"
        for row, category in enumerate(CATEGORIES):
            side = int(rng.integers(12, 26))
            x, y = int(rng.integers(0, SIZE - side)), 2 + 32 * row + int(rng.integers(0, 30 - side))
            if row:
                half = side // 2
                cv2.circle(canvas, (x + half, y + half), half, (20, 20, 60), cv2.FILLED)
            else:
                cv2.rectangle(canvas, (x, y), (x + side, y + side), (220, 240, 250), cv2.FILLED)
            box = {"bbox": [x, y, side, side], "area": side * side, "iscrowd": 0}
            record = {"id": len(annotations) + 1, "image_id": number, "category_id": category["id"], **box}
            annotations.append(record)
        cv2.imwrite(str(folder / f"{split}2017" / name), canvas)
        images.append({"id": number, "file_name": name, "width": SIZE, "height": SIZE})
    (folder / "annotations").mkdir(exist_ok=True)
    document = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (folder / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(document))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    for split in ("train", "val"):
        write_shapes(folder, split)
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return command_runner(monkeypatch, capfd)


@pytest.fixture(scope="module")
def run_folder(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("boxes")
    (folder / "shapes.yaml").write_text(CONFIG)
    words = ["train", str(folder / "shapes.yaml"), "--data", str(shapes), "--out", str(folder / "run")]
    done = subprocess.run([sys.executable, "-m", "mdpose_edge", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def bundle(run_folder: Path) -> Path:
    return export_checkpoint(run_folder / "model.safetensors", run_folder / "onnx", ExportOptions("onnx")).path


def test_it_learns_and_is_evaluated_by_the_protocol_of_boxes(run_folder: Path, shapes: Path) -> None:
    with (run_folder / "eval.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["iteration"] for row in rows] == ["60", "120"] and set(BOX_FIGURES) < set(rows[0])
    assert float(rows[-1]["AP50"]) > 0.5, rows[-1]
    assert read_checkpoint(run_folder / "model.safetensors").spec.classes == ("square", "disc")
    assert len(list((run_folder / "pictures").glob("*.jpg"))) == 1
    found = evaluate(run_folder / "model.safetensors", shapes)
    assert found.format == "instances" and found.figures["AP"] == pytest.approx(float(rows[-1]["AP"]), abs=2e-3)
    assert {row["category_id"] for row in found.results} == {3, 17} and "bbox" in found.results[0]


def test_the_gate_measures_its_boxes(bundle: Path, run_folder: Path, shapes: Path) -> None:
    other = export_checkpoint(run_folder / "model.safetensors", run_folder / "ir", ExportOptions("openvino")).path
    found = check(other, bundle, shapes, threads=1)
    assert found.verdict.held, found.verdict.sentence()
    findings = {finding.key: finding for finding in found.verdict.findings}
    wanted = ("AP", "AP50", "AR100", "AP_deployed", "box_iou", "score_shift", "output_error")
    assert all(findings[key].held for key in (*wanted, "nll", "component_kl", "weight_kl"))
    assert findings["APL"].held is None


def test_results_on_file_are_a_reference(bundle: Path, shapes: Path, tmp_path: Path, run: Run) -> None:
    results = tmp_path / "results.json"
    for _ in range(2):  # the second takes the place of what the first has made
        code, out, err = run("eval", bundle, "--data", shapes, "--results", results)
        assert code == 0 and "AR100" in out, err
    found = check(bundle, results, shapes, threads=1)
    findings = {finding.key: finding for finding in found.verdict.findings}
    assert found.verdict.held and findings["AP"].change == pytest.approx(0.0, abs=0.1)
    assert findings["box_iou"].held and findings["nll"].held is None if "nll" in findings else True


def test_int8_passes_the_gate_or_returns_layers_to_float(run_folder: Path, tmp_path: Path) -> None:
    model = run_folder / "model.safetensors"
    spec = read_checkpoint(model).spec
    write_shapes(tmp_path, "calib", 100)
    make_calibration_set(tmp_path / "calib2017", tmp_path / "calib", spec.input, num=100)
    write_shapes(tmp_path / "more", "val", 80)  # scores of a dozen pictures are apart by a tenth where one box differs
    options = {"calib": tmp_path / "calib", "val_data": tmp_path / "more", "max_drop": 5.0}
    done = export_checkpoint(model, tmp_path / "int8", ExportOptions("onnx", "int8", **options))
    findings = {finding["key"]: finding for finding in done.report["gate"]["findings"]}
    assert done.report["gate"]["held"] and findings["AP"]["held"] and findings["box_iou"]["held"]


def test_files_name_each_box_and_its_class(bundle: Path, shapes: Path, tmp_path: Path, run: Run) -> None:
    names = {option: tmp_path / f"out.{option}" for option in ("csv", "jsonl", "coco")}
    words = [word for option, path in names.items() for word in (f"--{option}", path)]
    truth = shapes / "annotations" / "instances_val2017.json"
    code, _, err = run(
        "infer", bundle, shapes / "val2017", *words, "--ids-from", truth, "--out", tmp_path / "painted",
        "--threshold", "0.1",
    )  # fmt: skip
    assert code == 0, err
    rows = json.loads(names["coco"].read_text())
    assert {row["category_id"] for row in rows} == {3, 17}
    listed = json.loads((tmp_path / "out.images.json").read_text())
    assert listed["categories"] == CATEGORIES
    lines = list(csv.DictReader(names["csv"].read_text().splitlines()))
    assert {(line["class"], line["class_name"]) for line in lines} == {("0", "square"), ("1", "disc")}
    poses = json.loads(names["jsonl"].read_text().splitlines()[0])["poses"]
    assert {pose["class_name"] for pose in poses} <= {"square", "disc"} and len(poses[0]["box_xyxy"]) == 4
    assert len(list((tmp_path / "painted").iterdir())) == IMAGES
    code, _, _ = run("infer", bundle, shapes / "val2017" / "000000000001.png", "--coco", tmp_path / "plain.json")
    assert code == 0 and {row["category_id"] for row in json.loads((tmp_path / "plain.json").read_text())} <= {1, 2}
    code, _, err = run("infer", bundle, shapes / "val2017", "--csv", tmp_path / "x.csv", "--track")
    assert code == 2 and "expected a model with keypoints" in err and not (tmp_path / "x.csv").exists()


def test_triton_serves_boxes_and_classes(bundle: Path, tmp_path: Path) -> None:
    from mdpose_edge.families.registry import make_decoder
    from mdpose_edge.triton.decode_step import FRAME_WH, DecodeStep

    config = next(write_repository(bundle, tmp_path / "repository").glob("*_decode/config.pbtxt")).read_text()
    assert '"boxes_xyxy"' in config and '"classes"' in config
    with PoseEstimator(bundle) as estimator:
        heads = estimator.infer(np.zeros((1, SIZE, SIZE, 3), np.uint8), {})
        step = DecodeStep(estimator.spec, make_decoder(estimator.spec))
        found = step({**heads, FRAME_WH: np.array([[SIZE, SIZE]], np.int32)})
        poses = estimator(np.zeros((SIZE, SIZE, 3), np.uint8))
    assert found["count"][0, 0] == len(poses) and found["classes"].shape == (1, estimator.spec.decode.max_poses)


def test_other_categories_are_refused(bundle: Path, shapes: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "val2017").symlink_to(shapes / "val2017")
    (tmp_path / "annotations").mkdir()
    data = json.loads((shapes / "annotations" / "instances_val2017.json").read_text())
    data["categories"][1]["name"] = "cat"
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(data))
    code, _, err = run("eval", bundle, "--data", tmp_path, "--results", tmp_path / "out.json")
    assert code == 2 and "expected the categories square, disc, got square, cat, without disc" in " ".join(err.split())
    assert not (tmp_path / "out.json").exists()
