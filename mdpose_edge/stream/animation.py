"""Animated pictures that FFmpeg does not decode, read like a video; and the door for every video file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.optional import available
from mdpose_edge.datasets.animations import needs_opencv
from mdpose_edge.errors import InputError
from mdpose_edge.stream.capture import FileCapture, file_capture
from mdpose_edge.stream.pyav import AvReader

_HEAD_BYTES = 1 << 16
AT_ONCE = 16
"""Pictures decoded in one go, which each time begins at the first: a compromise of memory and time."""


def open_file(path: Path) -> FileCapture:
    """Open a video file or an animated picture: with PyAV where it is installed, which sees a change of size.

    Raises:
        InputError: no such file, a folder, or nothing that can be decoded.
    """
    if path.is_file():
        with open(path, "rb") as file:
            if needs_opencv(file.read(_HEAD_BYTES)):
                return Animation(path)
        if available("av"):
            with suppress(OSError):  # OpenCV may open it by another backend, and else says what is wrong
                return AvReader(path)
    return file_capture(path)


class Animation:
    """The pictures of an animated WebP, AVIF or GIF.

    Args:
        path: the file.

    Raises:
        InputError: this OpenCV does not decode it.
    """

    def __init__(self, path: Path) -> None:
        if not hasattr(cv2, "imreadanimation"):
            expected, got = "an OpenCV from 4.11 on for an animated picture", cv2.__version__
            raise InputError(str(path), expected=expected, got=got, do="update it, or convert the file to MP4")
        self._path = path
        self._pictures: list[tuple[NDArray[Any], float]] = []
        self._read, self._over = 0, False
        self._time_s, self._next_s = 0.0, 0.0
        self._fetch()
        if not self._pictures:
            do = "play it to see whether it is whole, or convert it"
            raise InputError(str(path), expected="a video", got="nothing that OpenCV can open", do=do)
        self.total: int | None = None
        self.fps: float | None = 1 / max(1e-3, self._pictures[0][1])

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        """Return the next picture, BGR; False at the end."""
        if not self._pictures:
            self._fetch()
        if not self._pictures:
            return False, None
        image, seconds = self._pictures.pop(0)
        self._time_s, self._next_s = self._next_s, self._next_s + seconds
        return True, np.ascontiguousarray(image[..., :3], np.uint8)

    def position_s(self) -> float:
        """Return the time of the picture that was read last, by the file."""
        return self._time_s

    def release(self) -> None:
        """Let go of the pictures."""
        self._pictures, self._over = [], True

    def _fetch(self) -> None:
        if self._over:
            return
        try:
            found, animation = cv2.imreadanimation(str(self._path), self._read, AT_ONCE)
        except cv2.error:
            found = False
        if not found:
            self._over = True
            return
        seconds = [ms / 1e3 for ms in np.asarray(animation.durations).tolist()]
        self._pictures = list(zip(animation.frames, seconds, strict=True))
        self._read += len(self._pictures)
        self._over = len(self._pictures) < AT_ONCE
