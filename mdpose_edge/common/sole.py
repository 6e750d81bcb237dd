"""One run at a time writes into a folder, or a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mdpose_edge.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows locks no folders
    fcntl = None  # type: ignore[assignment]

_LOCKS: bool = fcntl is not None
_held: set[int] = set()


@contextmanager
def sole_writer(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep a folder to this process until the block ends; the system ends it with a process that dies.

    Nothing is written for it. Where folders cannot be locked, on Windows and on some network file systems, several
    get in.

    Args:
        folder: exists.
        wait: until another process that has it lets it go.

    Raises:
        OutputError: another process has it, and one does not wait.
    """
    handle = os.open(folder, os.O_RDONLY) if _LOCKS else None
    if handle is None:
        yield
        return
    try:
        claim(handle, folder, wait=wait)
        yield
    finally:
        release(handle)


def claim(handle: int, path: Path, *, wait: bool = False) -> None:
    """Keep what is open to this process until `release`, which is due whether this fails or not; see `sole_writer`.

    Args:
        handle: of a folder or a file.
        path: of the same.
        wait: until another process that has it lets it go.

    Raises:
        OutputError: another process has it, and one does not wait.
    """
    if not _LOCKS:
        return
    _held.add(handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        kind, do = "folder" if path.is_dir() else "file", "wait for its end, or choose another path"
        raise OutputError(str(path), expected=f"a {kind} of this run's own", got="another run's", do=do) from error
    except OSError:  # no locks there
        return


def release(handle: int) -> None:
    """Close what was claimed."""
    _held.discard(handle)
    os.close(handle)


def _let_go() -> None:
    """Close what a fork copied: a worker that outlives a killed run would keep the folder from the next."""
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
