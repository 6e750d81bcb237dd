"""From training to the gate, on drawn people in half a minute."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")

from mdpose_edge.check.gate import check
from mdpose_edge.checkpoint import read_checkpoint
from mdpose_edge.export.bundle import export_checkpoint
from mdpose_edge.export.options import ExportOptions
from mdpose_edge.families.das.training import FAMILY
from mdpose_edge.nvdla.dry_run import dry_run, load_source
from mdpose_edge.synth.dataset import write_dataset
from mdpose_edge.train.config import read_config
from mdpose_edge.train.log import read_csv
from mdpose_edge.train.loop import train
from tests.artifacts import Artifacts


@pytest.fixture(scope="module")
def drawn_people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "people"
    write_dataset(folder, train_images=16, val_images=0, size=96, people=(1, 2), occlusion=0.0, variety=0.0, seed=5)
    return folder


@pytest.fixture(scope="module")
def run_folder(drawn_people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("das") / "run"
    options = {
        "family": "das", "input": {"height": 64, "width": 64},
        "network": {"backbone": "test_resnet", "channels": 16, "head_convs": 2},
        "loss": {"laplace_first": 15},
        "augment": {"rotation_prob": 0.0, "expand_prob": 0.0, "crop_prob": 0.0, "mosaic": 2, "mosaic_prob": 0.1},
        "optimizer": {"name": "adamw", "lr": 3.0e-3}, "schedule": {"iterations": 30, "kind": "cosine"},
        "batch_size": 8, "pretrained": False, "workers": 0, "log_every": 10,
    }  # fmt: skip
    train(read_config(options, "test"), drawn_people, out)
    return out


def test_it_trains_and_its_log_has_its_columns(run_folder: Path) -> None:
    rows = read_csv(run_folder / "log.csv")
    assert float(rows[-1]["loss"]) < 0.8 * float(rows[0]["loss"])
    for row in rows:
        assert float(row["loss"]) == pytest.approx(sum(float(row[part]) for part in FAMILY.parts), rel=1e-3)
    assert sum(float(row["error_dz"]) > 0 for row in rows if row["error_dz"]) == 3
    constants = read_checkpoint(run_folder / "model.safetensors").spec.constants
    assert all(factor not in (0.0, 1.0) for factor in constants["sigma_factors"])
    assert constants["root"] == [11, 12]


def test_the_gate_measures_its_depths(run_folder: Path, drawn_people: Path, tmp_path: Path) -> None:
    model = run_folder / "model.safetensors"
    bundles = [
        export_checkpoint(model, tmp_path / target, ExportOptions(target)).path for target in ("onnx", "openvino")
    ]
    found = check(bundles[1], bundles[0], drawn_people, "train", limit=8, threads=1)
    assert found.verdict.held, found.verdict.sentence()
    findings = {finding.key: finding for finding in found.verdict.findings}
    assert all(findings[key].held for key in ("nll", "component_kl", "root_depth_mm", "joints_3d_mm", "output_error"))
    assert findings["root_depth_mm"].change is not None and findings["root_depth_mm"].change < 1.0
    assert findings["mpjpe_mm"].held is not False
    assert set(found.to_json_dict()["outputs"]) == set(read_checkpoint(model).spec.outputs)


def test_other_weights_fall_at_the_gate(
    run_folder: Path, drawn_people: Path, tmp_path: Path, artifacts: Artifacts
) -> None:
    reference = export_checkpoint(run_folder / "model.safetensors", tmp_path / "onnx", ExportOptions("onnx")).path
    found = check(artifacts.of("das").bundle("onnx"), reference, drawn_people, "train", limit=4, threads=1)
    findings = {finding.key: finding for finding in found.verdict.findings}
    assert findings["nll"].held is False or findings["component_kl"].held is False


def test_nvdla_runs_what_it_runs_of_mdpose(artifacts: Artifacts) -> None:
    off = {}
    for family in ("mdpose", "das"):
        source = load_source(artifacts.of(family).bundle("onnx"))
        found = dry_run(source.graph, precision="fp16", tensorrt=(8, 6, 2))
        off[family] = {item.op for item in found.off_nvdla}
    assert off["das"] <= off["mdpose"], off
