"""Where the command line's results go: never over what it reads, never half of them, and no work for nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mdpose_edge.datasets.images import write_image
from tests.artifacts import Artifacts
from tests.command import Run, command_runner


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return command_runner(monkeypatch, capsys)


@pytest.mark.parametrize(
    "command", [["synth", "--images", "2", "OUT"], ["export", "--target", "openvino", "--out", "OUT"]]
)
def test_a_system_that_takes_no_more_bytes_is_one_sentence(
    artifacts: Artifacts, tmp_path: Path, command: list[str]
) -> None:
    words = [str(tmp_path / "out") if word == "OUT" else word for word in command]
    words += [str(artifacts.checkpoint())] if command[0] == "export" else []
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "from mdpose_edge.cli import main; sys.argv[0] = 'mdpose-edge'; main()"
    )
    done = subprocess.run([sys.executable, "-c", limited, *words], capture_output=True, text=True, check=False)
    sentences = [line for line in done.stderr.splitlines() if line.startswith("mdpose-edge:")]
    assert done.returncode == 2 and len(sentences) == 1 and "Traceback" not in done.stderr
    assert "expected a place to write" in sentences[0] and "free some space" in sentences[0]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "command",
    [
        ("infer", "BUNDLE", "PICTURE", "--out", "painted", "--json", "PICTURE"),
        ("infer", "BUNDLE", "*.png", "--jsonl", "lines.jsonl", "--json", "PICTURE"),
        ("bench", "BUNDLE", "--frames", "1", "--json", "SPEC"),
        ("nvdla", "BUNDLE", "--json", "SPEC"),
        ("view", "BUNDLE", "PICTURE", "--json", "PICTURE"),
        ("eval", "BUNDLE", "--data", "absent", "--json", "SPEC"),
        ("check", "BUNDLE", "--reference", "absent", "--json", "SPEC"),
        ("data", "check", ".", "--json", "PICTURE"),
    ],
    ids=" ".join,
)
def test_json_takes_no_inputs_place(
    run: Run, artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(artifacts.bundle("onnx"), "bundle")
    write_image(Path("picture.png"), np.zeros((8, 8, 3), np.uint8))
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    names = {"BUNDLE": "bundle", "PICTURE": "picture.png", "SPEC": "bundle/spec.json"}
    code, out, error = run(*(names.get(word, word) for word in command))
    assert (code, out) == (2, "") and "--json" in error and "expected a file of its own" in error
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (("eval", "absent", "--data", "absent", "--results", "FILE/results.json"), "file"),
        (("eval", "absent", "--data", "absent", "--results", "."), "file"),
        (("data", "check", "absent", "--out", "FILE/sheet.png"), "file"),
        (("calib", "show", "absent", "--out", "FILE/sheet.png"), "file"),
        (("doctor", "--json", "FILE/doctor.json"), "file"),
        (("check", "absent", "--reference", "absent", "--report", "FILE"), "folder"),
        (("train", "absent.yaml", "--data", "absent", "--out", "FILE"), "folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_a_place_where_nothing_can_be_is_told_before_the_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").touch()
    code, out, error = run(*command)
    assert (code, out) == (2, "") and f"expected a place for a {kind}" in error
