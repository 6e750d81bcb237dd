"""Sources that wait: image files, a video file, raw frames in a pipe. None of their frames is dropped."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.datasets.images import decode_image, read_image
from mdpose_edge.errors import InputError
from mdpose_edge.stream.animation import open_file
from mdpose_edge.stream.capture import Capture, FileCapture
from mdpose_edge.stream.containers import Container, count_frames, read_container
from mdpose_edge.stream.frames import CapturedFrame, FrameSource, Note, ignore_note

MISSING_SHARE = 0.02
"""Of the frames that a header promises, so many may be missing at the end: some containers only estimate."""
MISSING_FRAMES = 3
"""And so many in a short video."""
DAMAGED_FRAMES, DAMAGE_S = 300, 2.0
"""So many frames in a row, and for so long, may fail to decode before a video counts as over."""
CHANGES_SIZE = (
    ".264", ".265", ".flv", ".h264", ".h265", ".hevc", ".m2ts", ".mkv", ".mpeg", ".mpg", ".mts", ".ts", ".vob", ".webm",
)  # fmt: skip
"""Containers of broadcasts and recorded calls, whose frames may change size on the way."""
SIZE_UNSEEN = (
    "read by OpenCV, which scales frames of another size than the first without a word; the extra video sees it."
)
DAMAGED = "expected a picture, got damaged data; copy the file again."

_REMOTE_REMEDY = (
    "download it and name the file (without range requests on the server, FFmpeg cannot reach an index at the end of an"
    " MP4), or move the index to the front: ffmpeg -i IN -c copy -movflags +faststart OUT"
)


class ImageSource(FrameSource):
    """Image files as frames, each turned upright as its EXIF orientation says.

    One of several that cannot be read is skipped, counted and told; where none can be read, the last is an error.

    Args:
        paths: the files.
        fps: gives them times.
        strict: True makes the first that cannot be read an error.
        note: called about each that is skipped.
    """

    def __init__(self, paths: Sequence[Path], *, fps: float, strict: bool = False, note: Note = ignore_note) -> None:
        super().__init__(str(paths[0]) if len(paths) == 1 else f"{len(paths)} images", note=note)
        self.paths = list(paths)
        self.fps, self.total = fps, len(paths)
        self._strict, self._closed = strict, False

    def __iter__(self) -> Iterator[CapturedFrame]:
        assert self.fps is not None
        for index, path in enumerate(self.paths):
            if self._closed:
                return
            try:
                image = read_image(path, orient=True)
            except InputError as error:
                self.skipped += 1
                if self._strict or self.skipped == len(self.paths):
                    raise
                self._note(f"skipped: {error}")
                continue
            yield CapturedFrame(index, index / self.fps, image, str(path), is_file=True)

    def close(self) -> None:
        """End the iteration before the next image."""
        self._closed = True


class WebImage(FrameSource):
    """A picture from the web as one frame, turned upright as its EXIF orientation says.

    Args:
        url: where it came from.
        data: the whole file.
    """

    def __init__(self, url: str, data: bytes) -> None:
        super().__init__(url)
        self.total = 1
        self._data = data

    def __iter__(self) -> Iterator[CapturedFrame]:
        yield CapturedFrame(0, 0.0, decode_image(self._data, self.name, orient=True), self.name, is_file=True)

    def close(self) -> None:
        """Do nothing: there is nothing open."""


class VideoFile(FrameSource):
    """A video file, wherever it lies, or an animated picture.

    A frame that does not decode is skipped and counted; those that follow are read. Each has its container's time.

    Args:
        path: the file, or the URL of `capture`.
        note: called about frames that are skipped, and of tracks that are not read.
        capture: what is open already.

    Raises:
        InputError: it cannot be opened.
    """

    def __init__(self, path: Path | str, *, note: Note = ignore_note, capture: FileCapture | None = None) -> None:
        super().__init__(str(path), note=note)
        self._path, self._is_remote = path, isinstance(path, str)
        self._capture = open_file(Path(path)) if capture is None else capture
        self._container = Container() if self._is_remote else read_container(Path(path))
        self.fps, self.total = self._capture.fps, self._capture.total
        self._closed = False
        self._last_s, self._step_s = 0.0, 0.0
        if isinstance(self._capture, Capture) and Path(path).suffix.lower() in CHANGES_SIZE and not self._is_remote:
            note(f"{self.name}: {SIZE_UNSEEN}")
        if (self._container.tracks or 1) > 1:
            note(f"{self.name}: the first of its {self._container.tracks} video tracks is read.")

    def __iter__(self) -> Iterator[CapturedFrame]:
        try:
            for index, image in self._pictures():
                time_s = self._time_s(index)
                self._last_s, self._step_s = time_s, time_s - self._last_s if index else 1 / (self.fps or 30.0)
                if self._usable(image, index):
                    assert image is not None
                    yield CapturedFrame(index, self._last_s, image, self.name)
        finally:
            self._capture.release()

    def close(self) -> None:
        """End the iteration before the next frame."""
        self._closed = True

    def _pictures(self) -> Iterator[tuple[int, NDArray[np.uint8] | None]]:
        """Return what decodes, numbered together with what does not; at the end, see whether it is the end."""
        index = 0
        while not self._closed:
            found, image, lost = self._next()
            if not found:
                if not self._closed:
                    self._check_whole(index)
                return
            if lost:
                self._skip(f"{self.name}, frame {index}: {DAMAGED}", lost)
            yield index + lost, image
            index += lost + 1

    def _next(self) -> tuple[bool, NDArray[np.uint8] | None, int]:
        """Read the next frame: whether there is one, its picture, and how many were lost before it.

        OpenCV answers a damaged packet as it answers the end.
        """
        give_up_s = time.monotonic() + DAMAGE_S
        for lost in range(DAMAGED_FRAMES):
            found, image = self._capture.read()
            if found or time.monotonic() > give_up_s or self._closed:
                return found, image, lost
        return False, None, 0

    def _time_s(self, index: int) -> float:
        """Return the frame's time by the file, or by its rate where the file's times do not advance."""
        stated = self._capture.position_s()
        if index == 0 or stated > self._last_s:
            return max(0.0, stated)
        return self._last_s + 1 / (self.fps or 30.0)

    def _check_whole(self, frames: int) -> None:
        """Raise where the data ends before the video does; `frames` counts those that were lost on the way."""
        if frames == 0:
            do = _REMOTE_REMEDY if self._is_remote else "play it, or convert it"
            raise InputError(self.name, expected="a video with frames", got="none that decode", do=do)
        if self._container.countable and (self._container.whole is None or self._seems_short(0)):
            self._container = count_frames(Path(self._path))
        if self._breaks_off(frames):
            known = self._exact_count() or (None if self._container.whole is False else self.total)
            expected = f"{known} frames, as its header says" if known else "a whole video"
            got = f"{frames} before the data breaks off"
            raise InputError(self.name, expected=expected, got=got, do="copy it again, or take what is there")
        if (missing := (self._container.frames or 0) - frames) > 0:
            self._skip(f"{self.name}, frame {frames}: {DAMAGED}", missing)

    def _breaks_off(self, frames: int) -> bool:
        exact, container = self._exact_count(), self._container
        if exact is not None:
            limit = max(MISSING_FRAMES, MISSING_SHARE * exact)  # an AVI of varying rate counts pauses as frames
            return exact - frames > limit and self._seems_short(limit)
        if container.whole is not None or self.total is None or self.fps is None:
            return container.whole is False
        return self._seems_short(max(MISSING_FRAMES, MISSING_SHARE * self.total))

    def _seems_short(self, missing: float) -> bool:
        """Say whether more than so many frames are missing by the time of the last one.

        By their number they may be: what a decoder gives is the length times a rate, which need not be steady.
        """
        if self.total is None or self.fps is None:
            return True
        return round(self.total - self.fps * (self._last_s + self._step_s), 1) > missing

    def _exact_count(self) -> int | None:
        """Return the number of frames where the file tells, rather than the decoder's estimate."""
        if self._container.frames is not None:
            return self._container.frames if self._container.whole else None
        return self._capture.total if self._container.states_count else None


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
