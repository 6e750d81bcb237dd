"""Versioned JSON documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mdpose_edge.common.document import DocumentFormat, document_json
from mdpose_edge.errors import BundleError


@dataclass(frozen=True)
class Note:
    note_version: int
    text: str
    marks: tuple[float, ...]


FORMAT = DocumentFormat(
    Note,
    version_key="note_version",
    version=3,
    error=BundleError,
    if_damaged="copy it again",
    if_other_version="write it again",
)
NOTE = Note(3, "Köln", (0.1, 2.0))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    path.write_text(document_json(NOTE), encoding="utf-8")
    assert FORMAT.read(path) == NOTE
    assert FORMAT.parse(document_json(NOTE), "here") == NOTE
    assert path.read_bytes().startswith('{\n  "note_version": 3,\n  "text": "Köln"'.encode())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-5], "expected JSON, got none that can be read: .*; copy it again"),
        (lambda text: "[]", "expected note_version 3, got None; update mdpose-edge, or write it again"),
        (lambda text: text.replace("3", "4"), "expected note_version 3, got 4; update mdpose-edge, or write it again"),
        (lambda text: text.replace('"text"', '"texts"'), ".*got the unknown key texts"),
        (lambda text: text.replace("2.0", '"2"'), r"expected a number at marks\[1\]"),
    ],
)
def test_all_else_is_refused_in_a_sentence(tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    path = tmp_path / "note.json"
    path.write_text(change(document_json(NOTE)), encoding="utf-8")
    with pytest.raises(BundleError, match=rf"note\.json: {message}"):
        FORMAT.read(path)


def test_an_older_version_is_read_where_it_can_be_upgraded() -> None:
    newer = replace(FORMAT, upgrades={2: lambda data: {"text": data["words"], "marks": [1.0]}})
    assert newer.parse('{"note_version": 2, "words": "a"}', "here") == Note(3, "a", (1.0,))
    with pytest.raises(BundleError, match=r"here: expected the keys of note_version 2, got no 'words'; copy it"):
        newer.parse('{"note_version": 2}', "here")
    with pytest.raises(BundleError, match="expected note_version 3, got 1"):
        newer.parse('{"note_version": 1}', "here")


def test_a_file_that_cannot_be_read_is_one_too(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="absent: expected a file, got none that can be read: No such file"):
        FORMAT.read(tmp_path / "absent")
    (tmp_path / "latin").write_bytes('{"note_version": "Köln"}'.encode("latin-1"))
    with pytest.raises(BundleError, match="latin: expected JSON"):
        FORMAT.read(tmp_path / "latin")
