"""The benchmark of the components runs on a budget of seconds, goes on where it was cut off, and counts right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import mixture_components
from benchmarks.mixture_components import facing, findings, main
from mdpose_edge.checkpoint import read_checkpoint
from mdpose_edge.synth import render_scene
from tests.artifacts import Artifacts

BUDGET = [
    "--iterations", "3", "--size", "64", "--batch", "2", "--backbone", "test_resnet", "--channels", "8",
    "--train-images", "4", "--val-images", "2",
]  # fmt: skip


@pytest.fixture
def budget(artifacts: Artifacts) -> list[str]:
    return [*BUDGET, "--init", str(artifacts.of("mixture_dense").checkpoint())]


def test_what_is_there_is_passed_over_and_other_conditions_are_refused(
    budget: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("faster_coco_eval")
    main([str(tmp_path), *budget, "--only", "mdn_2"])
    main([str(tmp_path), *budget, "--only", "mdn_2", "--only", "l1"])
    rows = json.loads((tmp_path / "results.json").read_text())["settings"]
    assert set(rows) == {"mdn_2", "l1"} and len(rows["mdn_2"]["alone"]) == 2
    assert sum(map(sum, rows["mdn_2"]["people"].values())) > 0
    assert sum(map(sum, rows["l1"]["people"].values())) == sum(map(sum, rows["mdn_2"]["people"].values()))
    assert capsys.readouterr().out.count("took") == 2
    with pytest.raises(SystemExit):
        main([str(tmp_path), *budget, "--seed", "1"])


def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(
    budget: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faster_coco_eval")
    monkeypatch.setattr(mixture_components, "SAVED_EVERY", 1)
    main([str(tmp_path / "whole"), *budget, "--only", "mdn_1"])
    whole, losses = mixture_components.batch_loss, list[Any]()

    def cut_off(*args: Any, **options: Any) -> Any:
        losses.append(None)
        if len(losses) == 2:
            raise KeyboardInterrupt
        return whole(*args, **options)

    monkeypatch.setattr(mixture_components, "batch_loss", cut_off)
    with pytest.raises(KeyboardInterrupt):
        main([str(tmp_path / "cut"), *budget, "--only", "mdn_1"])
    main([str(tmp_path / "cut"), *budget, "--only", "mdn_1"])
    weights = [read_checkpoint(tmp_path / run / "mdn_1.safetensors").weights for run in ("whole", "cut")]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, msg=name)


def test_facing_is_seen_by_shoulders_and_nose() -> None:
    joints = np.zeros((17, 3))
    joints[5], joints[6], joints[0] = (0.2, 0, 3), (-0.2, 0, 3), (0, -0.3, 2.9)
    assert facing(joints) == "front"
    joints[5, 0], joints[6, 0], joints[0, 2] = -0.2, 0.2, 3.1
    assert facing(joints) == "back"
    joints[0, 2] = 2.9
    assert facing(joints) is None
    plain = [facing(np.array(one["keypoints_3d"])) for one in render_scene(3, (96, 96), (4, 4), 0.0, 0.0).annotations]
    assert plain.count("front") >= 3  # without variety people turn to the camera


def test_findings_say_who_speaks_for_whom() -> None:
    figures = {"AP": 0.25}
    rows = {
        "l1": {"AP": figures, "alone": [0.25], "people": {"front": [5], "back": [5]}},
        "mdn_2": {"AP": {"AP": 0.5}, "alone": [0.3, 0.2], "people": {"front": [9, 1], "back": [0, 10]}},
    }
    lines = findings(rows)
    assert lines[:2] == ["by AP: mdn_2 50.0 > l1 25.0", "the paper: mdn_2 52.3 > l1 46.4"]
    assert "mdn_2: of 10 people seen from the front, the components speak for 90 %, 10 %" in lines
