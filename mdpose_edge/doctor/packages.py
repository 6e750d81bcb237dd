"""What is installed, against what this version asks for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from importlib import import_module, metadata
from importlib.util import find_spec

from mdpose_edge.doctor.findings import Finding

DISTRIBUTION = "mdpose-edge"
OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
"""The distributions that bring cv2; the first is the one that is asked for."""
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*(?:>=\s*([\d.]+))?[^;]*(?:;(.*))?")
_EXTRA = re.compile(r"""extra\s*==\s*["']([\w-]+)["']""")
_INNER = {"dev", "docs", "all"}
"""Extras of those who work on this project, and the one that is the sum of others."""

Version = Callable[[str], str | None]


def installed_version(name: str) -> str | None:
    """Return a distribution's version, or None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def provided_version(name: str) -> str | None:
    """Return a distribution's version, or that of what stands in for it, or None where nothing does.

    OpenCV comes in four distributions, and with JetPack in none that pip knows.
    """
    found = installed_version(name)
    if found is None and name == OPENCV[0]:
        found = next(filter(None, map(installed_version, OPENCV[1:])), None)
        if found is None and find_spec("cv2") is not None:
            found = str(import_module("cv2").__version__)
    return found


def check_packages(requires: Iterable[str] | None = None, version: Version = provided_version) -> list[Finding]:
    """Compare what is installed with the lowest versions that are supported.

    Args:
        requires: requirement lines, or None for this distribution's own.
        version: says what is installed.
    """
    if requires is None:
        try:
            requires = metadata.requires(DISTRIBUTION) or []
        except metadata.PackageNotFoundError:
            found, remedy = "run from a folder, without what it needs on record", "pip install mdpose-edge"
            return [Finding("packages", DISTRIBUTION, "note", found, remedy)]
    findings: dict[str, Finding] = {}
    for line in requires:
        match = _REQUIREMENT.match(line)
        assert match is not None, line
        name, least, marker = match[1], match[2] or "0", match[3] or ""
        named = _EXTRA.search(marker)
        extra = named[1] if named else ""
        if extra not in _INNER and name != DISTRIBUTION and name not in findings:
            findings[name] = _check(name, least, extra, version(name))
    return list(findings.values())


def numbers(text: str) -> tuple[int, ...]:
    """Read the numbers that a version begins with: "2.6.0+cu124" is (2, 6, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _check(name: str, least: str, extra: str, found: str | None) -> Finding:
    remedy = f'pip install "mdpose-edge[{extra}]"' if extra else f'pip install "{name}>={least}"'
    if found is None:
        if extra:
            return Finding("packages", name, "absent", f"not installed, for {extra}", remedy)
        return Finding("packages", name, "broken", "not installed", remedy)
    if numbers(found) < numbers(least):
        return Finding("packages", name, "broken", f"{found}, older than {least}", f'pip install "{name}>={least}"')
    return Finding("packages", name, "ok", found)
