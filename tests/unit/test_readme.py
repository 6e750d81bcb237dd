"""The README says what works: its commands exist, its options are theirs, its Python runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main

from mdpose_edge.cli import app
from tests.artifacts import Artifacts

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"(?m)(?:^|`)(mdpose-edge [a-z][^`\n]*)", README)))


def _commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)  # a click group, which typer may bring along under its own name
    return dict(group.commands)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_exists_with_these_options(line: str) -> None:
    _, name, *words = shlex.split(line)
    command = _commands()[name]
    if hasattr(command, "commands"):  # `synth OUT` is `synth images OUT`
        command = command.commands[words.pop(0) if words[0] in command.commands else "images"]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_every_command_is_in_the_readme() -> None:
    assert {line.split()[1] for line in COMMANDS} == set(_commands())


def test_the_python_runs(artifacts: Artifacts) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    code = code.replace('"runs/demo/openvino"', repr(str(artifacts.bundle("openvino"))))
    names = {"frame_bgr": np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)}
    exec(code, names)  # our own README
    assert names["poses"].keypoints_xy.shape[1:] == (17, 2)
