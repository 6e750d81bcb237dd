"""The documents as a site, and the page of error messages against the source."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mdpose_edge import errors
from tests.architecture.package import PACKAGE, REPOSITORY

TROUBLESHOOTING = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py")))
MESSAGES = re.findall(r"(?m)^\| `([^`]+)` \|", TROUBLESHOOTING)


def test_every_error_has_its_heading() -> None:
    headings = re.findall(r"(?m)^## (\w+Error)$", TROUBLESHOOTING)
    classes = [name for name, value in vars(errors).items() if inspect.isclass(value) and name.endswith("Error")]
    assert headings == [name for name in classes if name != "MdposeError"]


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_that_is_explained_is_one_that_the_code_has(message: str) -> None:
    pieces = [piece.strip(" ,") for piece in message.split("...")]
    assert [piece for piece in pieces if piece and piece not in SOURCE] == []


def build(out: Path, config: Path = REPOSITORY / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install 'mdpose-edge[docs]'")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", config, "-d", out]
    return subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    result = build(out)
    assert result.returncode == 0, result.stdout + result.stderr
    return out


def test_every_document_is_a_page(site: Path) -> None:
    documents = (path.relative_to(REPOSITORY / "docs") for path in (REPOSITORY / "docs").rglob("*.md"))
    made_here = {"readme.html", "contributing.html", "changelog.html", "reference.html", "decisions/index.html"}
    expected = {path.with_suffix(".html").as_posix() for path in documents} | made_here
    found = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert found == expected | {"404.html"}


def test_every_page_is_in_the_navigation(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    navigation = set(re.findall(r'<a href="([^"#]+)"[^>]*class="md-nav__link', index)) | {"index.html", "./"}
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")} - {"404.html"}
    assert pages - navigation == set()


def test_a_link_shows_a_title_and_not_a_files_name(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    assert '<a href="quickstart.html">Quick start</a>' in index
    assert re.findall(r">[\w/-]+\.md</a>", index) == []


def test_the_reference_shows_the_public_names(site: Path) -> None:
    reference = (site / "reference.html").read_text(encoding="utf-8")
    for name in ("PoseEstimator", "Poses", "ModelSpec", "MdposeError", "open_source", "run_pipeline"):
        assert re.search(rf'id="mdpose_edge\.[\w.]*{name}"', reference), name
    assert "pixels of the frame" in reference


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    loads = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=["']?(https?:)?//""")
    assert [str(path) for path, text in pages.items() if loads.search(text)] == []


def test_a_page_without_a_place_is_refused(tmp_path: Path) -> None:
    text = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8").replace("bench.md, ", "")
    text = text.replace("scripts/", f"{REPOSITORY}/scripts/").replace("docs_dir: docs", f"docs_dir: {REPOSITORY}/docs")
    (tmp_path / "mkdocs.yml").write_text(text)
    result = build(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert result.returncode != 0
    assert "bench.md is missing" in result.stdout + result.stderr
