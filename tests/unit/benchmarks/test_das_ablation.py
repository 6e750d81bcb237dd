"""The ablation of 3-D pose: five ways in one table, and a finished run is not trained again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("faster_coco_eval")

from benchmarks.das_ablation import SHOWN, WAYS, config_of, main
from mdpose_edge.synth.dataset import write_dataset


def test_the_ways_differ_as_the_papers_do() -> None:
    configs = {way: config_of(way, 10, []) for way in WAYS}
    kinds = {way: (c.loss.center, c.loss.likelihood, c.network.updates) for way, c in configs.items()}
    assert len(set(kinds.values())) == 5
    assert kinds["box"] == ("box", "l1", 0) and kinds["root, update, likelihood"] == ("root", "flow", 1)


def test_a_way_is_trained_once_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path / "drawn", train_images=4, val_images=2, size=64, people=(1, 2), seed=1)
    tiny = ["network.backbone=test_resnet", "network.channels=8", "network.head_convs=2", "input.height=64"]
    tiny += ["input.width=64", "batch_size=2", "workers=0", "precision=fp32"]
    words = [str(tmp_path / "drawn"), str(tmp_path / "out"), "--iterations", "2", "--ways", "root, update, likelihood"]
    words += [word for change in tiny for word in ("--set", change)]
    main([*words, "--json", str(tmp_path / "found.json")])
    model = tmp_path / "out" / "root-update-likelihood" / "model.safetensors"
    trained = model.stat().st_mtime_ns
    main(words)
    assert model.stat().st_mtime_ns == trained
    found = json.loads((tmp_path / "found.json").read_text())["root, update, likelihood"]
    assert set(SHOWN) <= set(found) and found["people"] > 0
    assert capsys.readouterr().out.count("root, update, likelihood") == 2
