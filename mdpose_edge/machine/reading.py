"""Reading what may not be there: files under /proc and /sys, and programs that not every machine has."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

NOT_AVAILABLE = "not available"
"""How every fact begins that could not be read; the reason follows."""
PROGRAM_TIMEOUT_S = 10.0


def not_available(why: str) -> str:
    """Say that a fact could not be read, and why."""
    return f"{NOT_AVAILABLE}: {why}"


def read_text(path: Path) -> str | None:
    """Read a small file, or return None where the system does not let one: a sensor may exist and refuse to answer."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n\t")
    except OSError:
        return None


def read_number(path: Path) -> float | None:
    """Read a file that holds one number."""
    text = read_text(path)
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def read_fields(path: Path) -> dict[str, str]:
    """Read lines of "name: value"; the first of a name counts."""
    fields: dict[str, str] = {}
    for line in (read_text(path) or "").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields


def ask_program(*command: str) -> str | None:
    """Run a program and give what it prints, or None where it is absent, fails or hangs."""
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *command[1:]],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROGRAM_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
