"""What mkdocs needs to know that the documents do not say: a hook of mkdocs.yml.

The documents link to one another, to README.md, and to source files, all relative to where they lie, so that a plain
git host shows them right. A site holds docs/ only. So pages are made here for what lies outside and belongs to the
reader (README, CONTRIBUTING, CHANGELOG, a list of decisions, the Python reference), links to these are turned to them,
links to source files become plain text, and a link that shows a page's file name shows its title.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import mdpose_edge

REPOSITORY = Path(__file__).resolve().parents[1]
ROOT_PAGES = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
DECISIONS, REFERENCE = "decisions/index.md", "reference.md"
SPECS = ("InputSpec", "HeadSpec", "KeypointSpec", "DecodeSpec", "Provenance")
STREAMS = (
    "mdpose_edge.stream.sources.open_source",
    "mdpose_edge.stream.frames.CapturedFrame",
    "mdpose_edge.stream.frames.FrameSource",
    "mdpose_edge.stream.pipeline.run_pipeline",
    "mdpose_edge.stream.result.FrameResult",
    "mdpose_edge.stream.result.Sink",
    "mdpose_edge.track.tracker.PoseTracker",
)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    for name, target in ROOT_PAGES.items():
        files.append(File.generated(config, target, content=(REPOSITORY / name).read_text(encoding="utf-8")))
    files.append(File.generated(config, DECISIONS, content=_decisions()))
    files.append(File.generated(config, REFERENCE, content=_reference()))
    config.nav = _navigation(config.extra["sections"], {file.src_uri for file in files.documentation_pages()})
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to what lies outside docs/ into links within the site, or into text."""
    here = page.file.src_uri
    origins = {target: name for name, target in ROOT_PAGES.items()}
    folder = posixpath.dirname(origins[here]) if here in origins else posixpath.dirname(f"docs/{here}")
    known = {file.src_uri for file in files}

    def turned(match: re.Match[str]) -> str:
        mark, text, link = match[1], match[2], match[3]
        path, hash_mark, anchor = link.partition("#")
        if not path or re.match(r"\w+:", path):
            return match[0]
        inside = _inside(posixpath.normpath(posixpath.join(folder, path)), known)
        if inside is None:
            return text
        if text in (path, path.removesuffix(".md")):
            text = _title(inside, text)
        return f"{mark}[{text}]({os.path.relpath(inside, posixpath.dirname(here) or '.')}{hash_mark}{anchor})"

    return _LINK.sub(turned, markdown)


def _title(page: str, otherwise: str) -> str:
    """Return a page's first heading."""
    origins = {target: name for name, target in ROOT_PAGES.items()}
    path = REPOSITORY / origins.get(page, f"docs/{page}")
    if not path.is_file():
        return "Decisions" if page == DECISIONS else otherwise
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def _inside(path: str, known: set[str]) -> str | None:
    """Return where a file of the repository is in the site, or None where it is not in it."""
    if path in ROOT_PAGES:
        return ROOT_PAGES[path]
    name = path.removeprefix("docs/")
    if path == "docs/decisions":
        return DECISIONS
    return name if path.startswith("docs/") and name in known else None


def _navigation(sections: list[dict[str, list[str]]], pages: set[str]) -> list[dict[str, Any]]:
    """Order the pages that exist; decisions are listed by their own page."""
    named = [name for section in sections for names in section.values() for name in names]
    lost = sorted(name for name in pages - set(named) if not name.startswith("decisions/"))
    if lost:
        raise PluginError(f"mkdocs.yml, extra.sections: expected every page of docs/, {', '.join(lost)} is missing")
    navigation: list[dict[str, Any]] = []
    for section in sections:
        for title, names in section.items():
            navigation.append({title: [name for name in names if name in pages]})
    decisions = sorted(name for name in pages if re.match(r"decisions/\d", name))
    navigation.append({"Decisions": decisions})
    return [section for section in navigation if all(section.values())]


def _decisions() -> str:
    rows = []
    for path in sorted((REPOSITORY / "docs" / "decisions").glob("*.md")):
        title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        rows.append(f"- [{title}]({path.name})")
    return "# Decisions\n\nWhy a thing is as it is; each title is the answer.\n\n" + "\n".join(rows) + "\n"


def _reference() -> str:
    public = [f"{module}.{name}" for name, module in mdpose_edge._PUBLIC.items()]
    parts = {
        "What other programs may rely on": public,
        "Parts of a ModelSpec": [f"mdpose_edge.spec.{name}" for name in SPECS],
        "Sources, pipeline, tracking": list(STREAMS),
        "Errors": ["mdpose_edge.errors"],
    }
    text = "# Python reference\n\nGenerated from the source. With examples: [Python](python-api.md).\n"
    for title, names in parts.items():
        text += (
            f"\n## {title}\n\n" + "\n\n".join(f"::: {name}\n    options: {{heading_level: 3}}" for name in names) + "\n"
        )
    return text
