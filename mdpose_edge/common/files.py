"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mdpose_edge.errors import MdposeError, OutputError

_NO_TEMPORARY_FOLDER = "No usable temporary directory"
"""How Python's tempfile begins to say so."""
_LOOKS = 5
"""A folder that another run is just replacing is neither there nor absent while one looks."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""As a path has it, which makes one slash of two; one letter before the colon is a drive."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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

    The bytes go to a temporary sibling, which then takes the file's name; a crash leaves the old file, or none. A
    device or a pipe, such as /dev/null, is written to when all bytes are there: a sibling would take its place.

    Args:
        path: replaced where it exists; missing parent folders are made.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with tempfile.TemporaryFile() as gathered:
            yield gathered
            gathered.seek(0)
            with open(path, "wb") as device:
                shutil.copyfileobj(gathered, device)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        set_usual_mode(temporary)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # what failed is a write, which knows no name
            error.filename = str(path)
        raise


def refuse_url(out: str | Path, *, where: str, error: type[MdposeError]) -> None:
    """Refuse an output that is named by a URL, of which a folder of the scheme's name would be made.

    Args:
        out: the path.
        where: what the message begins with: the option, or the path itself.
        error: the MdposeError to raise.

    Raises:
        error: `out` begins with a scheme.
    """
    if _URL.match(str(Path(out))):
        raise error(where, expected="a file or a folder", got=f"a URL, {out}", do="name a path")


def check_replaceable(out: Path, *, kind: str, is_own: Callable[[Path], bool], error: type[MdposeError]) -> None:
    """Refuse a place that `write_folder` would refuse, for callers whose work is long.

    Args:
        out: the folder.
        kind: what it is to be, for messages.
        is_own: says whether a folder is of that kind.
        error: the MdposeError to raise.

    Raises:
        error: `out` holds something else, or is a URL.
    """
    refuse_url(out, where=str(out), error=error)
    if any((out.is_dir() and is_own(out)) or not out.exists() for _ in range(_LOOKS)):
        return
    got = f"a directory that is no {kind}" if out.is_dir() else "a file"
    raise error(str(out), expected=f"a new path or an earlier {kind}", got=got, do="remove it or choose another path")


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
    check_replaceable(out, kind=kind, is_own=is_own, error=error)
    out = out.resolve()
    temporary = _sibling(out)
    try:
        temporary.mkdir(parents=True)
    except OSError as failure:
        raise error(str(out), expected="a place to write", got=str(failure), do="choose another path") from failure
    try:
        yield temporary
        for path in (*temporary.rglob("*"), temporary):
            sync_to_disk(path)
        check_replaceable(out, kind=kind, is_own=is_own, error=error)
        _move_into_place(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def files_together(folder: Path) -> Iterator[Path]:
    """Let files appear in a folder all at once, beside what is there already, or none of them.

    The body of the `with` writes into the hidden folder it is given. When it ends, its files move into `folder`, which
    is made where missing; when it raises, nothing is left of them, nor of `folder`.

    Args:
        folder: files of the same names are replaced.

    Yields:
        The folder to write into; no folders in it.
    """
    staging = Path(tempfile.mkdtemp(dir=nearest_folder(folder), prefix=f".{folder.name}."))
    try:
        yield staging
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(staging.iterdir()):
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def nearest_folder(path: Path) -> Path:
    """Return the path itself, or the nearest above it that exists; whether it is a folder is for the caller to see."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def refused(where: str | Path, error: OSError, kept: str) -> OutputError:
    """Say what the system answered to a write.

    Args:
        where: the file or folder.
        error: its answer.
        kept: what became of what was written before, and what else to do: "nothing of it was kept".
    """
    if (error.strerror or "").startswith(_NO_TEMPORARY_FOLDER):
        got, do = "none that can be written", "set TMPDIR to one"
        return OutputError("temporary files", expected="a folder for them", got=got, do=do)
    got = f"the system's answer: {error.strerror or error}"
    remedy = "free some space there" if error.errno in _FULL else "check the path and its permissions"
    return OutputError(str(where), expected="a place to write", got=got, do=f"{remedy}; {kept}")


@contextmanager
def written_by_library(path: Path) -> Iterator[None]:
    """Name the file and a reason where a C++ library fails to write, of which it says neither.

    Raises:
        OutputError: in place of its RuntimeError.
    """
    try:
        yield
    except RuntimeError as error:
        got = f"{error}, with {shutil.disk_usage(path.parent).free / 1e6:.1f} MB free"
        do = "free some space there, or choose another path"
        raise OutputError(path.name, expected="a place to write", got=got, do=do) from error


def set_usual_mode(path: Path) -> None:
    """Set a file's rights to those that open() gives: a temporary file's 0600 would lock out other readers."""
    path.chmod(0o666 & ~_umask())


def sync_to_disk(path: Path) -> None:
    """Ask for a file's bytes, or a folder's names, to be on disk: after a power cut no name stands for half of it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def name_text(name: str | Path) -> str:
    """Return a file's name as text that can be written: bytes that are not UTF-8 become escapes.

    A name that is UTF-8 stays itself where the locale is another, and Python took its bytes for what they are not.
    """
    text = str(name)
    with suppress(UnicodeEncodeError):  # not from this file system: an annotation's, or an address
        text = os.fsencode(text).decode("utf-8", "surrogateescape")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def visible_files(folder: Path) -> set[str]:
    """List the files in a folder and below, as relative POSIX names, without those that are hidden.

    What vanishes meanwhile, or may not be read, is left out: a folder that others write into can be asked too.
    """
    found = set()
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = (Path(parent, name) for name in names if not name.startswith("."))
        found |= {file.relative_to(folder).as_posix() for file in files if file.is_file()}
    return found


def file_sha256(path: Path) -> str:
    """Hash a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _move_into_place(temporary: Path, out: Path) -> None:
    """Give a folder its name, whatever has it; of several that want it at the same time, the last keeps it."""
    while True:
        old = _moved_aside(out)
        try:
            temporary.rename(out)
        except OSError as failure:
            if failure.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another run's came between
                if old is not None:
                    shutil.rmtree(old)
                continue
            if old is not None:
                old.rename(out)
            raise
        if old is not None:
            shutil.rmtree(old)
        return


def _moved_aside(out: Path) -> Path | None:
    try:
        return out.rename(_sibling(out))
    except FileNotFoundError:
        return None


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
