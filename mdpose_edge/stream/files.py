"""Sources that wait: image files, a video file, raw frames in a pipe. None of their frames is dropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.datasets.images import read_image
from mdpose_edge.errors import InputError
from mdpose_edge.stream.capture import Capture, file_capture, shown_url
from mdpose_edge.stream.frames import CapturedFrame, FrameSource, Note, ignore_note

MISSING_SHARE = 0.02
"""Of the frames that a header promises, so many may be missing at the end: some containers only estimate."""
MISSING_FRAMES = 3
"""And so many in a short video."""

_REMOTE_REMEDY = (
    "download it and name the file (without range requests on the server, FFmpeg cannot reach an index at the end of an"
    " MP4), or move the index to the front: ffmpeg -i IN -c copy -movflags +faststart OUT"
)


class ImageSource(FrameSource):
    """Image files as frames, each turned upright as its EXIF orientation says; one that cannot be read is an error.

    Args:
        paths: the files.
        fps: gives them times.
    """

    def __init__(self, paths: Sequence[Path], *, fps: float) -> None:
        super().__init__(str(paths[0]) if len(paths) == 1 else f"{len(paths)} images")
        self.paths = list(paths)
        self.fps, self.total = fps, len(paths)
        self._closed = False

    def __iter__(self) -> Iterator[CapturedFrame]:
        assert self.fps is not None
        for index, path in enumerate(self.paths):
            if self._closed:
                return
            yield CapturedFrame(index, index / self.fps, read_image(path, orient=True), str(path), is_file=True)

    def close(self) -> None:
        """End the iteration before the next image."""
        self._closed = True


class VideoFile(FrameSource):
    """A video file, wherever it lies.

    Args:
        path: the file, or the URL of `capture`.
        note: called about frames that are skipped.
        capture: what is open already.

    Raises:
        InputError: it cannot be opened.
    """

    def __init__(self, path: Path | str, *, note: Note = ignore_note, capture: Capture | None = None) -> None:
        super().__init__(shown_url(path) if isinstance(path, str) else str(path), note=note)
        self._is_remote = isinstance(path, str)
        self._capture = file_capture(Path(path)) if capture is None else capture
        self.fps, self.total = self._capture.fps, self._capture.total
        self._closed = False

    def __iter__(self) -> Iterator[CapturedFrame]:
        index, last_s = 0, 0.0
        while not self._closed:
            found, image = self._capture.read()
            if not found:
                break
            last_s = self._time_s(index, last_s)
            if self._usable(image, index):
                assert image is not None
                yield CapturedFrame(index, last_s, image, self.name)
            index += 1
        if not self._closed:
            self._capture.release()
            self._check_whole(index)

    def close(self) -> None:
        """End the iteration before the next frame."""
        self._closed = True

    def _time_s(self, index: int, last_s: float) -> float:
        """Give the frame's time by the file, or by its rate where the file's times do not advance."""
        stated = self._capture.position_s()
        if index == 0 or stated > last_s:
            return max(0.0, stated)
        return last_s + 1 / (self.fps or 30.0)

    def _check_whole(self, frames: int) -> None:
        if frames == 0:
            do = _REMOTE_REMEDY if self._is_remote else "play it, or convert it"
            raise InputError(self.name, expected="a video with frames", got="none that decode", do=do)
        missing = (self.total or 0) - frames
        if missing > max(MISSING_FRAMES, MISSING_SHARE * (self.total or 0)):
            raise InputError(
                self.name,
                expected=f"{self.total} frames, as its header says",
                got=f"{frames} before the data breaks off",
                do="copy it again, or take what is there",
            )


class RawSource(FrameSource):
    """Raw BGR frames of one size with nothing between them, as `ffmpeg -f rawvideo -pix_fmt bgr24` writes.

    Args:
        file: where they are read from.
        size_wh: width and height, px.
        fps: gives them times.
    """

    def __init__(self, file: BinaryIO, size_wh: tuple[int, int], *, fps: float) -> None:
        super().__init__("stdin")
        self.fps = fps
        self._file, self._size_wh = file, size_wh
        self._closed = False

    def __iter__(self) -> Iterator[CapturedFrame]:
        assert self.fps is not None
        width, height = self._size_wh
        index = 0
        while not self._closed:
            image = np.empty((height, width, 3), np.uint8)
            got = _fill(self._file, image)
            if got < image.nbytes:
                self._check_end(index, got, image.nbytes)
                return
            yield CapturedFrame(index, index / self.fps, image, self.name)
            index += 1

    def close(self) -> None:
        """End the iteration before the next frame."""
        self._closed = True

    def _check_end(self, frames: int, got: int, frame_bytes: int) -> None:
        width, height = self._size_wh
        if got or not frames:
            tail = f"{frames} and {got} bytes of another" if frames else f"{got} bytes"
            do = "check --frame-size, and that the sender writes 3 bytes a pixel (bgr24)"
            expected = f"whole frames of {width}x{height}, {frame_bytes} bytes each"
            raise InputError(self.name, expected=expected, got=tail, do=do)


def _fill(file: BinaryIO, image: NDArray[np.uint8]) -> int:
    """Read into an image until it is full or the file ends; give the bytes that came."""
    view = image.data.cast("B")
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])  # type: ignore[attr-defined]  # every binary file has it
        if not count:
            break
        done += count
    return done
