"""The command line's last door: standard files that are closed or have no reader, and errors that nobody foresaw."""

from __future__ import annotations

import io
import os
import platform
import sys
import tempfile
import traceback
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO, cast

from mdpose_edge import __version__
from mdpose_edge.common.secrets import without_secrets

CRASHED = 3
"""Exit code of a fault of this program's own."""
_PACKAGES = ("numpy", "opencv-python", "av", "torch", "onnxruntime", "openvino", "tensorrt")


class ReaderMayLeave:
    """A standard stream that goes on into nothing once its reader has left, as with `| head -1`: work is not cut short.

    Args:
        stream: written to as long as somebody reads.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or drop what nobody reads any more."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        """Flush likewise."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _drop(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def hold_standard_files() -> None:
    """Keep files that are opened later from taking the place of a closed stdin, stdout or stderr, and wrap the two.

    A stdout that is closed stays None, so that who is asked to write there can say so.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    if sys.stdout is not None:
        if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may be what the encoding has not
            sys.stdout.reconfigure(errors="backslashreplace")
        sys.stdout = cast(TextIO, ReaderMayLeave(sys.stdout))
    sys.stderr = open(os.devnull, "w") if sys.stderr is None else cast(TextIO, ReaderMayLeave(sys.stderr))  # noqa: SIM115


def crash_sentence(error: BaseException) -> str:
    """Write a report of an error that nobody foresaw; say in a sentence what it was and where the report lies."""
    told = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    report = _write_report(error)
    do = f"send {report} with what you ran" if report else "no report could be written; run it again where one can be"
    return without_secrets(f"expected no fault of this program's own, got {told}; {do}.")


def _write_report(error: BaseException) -> Path | None:
    lines = [
        f"mdpose-edge {__version__}, Python {platform.python_version()}, {platform.platform()}",
        ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        f"command: {' '.join(sys.argv)}",
        "",
        *traceback.format_exception(error),
    ]
    for folder in (None, "."):  # the usual place, or else here
        try:
            handle, name = tempfile.mkstemp(".txt", "mdpose-edge-crash-", folder)
            with os.fdopen(handle, "w", errors="backslashreplace") as file:
                file.write(without_secrets("\n".join(lines)))
        except OSError:
            continue
        return Path(name).resolve()
    return None


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, OSError):
        return "absent"
