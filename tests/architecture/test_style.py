"""`make lint`, so that CI holds it too; the fourth of its checks is test_imports.test_import_contracts_hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.package import REPOSITORY


@pytest.mark.parametrize("command", ["ruff check", "ruff format --check", "mypy"])
def test_lint(command: str) -> None:
    program, *arguments = command.split()
    result = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stdout + result.stderr
