"""The command line's last door: no traceback, whatever a command meets, and stdout as scripts use it."""

from __future__ import annotations

import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from mdpose_edge import cli
from mdpose_edge.common.optional import EXTRAS
from tests.architecture.package import PYPROJECT, REPOSITORY
from tests.artifacts import Artifacts
from tests.command import Run, command_runner
from tests.unit.stream.media import write_video
from tests.unit.tiny_coco import document, person, write_split


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return command_runner(monkeypatch, capsys)


def all_commands(app: typer.Typer, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for command in app.registered_commands:
        assert command.callback is not None
        yield (*before, command.name or command.callback.__name__), command
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from all_commands(group.typer_instance, (*before, str(group.name)))


COMMANDS = dict(all_commands(cli.app))


def words_for(name: tuple[str, ...]) -> list[str]:
    """Return each required argument and option of a command a word that it takes."""
    command: Any = typer.main.get_command(cli.app)
    for part in name:
        command = command.commands[part]
    words: list[str] = []
    for parameter in command.params:
        if parameter.required:
            value = {"--target": "onnx", "--from": "mdpose"}.get(parameter.opts[0], "absent")
            words += [value] if not parameter.opts[0].startswith("-") else [parameter.opts[0], value]
    return words


def test_every_command_is_among_those_that_are_tried() -> None:
    assert {name[0] for name in COMMANDS} == set(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
    assert len(COMMANDS) >= 18


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_no_command_ends_in_a_traceback(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: tuple[str, ...]
) -> None:
    @functools.wraps(COMMANDS[name].callback)
    def planted(*args: object, **options: object) -> None:
        raise ZeroDivisionError("planted http://u:s3cret@host/?token=s3cret")

    monkeypatch.setattr(COMMANDS[name], "callback", planted)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    words = words_for(name)
    code, out, error = run(*name, *words)
    assert (code, out) == (3, "")
    (sentence,) = error.splitlines()
    (report,) = tmp_path.glob("mdpose-edge-crash-*.txt")
    told = "expected no fault of this program's own, got ZeroDivisionError: planted http://host/?token=***; send"
    assert sentence == f"mdpose-edge: {told} {report} with what you ran."
    text = report.read_text()
    assert "Traceback" in text and "in planted" in text and f"command: mdpose-edge {' '.join([*name, *words])}" in text
    assert "s3cret" not in text


WITHOUT_EXTRAS = """
import json, os, sys
from mdpose_edge.common.optional import EXTRAS
sys.modules.update(dict.fromkeys(EXTRAS))
from mdpose_edge import cli
for number, words in enumerate(json.loads(sys.argv[1])):
    child = os.fork()
    if not child:
        os.dup2(os.open(f"{number}.txt", os.O_WRONLY | os.O_CREAT), 2)
        sys.argv = ["mdpose-edge", *words]
        cli.main()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""Runs command lines where none of the optional packages is installed, and prints their exit codes."""


def test_a_command_whose_packages_are_not_installed_says_which_to_install(artifacts: Artifacts, tmp_path: Path) -> None:
    data, config = tmp_path / "data", tmp_path / "config.yaml"
    write_split(data, document([person(7)]), "train")
    config.write_text("{}")
    checkpoint = artifacts.checkpoint()
    lines = [
        *([*name, *words_for(name)] for name in COMMANDS if name[0] not in ("doctor", "demo", "synth", "models")),
        ["train", config, "--data", data, "--out", "run"],
        ["export", checkpoint, "--target", "onnx", "--out", "bundle"],
        ["infer", checkpoint, data / "train2017", "--json", "poses.json"],
        ["infer", artifacts.bundle("onnx"), data / "train2017", "--json", "poses.json"],
        ["eval", checkpoint, "--data", data, "--split", "train"],
        ["models", config],
    ]
    words = json.dumps([[str(word) for word in line] for line in lines])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, words], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    codes = [int(line) for line in done.stdout.splitlines() if line.lstrip("-").isdigit()]
    told = [(tmp_path / f"{number}.txt").read_text() for number in range(len(lines))]
    for line, code, error in zip(lines, codes, told, strict=True):
        assert code in (0, 2), (line, error)
    assert all('pip install "mdpose-edge[' in error for error in told[-6:]), told[-6:]
    assert not (tmp_path / "run").exists() and not (tmp_path / "bundle").exists()


def test_the_extra_of_a_package_is_the_one_that_brings_it() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    called = {"yaml": "pyyaml", "faster_coco_eval": "faster-coco-eval", "huggingface_hub": "huggingface-hub"}
    for name, extra in EXTRAS.items():
        assert any(line.startswith(called.get(name, name)) for line in extras[extra]), (name, extra)


def test_a_crash_where_nothing_can_be_written_is_still_a_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    @functools.wraps(COMMANDS["doctor",].callback)
    def planted(*args: object, **options: object) -> None:
        raise KeyError("planted")

    monkeypatch.setattr(COMMANDS["doctor",], "callback", planted)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(2)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1], limits[1]))
        code, _, error = run("doctor")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for handle in taken:
            os.close(handle)
    assert code == 3
    assert "got KeyError: 'planted'; no report could be written" in error


