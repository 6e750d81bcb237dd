"""What CI runs: with or without a package manager, as root or not, it ends in the README's test command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.package import REPOSITORY

UPDATE = "apt-get -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=20 update"


@pytest.mark.parametrize(
    ("user", "apt", "installed", "calls"),
    [
        pytest.param("0", "exit 0", False, [UPDATE, "install", "make test"], id="installs"),
        pytest.param("0", "exit 0", True, ["make test"], id="has them"),
        pytest.param("0", "exit 100", False, [UPDATE, "make test"], id="no network"),
        pytest.param("0", None, False, ["make test"], id="another system"),
        pytest.param("1000", "exit 0", False, ["make test"], id="not root"),
    ],
)
def test_ci_always_comes_to_make_test(
    tmp_path: Path, user: str, apt: str | None, installed: bool, calls: list[str]
) -> None:
    (tmp_path / ".ci").mkdir()
    script = shutil.copy2(REPOSITORY / ".ci" / "run", tmp_path / ".ci" / "run")
    log = 'echo "$(basename "$0") $*" >> "$LOG"; '
    programs = {"id": f"echo {user}", "dpkg": f"exit {int(not installed)}", "make": log}
    programs |= {} if apt is None else {"apt-get": log + apt}
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    for name in ("bash", "env", "dirname", "basename", "timeout"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    environment = {"PATH": str(tmp_path), "LOG": str(tmp_path / "log")}
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=True)
    logged = (tmp_path / "log").read_text().splitlines()
    assert len(logged) == len(calls) and all(call in line for call, line in zip(calls, logged, strict=True)), logged
    assert ("tests that need them skip" in done.stderr) is (apt == "exit 100")


def test_skips_are_counted_by_reason(tmp_path: Path) -> None:
    skip = (
        "import pytest\n@pytest.mark.parametrize('n', range({}))\ndef test_it(n):\n    pytest.skip('no such thing')\n"
    )
    for count in (1, 2):
        (tmp_path / f"test_{count}.py").write_text(skip.format(count))
    (tmp_path / "test_whole.py").write_text("import pytest\npytest.importorskip('absent_package')\n")
    words = [
        "-m",
        "pytest",
        "-q",
        "--rootdir",
        str(tmp_path),
        "-p",
        "tests.skips",
        "-p",
        "no:cacheprovider",
        str(tmp_path),
    ]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "skipped, by reason" in done.stdout, done.stdout + done.stderr
    assert "   3 no such thing\n   1 could not import 'absent_package'" in done.stdout
