"""From training to the gate and the server, on crude people in seconds."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")

from mdpose_edge.bundle import open_bundle
from mdpose_edge.check.gate import check, record
from mdpose_edge.checkpoint import read_checkpoint, save_checkpoint
from mdpose_edge.common.side_files import read_side_files
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.export.bundle import export_checkpoint
from mdpose_edge.export.options import ExportOptions
from mdpose_edge.families.adaptive.training import FAMILY
from mdpose_edge.nvdla.dry_run import dry_run, load_source
from mdpose_edge.train.config import read_config
from mdpose_edge.train.log import read_csv
from mdpose_edge.train.loop import train
from mdpose_edge.triton.repository import write_repository
from tests.artifacts import Artifacts
from tests.command import Run, command_runner

OPTIONS: dict[str, Any] = {
    "family": "adaptive", "input": {"height": 64, "width": 64},
    "network": {"backbone": "test_resnet", "neck": "pyramid", "channels": 16, "heat_channels": 16,
                "channels_per_keypoint": 2},
    "loss": {"heat_sigma": 1.0, "centre_sigma": 1.5, "offset_radius": 1.5, "least_side": 0.0, "fit_images": 100},
    "augment": {"rotation_prob": 0.0, "expand_prob": 0.0, "crop_prob": 0.0},
    "optimizer": {"name": "adamw", "lr": 5.0e-3}, "schedule": {"iterations": 80, "kind": "cosine"},
    "batch_size": 8, "pretrained": False, "workers": 0, "log_every": 20,
}  # fmt: skip


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return command_runner(monkeypatch, capsys)


@pytest.fixture(scope="module")
def run_folder(crude_people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adaptive") / "run"
    train(read_config(OPTIONS, "test"), crude_people, out)
    return out


@pytest.fixture(scope="module")
def bundle(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adaptive") / "bundle"
    return export_checkpoint(run_folder / "model.safetensors", folder, ExportOptions("onnx")).path


def test_it_trains_and_its_log_has_its_columns(run_folder: Path) -> None:
    rows = read_csv(run_folder / "log.csv")
    assert float(rows[-1]["loss"]) < 0.8 * float(rows[0]["loss"])
    for row in rows:
        assert float(row["loss"]) == pytest.approx(sum(float(row[part]) for part in FAMILY.parts), rel=1e-4)
    heights = [float(row["heat_at_keypoints"]) for row in rows if row["heat_at_keypoints"]]
    assert len(heights) == 4 and heights[-1] > heights[0]


def test_the_model_holds_what_was_fitted(run_folder: Path, bundle: Path) -> None:
    checkpoint = read_checkpoint(run_folder / "model.safetensors")
    slopes = checkpoint.spec.constants["sigma"]["slopes"]
    assert len(checkpoint.spec.constants["sigma"]["offsets"]) == 17 and len(slopes) == 2
    assert checkpoint.spec.constants["scorer"] is not None
    assert sorted(checkpoint.side["scorer"]) == sorted(f"l{i}.{part}" for i in (1, 2, 3) for part in ("bias", "weight"))
    assert not any("scorer" in name for name in checkpoint.weights)
    opened = open_bundle(bundle)
    side = read_side_files(bundle, opened.spec.files)
    for name, tensor in checkpoint.side["scorer"].items():
        np.testing.assert_array_equal(side["scorer"][name], tensor.numpy())


def test_checkpoint_bundle_and_server_score_alike(run_folder: Path, bundle: Path, tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    with PoseEstimator(run_folder / "model.safetensors", threshold=0.0) as estimator:
        expected = estimator(frame)
    with PoseEstimator(bundle, threshold=0.0) as estimator:
        found = estimator(frame)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    repository = write_repository(bundle, tmp_path / "repository")
    (folder,) = (path.parent for path in repository.rglob("scorer.safetensors"))
    assert "scorer.safetensors" in json.loads((folder / "vendored.json").read_text())["files"]
    from mdpose_edge.triton import server_model

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "triton_python_backend_utils", type(sys)("triton_python_backend_utils"))
        patch.setattr(sys, "path", list(sys.path))
        model = server_model.TritonPythonModel()
        model.initialize({"model_repository": str(folder.parent), "model_version": folder.name})
        assert model._step is not None
        (folder / "scorer.safetensors").write_bytes(b"other")
        with pytest.raises(RuntimeError, match="scorer"):
            model.initialize({"model_repository": str(folder.parent), "model_version": folder.name})


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_scorer_that_is_not_what_was_written_is_one_sentence(
    damage: str, bundle: Path, crude_people: Path, run: Run, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    scorer = copy / "scorer.safetensors"
    scorer.unlink() if damage == "missing" else scorer.write_bytes(scorer.read_bytes()[:-4] + b"abcd")
    picture = sorted((crude_people / "train2017").iterdir())[0]
    code, _, err = run("infer", copy, picture, "--jsonl", tmp_path / "out.jsonl")
    assert code == 2 and "scorer.safetensors" in err and err.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_the_gate_measures_its_peaks(run_folder: Path, bundle: Path, crude_people: Path, tmp_path: Path) -> None:
    other = export_checkpoint(run_folder / "model.safetensors", tmp_path / "openvino", ExportOptions("openvino")).path
    found = check(other, bundle, crude_people, "train", limit=8, threads=1)
    assert found.verdict.held, found.verdict.sentence()
    findings = {finding.key: finding for finding in found.verdict.findings}
    assert findings["peak_shift_px"].held and findings["absorb_flips"].held
    record(bundle, tmp_path / "recorded.npz", crude_people, "train", limit=4)
    again = check(other, tmp_path / "recorded.npz", crude_people, "train", limit=4, threads=1)
    assert again.verdict.held, again.verdict.sentence()


def test_moved_peaks_fall_at_the_gate(run_folder: Path, bundle: Path, crude_people: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(run_folder / "model.safetensors")
    weights = dict(checkpoint.weights)
    weights["heads.heat.weight"] = weights["heads.heat.weight"].roll(1, dims=0)
    weights["heads.heat.bias"] = weights["heads.heat.bias"].roll(1, dims=0)
    save_checkpoint(tmp_path / "other.safetensors", checkpoint.spec, weights, side=checkpoint.side)
    found = check(tmp_path / "other.safetensors", bundle, crude_people, "train", limit=8, threads=1)
    findings = {finding.key: finding for finding in found.verdict.findings}
    assert findings["peak_shift_px"].held is False or findings["absorb_flips"].held is False


def test_a_model_without_a_scorer_goes_the_same_way(run_folder: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(run_folder / "model.safetensors")
    spec = replace(checkpoint.spec, constants={**checkpoint.spec.constants, "scorer": None})
    save_checkpoint(tmp_path / "bare.safetensors", spec, checkpoint.weights)
    path = export_checkpoint(tmp_path / "bare.safetensors", tmp_path / "bundle", ExportOptions("onnx")).path
    assert "scorer.safetensors" not in open_bundle(path).spec.files
    with PoseEstimator(path, threshold=0.0) as estimator:
        estimator(np.zeros((64, 64, 3), np.uint8))


def test_nvdla_refuses_the_sampling_and_takes_what_stands_in_for_it(artifacts: Artifacts, tmp_path: Path) -> None:
    off = {item.op: item.reason for item in _dry_run(artifacts.of("adaptive").bundle("onnx"))}
    assert "adaptive=bank" in off["GridSample"]
    allowed = {item.op for item in _dry_run(artifacts.bundle("onnx"))}
    for kind in ("bank", "none"):
        options = {**OPTIONS["network"], "adaptive": kind, "channels_per_keypoint": 4}
        config = FAMILY.network_config(**options)
        from mdpose_edge.spec import COCO_KEYPOINTS, InputSpec

        spec = FAMILY.make_spec(config, InputSpec(64, 64), COCO_KEYPOINTS)
        save_checkpoint(tmp_path / f"{kind}.safetensors", spec, FAMILY.network(spec).state_dict())
        bundle = export_checkpoint(tmp_path / f"{kind}.safetensors", tmp_path / kind, ExportOptions("onnx")).path
        assert {item.op for item in _dry_run(bundle)} <= allowed


def _dry_run(bundle: Path) -> Any:
    return dry_run(load_source(bundle).graph, precision="fp16", tensorrt=(8, 6, 2)).off_nvdla