def mdpose_edge(
    *words: object, shell: str = "{}", before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, and in a shell's hands."""
    command = " ".join([sys.executable, "-m", "mdpose_edge", *map(str, words)])
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        ["bash", "-c", "set -o pipefail; " + shell.format(command)],
        env=environment, capture_output=True, text=True, timeout=120, preexec_fn=before,
    )  # fmt: skip


def test_a_reader_that_leaves_does_not_change_how_a_command_ends(tmp_path: Path) -> None:
    preset = REPOSITORY / "configs" / "dla34_synth_128.yaml"
    done = mdpose_edge("models", preset, "--json", tmp_path / "models.json", shell="{} | head -1")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "models.json").read_text())["presets"]
    assert mdpose_edge("--help", shell="{} | true").returncode == 0


def test_json_on_stdout_is_all_that_is_there(run: Run, artifacts: Artifacts) -> None:
    code, out, error = run("nvdla", artifacts.bundle("onnx"), "--json", "-")
    assert code == 0
    assert json.loads(out)["precision"] == "fp16"
    assert "nodes on NVDLA" in error
    assert not Path("-").exists()


@pytest.mark.parametrize("option", ["--out", "--coco"])
def test_what_cannot_be_on_stdout_is_refused(run: Run, tmp_path: Path, option: str) -> None:
    clip = write_video(tmp_path / "clip.avi", 2)
    code, out, error = run("infer", "absent", clip, option, "-")
    assert (code, out) == (2, "") and f"{option}: expected a file or folder, got -" in error
    code, out, error = run("infer", "absent", clip, "--jsonl", "-", "--json", "-")
    assert (code, out) == (2, "") and "--json: expected one writer on stdout, got --jsonl - as well" in error
    code, out, error = run("eval", "absent", "--data", "absent", "--results", "-")
    assert (code, out) == (2, "") and "-: expected a file, got -; name one" in error


@pytest.mark.parametrize("words", [("--jsonl", "-"), ("--jsonl", "a.jsonl", "--json", "-")], ids=" ".join)
def test_a_closed_stdout_is_told(artifacts: Artifacts, tmp_path: Path, words: tuple[str, ...]) -> None:
    clip = write_video(tmp_path / "clip.avi", 2)
    done = mdpose_edge("infer", artifacts.bundle("onnx"), clip, *words, shell=f"cd {tmp_path}; {{}} >&-")
    assert done.returncode == 2
    assert "expected an open stdout, got a closed one; name a file." in done.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["clip.avi"]


def test_closed_standard_files_are_nobody_elses(artifacts: Artifacts, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.avi", 2)
    lines = tmp_path / "a.jsonl"
    done = mdpose_edge("infer", artifacts.bundle("onnx"), clip, "--jsonl", lines, shell="{} <&- >&- 2>&-")
    assert done.returncode == 0
    assert [json.loads(line)["frame"] for line in lines.read_text().splitlines()] == [0, 1]


def test_doctor_without_a_folder_for_temporary_files_says_so() -> None:
    def write_nothing() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    done = mdpose_edge("doctor", before=write_nothing)
    assert done.returncode == 0, done.stderr
    assert "no folder for them can be written" in done.stdout and "set TMPDIR" in done.stdout
    assert "broken" not in done.stdout
    assert "not tried: onnxruntime" in done.stdout.splitlines()[-1]


def test_a_command_without_a_folder_for_temporary_files_names_it(artifacts: Artifacts) -> None:
    def write_nothing() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    done = mdpose_edge("nvdla", artifacts.bundle("onnx"), "--json", "/dev/null", before=write_nothing)
    assert done.returncode == 2
    told = "temporary files: expected a folder for them, got none that can be written; set TMPDIR to one."
    assert done.stderr.splitlines()[-1] == f"mdpose-edge: {told}"
