"""A file played at its own speed, as if a camera saw it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from mdpose_edge.stream.frames import CapturedFrame, FrameSource
from mdpose_edge.stream.sources import DEFAULT_FPS

LATE_S = 0.1
"""A frame that comes this much after its time is dropped, and counted."""


def play(open_file: Callable[[], FrameSource], stop: threading.Event, *, loop: bool = False) -> FrameSource:
    """Open a source; one that is not live is played at its own speed, and where `loop` is true over and over."""
    source = open_file()
    return source if source.live else PacedSource(source, open_file, stop, loop=loop)


class PacedSource(FrameSource):
    """Gives each frame of a file when its time has come; like a camera's, frames that come too late are dropped.

    Args:
        file: a source that is not live.
        open_file: opens it again.
        stop: set it, and waiting for the next frame ends at once.
        loop: begin again at the end.
    """

    live = True

    def __init__(
        self, file: FrameSource, open_file: Callable[[], FrameSource], stop: threading.Event, *, loop: bool = False
    ) -> None:
        super().__init__(file.name)
        self._file, self._open, self._stop, self._loop = file, open_file, stop, loop
        self.fps = file.fps
        self.total = None if loop else file.total

    def __iter__(self) -> Iterator[CapturedFrame]:
        first_index, first_s = 0, 0.0
        while True:
            last: CapturedFrame | None = None
            for frame in self._in_time():
                last = replace(frame, index=first_index + frame.index, time_s=first_s + frame.time_s)
                yield last
            self.skipped += self._file.skipped
            self._file.close()
            if not self._loop or last is None or self._stop.is_set():
                return
            first_index, first_s = last.index + 1, last.time_s + 1 / (self.fps or DEFAULT_FPS)
            self._file = self._open()

    def close(self) -> None:
        """Release the file; calling it twice is harmless."""
        self._file.close()

    def _in_time(self) -> Iterator[CapturedFrame]:
        start = time.monotonic()
        for frame in self._file:
            wait_s = start + frame.time_s - time.monotonic()
            if wait_s < -LATE_S:
                self.dropped += 1
                continue
            if self._stop.wait(max(0.0, wait_s)):
                return
            yield frame
