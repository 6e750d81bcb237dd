"""Files and folders appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mdpose_edge.errors import MdposeError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that no reader ever sees a part of it.

    Args:
        path: replaced where it exists; missing parent folders are made.
        data: the whole content.
    """
    with open_whole(path) as file:
        file.write(data)


@contextmanager
def open_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing piece by piece, so that no reader ever sees a part of it.

    The bytes go to a temporary sibling, which then takes the file's name; a crash leaves the old file, or none.

    Args:
        path: replaced where it exists; missing parent folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        temporary.chmod(0o666 & ~_umask())  # mkstemp's 0600 would lock out other readers of a result
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def write_folder(out: Path, *, kind: str, is_own: Callable[[Path], bool], error: type[MdposeError]) -> Iterator[Path]:
    """Write a folder that appears whole or not at all.

    The body of the `with` writes into the temporary sibling it is given. When it ends, the bytes are synced and the
    folder takes its name; when it raises, the folder is removed. What a killed process leaves behind is hidden, and in
    nobody's way.

    Args:
        out: the folder; an earlier one of the same kind is replaced, anything else is refused.
        kind: what the folder is, for messages: "bundle".
        is_own: says whether a folder is of that kind, so that it may be deleted with all that is in it.
        error: the MdposeError to raise.

    Yields:
        The folder to write into.

    Raises:
        error: `out` holds something else, or cannot be written.
    """
    out = out.resolve()
    _check_replaceable(out, kind, is_own, error)
    temporary = _sibling(out)
    try:
        temporary.mkdir(parents=True)
    except OSError as failure:
        raise error(str(out), expected="a place to write", got=str(failure), do="choose another path") from failure
    try:
        yield temporary
        for path in (*temporary.rglob("*"), temporary):
            sync_to_disk(path)
        _check_replaceable(out, kind, is_own, error)
        _move_into_place(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync_to_disk(path: Path) -> None:
    """Ask for a file's bytes, or a folder's names, to be on disk: after a power cut no name stands for half of it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def visible_files(folder: Path) -> set[str]:
    """List the files in a folder and below, as relative POSIX names, without those that are hidden."""
    names = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    return {name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts)}


def file_sha256(path: Path) -> str:
    """Hash a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _check_replaceable(out: Path, kind: str, is_own: Callable[[Path], bool], error: type[MdposeError]) -> None:
    if not out.exists() or (out.is_dir() and is_own(out)):
        return
    got = f"a directory that is no {kind}" if out.is_dir() else "a file"
    raise error(str(out), expected=f"a new path or an earlier {kind}", got=got, do="remove it or choose another path")


def _move_into_place(temporary: Path, out: Path) -> None:
    if not out.exists():
        temporary.rename(out)
        return
    old = out.rename(_sibling(out))
    try:
        temporary.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old)


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
