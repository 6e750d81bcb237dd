"""The command line, run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from mdpose_edge import cli

Run = Callable[..., tuple[int, str, str]]
"""Words of a command to its exit code, stdout and stderr."""


def command_runner(monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> Run:
    """Return what runs a command and reads what it printed from `capsys` or `capfd`."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mdpose-edge", *map(str, words)])
        code: object = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        printed = capture.readouterr()
        return int(str(code or 0)), printed.out, printed.err

    return run
