"""What a command writes takes the place of nothing that it reads, and of no file that it did not make.

A file's own content says whether it is an earlier result: pictures, pages and JSON documents carry MADE_BY, and lines,
lists and recordings have a form of their own.
"""

from __future__ import annotations

import glob
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from mdpose_edge.common.files import refuse_url
from mdpose_edge.common.json_text import parse_json
from mdpose_edge.errors import OutputError

MADE_BY = "mdpose-edge"
"""What every picture, page and JSON document of ours says of itself within its first bytes."""
MADE_BY_KEY = "made_by"
"""The first key of a JSON document."""
STDOUT = "-"

_HEAD_BYTES = 4096
_TEXTS = (
    re.compile(rb'\{\s*"' + MADE_BY_KEY.encode() + rb'":\s*"' + MADE_BY.encode()),
    re.compile(
        rb'\[\s*(\]|\{"image_id": -?\d+, "category_id": -?\d+, ("keypoints"|"score": [^,]+, "bbox"): \[)'
    ),  # COCO results, of keypoints, or of boxes after their score: those of others have it last
    re.compile(rb'\{"frame":\d+,"time_s":'),  # a line of --jsonl
    re.compile(rb"# Written by " + MADE_BY.encode()),  # a run's configuration
    re.compile(rb"frame,time_s,source,track_id,score,"),
    re.compile(rb'(?s).{8}\{"__metadata__":\{"spec":"'),  # a checkpoint of a finished model
)
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_PAGE = b"<!doctype html>"
_RECORDING_MEMBERS = {"meta.npy", "spec.npy"}
_SEALED = {"spec.json": "spec_version", "calib.json": "digest"}
"""A bundle's and a calibration set's own file, and a key of it: such a folder holds what it lists and nothing else."""


def check_outputs(
    outputs: Mapping[str, str | Path | None], inputs: Iterable[str | Path | None], *, force: bool = False
) -> None:
    """Refuse, before any work, an output that would destroy something.

    Args:
        outputs: the file that each option names; None, "-", folders, devices and pipes are passed over.
        inputs: files, folders and globs that the command reads; what is no path is passed over.
        force: True lets an output replace a file that no command here made; never one that is read.

    Raises:
        OutputError: a URL is named; a file is read by the command, lies in a folder that it reads, would break the
            bundle or the calibration set around it, is not of our making, or is named twice.
    """
    sources = [Path(found) for given in inputs if given is not None for found in glob.glob(str(given))]
    taken: dict[Path, str] = {}
    for option, name in outputs.items():
        if name is None or str(name) == STDOUT or Path(name).is_dir():
            continue
        refuse_url(name, where=option, error=OutputError)
        path = Path(name)
        if path.exists() and not path.is_file():
            continue
        first = taken.setdefault(path.resolve(), option)
        if first != option:
            raise OutputError(option, expected=f"another file than {first}", got=str(path), do="rename one")
        check_output(option, path, sources, force=force)


def check_output(option: str, path: Path, sources: Iterable[Path], *, force: bool = False) -> None:
    """Refuse one file: see `check_outputs`."""
    where = f"{option} {path}"
    sealed = _sealed_around(path)
    if sealed is not None:
        got = f"a place in {sealed}, which may hold nothing but its own files"
        raise OutputError(where, expected="a file of its own", got=got, do="name another place")
    if not path.is_file():
        return
    is_own = is_made_here(path)
    may_be_read = not is_own or _head(path).startswith(_PICTURES)  # painted pictures are sources too
    for source in sources:
        if path.samefile(source):
            raise OutputError(where, expected="a file of its own", got="the source itself", do="name another file")
        if may_be_read and path.resolve().is_relative_to(source.resolve()):
            got = f"a file of {source}, which is read"
            raise OutputError(where, expected="a file of its own", got=got, do="name another file")
    if not is_own and not force:
        expected, got = "a new file or an earlier result", "a file that was not made here"
        raise OutputError(where, expected=expected, got=got, do="name another file, or replace it with --force")


def is_made_here(path: Path) -> bool:
    """Say whether a file's content is that of an earlier output; an empty file is nobody's loss.

    Videos say nothing of who made them, and so are never known to be ours.
    """
    head = _head(path)
    if head.startswith((*_PICTURES, _PAGE)):
        return MADE_BY.encode() in head
    if head.startswith(b"PK"):
        return _is_recording(path)
    return not head or any(form.match(head) for form in _TEXTS)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _is_recording(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return set(archive.namelist()) >= _RECORDING_MEMBERS
    except (OSError, zipfile.BadZipFile):
        return False


def _sealed_around(path: Path) -> Path | None:
    """Return the bundle or calibration set that a file lies in, or would; hidden files are nobody's business there."""
    if path.name.startswith("."):
        return None
    for folder in path.resolve().parents:
        for name, key in _SEALED.items():
            try:
                record = parse_json((folder / name).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(record, dict) and key in record:
                return folder
    return None
