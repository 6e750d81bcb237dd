"""The tree's own promises: documents that agree with the code, and nothing of one machine in it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.architecture.package import REPOSITORY

THIS_MACHINE = re.compile(r"(?<![\w.~${}/-])/(?:work|root|home|Users|tmp|opt)/\w")
"""A path that exists on somebody's machine; the lookbehind lets relative paths and URLs pass."""
PACKAGE_INDEX = re.compile(r"\bpy(?:pi|thonhosted)\.|\bdownload\.pytorch\.|--(?:extra-)?index-url|--find[-]links")
"""Where packages come from is the business of the machine that installs them."""


def repository_files() -> list[Path]:
    """List what is, or would be, committed; outside git (an unpacked archive) there is no telling."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listing.stdout.split("\0") if name and (path := REPOSITORY / name).is_file()]


def text_of(path: Path) -> str:
    data = path.read_bytes()
    return "" if b"\0" in data else data.decode("utf-8", errors="replace")


def lines_matching(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:120]}"
        for path in repository_files()
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if pattern.search(line)
    ]


def documents() -> list[Path]:
    return sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])


def minimum_python() -> str:
    found = re.findall(r'^requires-python = ">=([\d.]+)"$', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)
    assert len(found) == 1
    return str(found[0])


@pytest.mark.parametrize(
    "line, guilty",
    [
        ("cd /" + "home/ada/mdpose", True),
        ('"/' + 'tmp/x"', True),
        ("runs/tmp/x and ../home/y", False),
        ("https://example.org/home/page", False),
    ],
)
def test_machine_path_pattern(line: str, guilty: bool) -> None:
    assert bool(THIS_MACHINE.search(line)) is guilty


def test_no_file_names_a_path_of_one_machine() -> None:
    assert lines_matching(THIS_MACHINE) == []


def test_no_file_names_a_package_index() -> None:
    assert lines_matching(PACKAGE_INDEX) == []


def test_ci_runs_the_command_of_the_readme() -> None:
    script = REPOSITORY / ".ci" / "run"
    text = script.read_text()
    assert text.endswith("\nexec make test\n") and text.count("make") == 1
    assert os.access(script, os.X_OK)
    assert "make test" in (REPOSITORY / "README.md").read_text()


def test_documents_name_the_packages_that_ci_installs() -> None:
    (packages,) = re.findall(r"^packages=\((.+)\)$", (REPOSITORY / ".ci" / "run").read_text(), re.MULTILINE)
    guide = (REPOSITORY / "CONTRIBUTING.md").read_text()
    assert [name for name in packages.split() if f"`{name}`" not in guide] == []


def test_documents_name_only_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = {
        (path.name, target)
        for path in documents()
        for target in re.findall(r"(?:`|^|&& )make ([a-z]+)", path.read_text(), re.MULTILINE)
    }
    assert {"setup", "test", "demo"} <= targets
    assert {(name, target) for name, target in named if target not in targets} == set()


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text())
    relative = [target for target in targets if not re.match(r"\w+:", target)]
    assert [target for target in relative if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_files_named_in_documents_exist(document: Path) -> None:
    named = re.findall(r"`((?:mdpose_edge|tests|docs|configs|benchmarks|scripts)/[\w./-]+)`", document.read_text())
    assert [name for name in named if not (REPOSITORY / name).exists()] == []


def test_every_golden_states_its_origin() -> None:
    goldens = REPOSITORY / "tests" / "goldens"
    origins = (goldens / "README.md").read_text()
    files = [path.relative_to(goldens).as_posix() for path in goldens.rglob("*") if path.is_file()]
    assert [name for name in files if name != "README.md" and f"`{name}`" not in origins] == []


def test_index_lists_every_document() -> None:
    docs = REPOSITORY / "docs"
    index = (docs / "index.md").read_text()
    names = [path.relative_to(docs).as_posix() for path in docs.glob("*.md") if path.name != "index.md"]
    names += [f"{folder.name}/" for folder in docs.iterdir() if any(folder.glob("*.md"))]
    assert [name for name in names if f"]({name})" not in index] == []


def test_minimum_python_is_written_once() -> None:
    settings = (REPOSITORY / "pyproject.toml").read_text()
    assert not re.search(
        r"^(?:target-version|python_version)\b|Programming Language :: Python :: 3\.", settings, re.MULTILINE
    )
    assert minimum_python() not in (REPOSITORY / "Makefile").read_text()


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_documents_state_the_minimum_python_of_pyproject(document: Path) -> None:
    stated = set(re.findall(r"[Pp]ython\s*(?:>=|≥)?\s*(3\.\d+)", document.read_text()))
    assert stated <= {minimum_python()}
