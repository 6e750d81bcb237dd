"""Where results go as text: lines of JSON or CSV, and COCO results.

A line is written whole or not at all, and stands in the file at once, so that others can follow it. A run without a
frame leaves no file, and an older one as it was.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from mdpose_edge.common.files import open_whole, refused, write_whole
from mdpose_edge.common.sole import claim, release
from mdpose_edge.datasets.image_ids import ImageIds, image_list, image_list_beside
from mdpose_edge.errors import OutputError
from mdpose_edge.spec import KeypointSpec
from mdpose_edge.stream.records import coco_records, csv_header, csv_lines, frame_record
from mdpose_edge.stream.result import FrameResult

STDOUT = "-"


class LineFile:
    """A file, or stdout, that only ever holds whole lines.

    Args:
        target: a path, or "-" for stdout. An older file is emptied by the first write.

    Raises:
        OutputError: it cannot be opened, or another run writes into it.
    """

    def __init__(self, target: str | Path) -> None:
        self.name = str(target)
        self.lines = 0
        if self.name == STDOUT and sys.stdout is None:
            raise OutputError(STDOUT, expected="an open stdout", got="a closed one", do="name a file")
        self._whole = 0
        self._is_new = self.name != STDOUT and not Path(target).exists()
        try:
            if self.name == STDOUT:
                self._handle = os.dup(sys.stdout.fileno())
            else:
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                self._handle = os.open(target, os.O_WRONLY | os.O_CREAT, 0o666)
        except OSError as error:
            raise refused(self.name, error, "or name another file") from error
        self._is_file = self.name != STDOUT and stat.S_ISREG(os.fstat(self._handle).st_mode)
        if self._is_file:  # lines of two runs would get mixed up
            try:
                claim(self._handle, Path(target))
            except OutputError:
                release(self._handle)
                raise

    def write(self, text: str) -> None:
        """Write whole lines.

        Raises:
            OutputError: the system refuses; the lines before are whole, and nothing of these is left.
            BrokenPipeError: stdout's reader has gone.
        """
        data = memoryview(text.encode())
        try:
            if not self._whole and self._is_file:
                os.ftruncate(self._handle, 0)
            done = 0
            while done < len(data):
                done += os.write(self._handle, data[done:])
        except BrokenPipeError:
            raise
        except OSError as error:
            with suppress(OSError):  # a pipe cannot be cut
                os.ftruncate(self._handle, self._whole)
            raise refused(self.name, error, f"its first {self.lines} lines are whole") from error
        self._whole += len(data)
        self.lines += text.count("\n")

    def close(self) -> None:
        """Close it, and remove it where it is new and nothing was written; calling it twice is harmless."""
        if self._handle >= 0:
            release(self._handle)
            self._handle = -1
            if self._is_new and not self._whole:
                Path(self.name).unlink(missing_ok=True)


class JsonlSink:
    """A line of JSON for each frame: time, poses with scores and sigmas in px, track ids, stage times.

    Args:
        target: a path, or "-" for stdout.
        classes: names of what is found, where these are several.
    """

    def __init__(self, target: str | Path, classes: Sequence[str] = ()) -> None:
        self._file, self._classes = LineFile(target), classes

    def write(self, result: FrameResult) -> None:
        """Write a frame; see Sink."""
        self._file.write(json.dumps(frame_record(result, self._classes), separators=(",", ":")) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def summary(self) -> dict[str, Any]:
        """Say what was written."""
        return {"kind": "jsonl", "file": self._file.name, "frames": self._file.lines}


class CsvSink:
    """A line for each pose, with the coordinates and sigmas of its keypoints in px.

    Args:
        target: a path, or "-" for stdout.
        keypoints: their names are the columns'; without any, a line has the pose's box in px and its class.
        classes: names of what is found, where these are several.
    """

    def __init__(self, target: str | Path, keypoints: KeypointSpec, classes: Sequence[str] = ()) -> None:
        self._file, self._classes = LineFile(target), classes
        self._header = csv_header(keypoints.names)

    def write(self, result: FrameResult) -> None:
        """Write a frame's poses; see Sink."""
        header, self._header = self._header, ""
        self._file.write(header + csv_lines(result, self._classes))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def summary(self) -> dict[str, Any]:
        """Say what was written."""
        return {"kind": "csv", "file": self._file.name, "poses": max(0, self._file.lines - 1)}


class CocoSink:
    """COCO results, as its evaluation takes them: one JSON list, which appears when it is whole; none without a frame.

    Args:
        path: replaced where it exists.
        ids: of image files, which are then listed beside the results: see image_list_beside.
        classes: names of what is found, where these are several; the list names their categories.
    """

    def __init__(self, path: str | Path, ids: ImageIds | None = None, classes: Sequence[str] = ()) -> None:
        self._path, self._ids, self._classes = Path(path), ids, classes
        self._images: list[dict[str, Any]] = []
        self._count, self._empty = 0, True
        self._writing: AbstractContextManager[BinaryIO] | None = None
        with system_answers(self._path, "or name another file"):
            self._writing = open_whole(self._path)
            self._file = self._writing.__enter__()
            self._file.write(b"[")

    def write(self, result: FrameResult) -> None:
        """Write a frame's poses; see Sink."""
        self._empty = False
        with system_answers(self._path, "nothing of it was kept", self):
            if self._ids is not None:
                self._images.append(self._ids.image_record(result.frame.name, result.frame.image_bgr.shape))
            for record in coco_records(result, self._ids):
                self._file.write((",\n" if self._count else "\n").encode() + json.dumps(record).encode())
                self._count += 1

    def close(self) -> None:
        """Let the file appear."""
        if self._empty:
            self.discard(RuntimeError("no frame came"))
        with system_answers(self._path, "nothing of it was kept", self):
            if self._writing is not None:
                self._file.write(b"\n]\n")
                self._file.flush()
                writing, self._writing = self._writing, None
                writing.__exit__(None, None, None)
                if self._images:
                    write_whole(image_list_beside(self._path), image_list(self._images, self._categories()))

    def _categories(self) -> list[dict[str, Any]]:
        """Return the category of each class, where these are several."""
        if not self._classes:
            return []
        ids = None if self._ids is None else self._ids.category_ids
        numbers = ids or range(1, len(self._classes) + 1)
        return [{"id": number, "name": name} for number, name in zip(numbers, self._classes, strict=True)]

    def discard(self, error: BaseException) -> None:
        """Remove what was written so far."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            with suppress(OSError):
                writing.__exit__(type(error), error, error.__traceback__)

    def summary(self) -> dict[str, Any]:
        """Say what was written."""
        return {"kind": "coco", "file": str(self._path), "poses": self._count}


@contextmanager
def system_answers(where: Path, kept: str, sink: CocoSink | None = None) -> Iterator[None]:
    """Turn what the system answers into an OutputError, and discard what the sink can no longer finish."""
    try:
        yield
    except BaseException as error:
        if sink is not None:
            sink.discard(error)
        if isinstance(error, OSError):
            raise refused(where, error, kept) from error
        raise
