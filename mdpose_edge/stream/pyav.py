"""Videos by PyAV (the extra `video`): what OpenCV's reader and writer do not do.

Its reader follows a change of size on the way, which OpenCV scales away without a word, and gives the same pixels. Its
writer has H.264 and gives each frame its own time.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.optional import require

MOST_TICKS = 65_535
"""MPEG-4 counts time in ticks of a 16-bit clock."""
TIME_BASE = Fraction(1, 60_000)
"""Of what is written: the usual rates are whole numbers of it."""
ENCODERS = {"libx264": "H.264", "libopenh264": "H.264", "mpeg4": "MPEG-4"}
"""In the order of choice: FFmpeg's name, and the codec's."""
_OPTIONS = {"libx264": {"preset": "veryfast"}}
"""Others wait for the CPU too."""


class AvReader:
    """A video file, decoded by PyAV; see capture.FileCapture.

    Args:
        path: the file.

    Raises:
        OSError: there is nothing that FFmpeg can open, or no video in it.
    """

    def __init__(self, path: Path) -> None:
        self._av = _quiet_av("reading videos")
        try:
            self._container = self._av.open(str(path), metadata_errors="ignore")
        except (self._av.FFmpegError, ValueError) as error:
            raise OSError(str(error)) from error
        stream = self._container.streams.best("video")
        if stream is None:
            self._container.close()
            raise OSError("no video stream")
        stream.thread_type = "AUTO"
        rate = stream.average_rate or stream.guessed_rate
        self.fps: float | None = float(rate) if rate and 0 < rate < 1e4 else None
        self.total: int | None = stream.frames or self._estimate(stream)
        self._start = (stream.start_time or 0) * (stream.time_base or 0)
        self._frames, self._time_s = self._decoded(stream), 0.0

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        """Return the next frame, upright; False at the end, and where a packet does not decode."""
        frame = next(self._frames, None)
        if frame is None:
            return False, None
        self._time_s = 0.0 if frame.time is None else float(frame.time - self._start)
        image = frame.to_ndarray(format="bgr24")
        return True, np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90) % 4))

    def position_s(self) -> float:
        """Return the time of the frame that was read last, by the file."""
        return self._time_s

    def release(self) -> None:
        """Close it; calling it twice is harmless."""
        self._frames.close()
        self._container.close()

    def _decoded(self, stream: Any) -> Any:
        """Return frames, and None for each packet that does not decode."""
        packets = self._container.demux(stream)
        while True:
            try:
                yield from next(packets).decode()
            except (StopIteration, self._av.error.EOFError):
                return
            except self._av.FFmpegError:
                yield None

    def _estimate(self, stream: Any) -> int | None:
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        else:
            seconds = (self._container.duration or 0) / self._av.time_base
        return round(seconds * (self.fps or 0)) or None


class AvWriter:
    """A video file, encoded by PyAV.

    Args:
        path: its suffix names the container.
        fps: of the source, for the encoder's choices; the frames bring their own times.
        size_wh: even, px.

    Raises:
        OSError: no encoder opens, or the file does not.
    """

    def __init__(self, path: Path, fps: float, size_wh: tuple[int, int]) -> None:
        self._av = _quiet_av("painting videos")
        self._path, self._last_pts = path, -1
        rate = Fraction(fps).limit_denominator(max(1, min(1001, int(MOST_TICKS / fps))))
        self.keeps_times = path.suffix.lower() != ".avi"
        """Whether a frame may come at any time, rather than at the rate's: AVI states no times."""
        self._base = TIME_BASE if self.keeps_times else 1 / rate
        suited = ENCODERS if self.keeps_times else ("mpeg4",)
        encoder = next(name for name in suited if name in self._av.codecs_available)
        self.codec = ENCODERS[encoder]
        try:
            self._container = self._av.open(str(path), "w")
            self._stream = self._container.add_stream(encoder, rate=rate, options=_OPTIONS.get(encoder, {}))
            self._stream.width, self._stream.height = size_wh
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = self._base
        except self._av.FFmpegError as error:
            raise _as_os_error(error) from error

    def write(self, image: NDArray[np.uint8], time_s: float) -> None:
        """Add a frame.

        Raises:
            OSError: the system refuses.
        """
        frame = self._av.VideoFrame.from_ndarray(image, format="bgr24")
        frame.pts = self._last_pts = max(self._last_pts + 1, round(time_s / self._base))
        frame.time_base = self._base
        self._mux(frame)

    def close(self) -> None:
        """Finish the file.

        Raises:
            OSError: the system refuses.
        """
        try:
            self._mux(None)
        finally:
            try:
                self._container.close()
            except self._av.FFmpegError as error:
                raise _as_os_error(error) from error

    def _mux(self, frame: Any) -> None:
        try:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except self._av.FFmpegError as error:
            raise _as_os_error(error) from error


def _quiet_av(feature: str) -> Any:
    """Import PyAV, whose FFmpeg otherwise writes to stderr on its own."""
    av = require("av", extra="video", feature=feature)
    av.logging.set_level(av.logging.PANIC)
    return av


def _as_os_error(error: Any) -> OSError:
    return OSError(error.errno, error.strerror or str(error))
