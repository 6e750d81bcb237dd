"""Where nobody gives a threshold, the model's own holds, in every way to run a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from mdpose_edge.checkpoint import read_checkpoint, save_checkpoint
from mdpose_edge.datasets.images import read_image
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.spec import DecodeSpec
from tests.artifacts import Artifacts
from tests.command import Run, command_runner

EAGER = DecodeSpec(score_threshold=0.0)
"""Finds people in every picture."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return command_runner(monkeypatch, capsys)


@pytest.fixture
def model(artifacts: Artifacts, tmp_path: Path) -> Path:
    checkpoint = read_checkpoint(artifacts.checkpoint())
    path = tmp_path / "eager.safetensors"
    save_checkpoint(path, replace(checkpoint.spec, decode=EAGER), checkpoint.weights)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8))
    return path


def test_infer_takes_the_models_own_threshold(run: Run, model: Path, photo: Path, tmp_path: Path) -> None:
    with PoseEstimator(model) as estimator:
        people = len(estimator(read_image(photo, orient=False)).scores)
    assert people
    painted, lines = tmp_path / "all.json", tmp_path / "all.jsonl"
    assert run("infer", model, photo, "--out", tmp_path / "painted", "--json", painted)[0] == 0
    assert len(json.loads(painted.read_text())["images"][0]["poses"]) == people
    assert run("infer", model, photo, "--jsonl", lines)[0] == 0
    (line,) = map(json.loads, lines.read_text().splitlines())
    assert len(line["poses"]) == people


def test_a_threshold_that_is_given_wins(run: Run, model: Path, photo: Path, tmp_path: Path) -> None:
    lines = tmp_path / "none.jsonl"
    assert run("infer", model, photo, "--jsonl", lines, "--threshold", 1)[0] == 0
    assert json.loads(lines.read_text())["poses"] == []
