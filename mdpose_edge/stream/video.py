"""The painted video: by PyAV where it is installed, else by OpenCV, which is told; read back before it appears."""

from __future__ import annotations

import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.files import refused
from mdpose_edge.common.optional import available
from mdpose_edge.errors import InputError, OutputError
from mdpose_edge.stream.animation import open_file
from mdpose_edge.stream.capture import quiet_ffmpeg
from mdpose_edge.stream.containers import count_frames
from mdpose_edge.stream.frames import FrameSource, Note, ignore_note
from mdpose_edge.stream.painted import Painter
from mdpose_edge.stream.pyav import MOST_TICKS, AvWriter
from mdpose_edge.stream.result import FrameResult

CODECS = {"H.264": "avc1", "MPEG-4": "mp4v"}
"""OpenCV's, in the order of choice, with the word that it knows each by."""
VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi")
DEFAULT_FPS = 30.0
"""Where the source states none."""
RESERVE_BYTES = 8 << 20
"""Space that is left on the disk, so that the video's index still fits when it fills up."""
CHECK_FRAMES = 32
"""The free space is looked at once in so many frames."""
MAX_GAP_S = 10.0
"""A longer silence of a live source is shortened to this in its video."""


class VideoWriter(Protocol):
    """Encodes a video file."""

    codec: str
    keeps_times: bool
    """Whether a frame may come at any time, rather than at the rate's."""

    def write(self, image: NDArray[np.uint8], time_s: float) -> None:
        """Add a frame of the size that the file was opened with."""

    def close(self) -> None:
        """Finish the file."""


class CvWriter:
    """A video file, encoded by OpenCV: frames follow one another at one rate.

    Args:
        path: its suffix names the container.
        fps: see `opencv_rate`.
        size_wh: even, px.

    Raises:
        OutputError: no codec opens.
    """

    keeps_times = False

    def __init__(self, path: Path, fps: float, size_wh: tuple[int, int]) -> None:
        quiet_ffmpeg()
        for codec, word in CODECS.items():
            self._inner = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*word), fps, size_wh)
            self.codec = codec
            if self._inner.isOpened():
                return
            self._inner.release()
            with suppress(OSError):
                path.unlink(missing_ok=True)
        expected, do = f"an OpenCV that writes {' or '.join(CODECS)}", "check the folder, or ask for images or JSONL"
        raise OutputError(str(path), expected=expected, got="none of them opens", do=do)

    def write(self, image: NDArray[np.uint8], time_s: float) -> None:
        """Add a frame after the last one."""
        self._inner.write(image)

    def close(self) -> None:
        """Finish the file."""
        self._inner.release()


def opencv_rate(fps: float) -> float:
    """Round a rate to what OpenCV's MPEG-4 can state: it counts in seconds, or tenths, hundredths, thousandths."""
    decimals = next((digits for digits in (3, 2, 1) if fps * 10**digits <= MOST_TICKS), 0)
    return round(fps, decimals)


class VideoSink:
    """Painted frames as a video.

    A file's frames are all written, each at its own time; where the writer knows one rate only, earlier frames are
    repeated to that end. A live source's are repeated or left out so that the video runs as fast as what it shows. A
    frame of another size than the first is fitted into the first one's, on black.

    Args:
        path: its suffix names the container.
        paint: makes the pictures.
        source: gives the frame rate, and whether it is live.
        note: called where the codec is not the first choice, and at the first frame of another size.

    Raises:
        OutputError: the suffix is none of a video. Later: no codec, or the disk is full.
    """

    def __init__(self, path: str | Path, paint: Painter, source: FrameSource, *, note: Note = ignore_note) -> None:
        self._path, self._paint, self._note = Path(path), paint, note
        if self._path.suffix.lower() not in VIDEO_SUFFIXES:
            expected = f"a video file ({', '.join(VIDEO_SUFFIXES)})"
            raise OutputError(str(path), expected=expected, got=self._path.suffix or "no suffix", do="correct the name")
        self._live, self._fps = source.live, source.fps or DEFAULT_FPS
        self._name = str(path)
        self._temporary = self._path.with_name(f".{self._path.stem}.{uuid.uuid4().hex[:12]}{self._path.suffix}")
        self._writer: VideoWriter | None = None
        self._codec: str | None = None
        self._size_wh = (0, 0)
        self._last: NDArray[np.uint8] | None = None
        self._written = self._shift = self._refitted = 0
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise refused(self._path, error, "or name another folder") from error

    def write(self, result: FrameResult) -> None:
        """Write a frame; see Sink."""
        image = self._paint(result)
        if self._writer is None:
            self._writer = self._open((image.shape[1], image.shape[0]))
        image = self._fitted(image, self._size_wh)
        if self._writer.keeps_times and not self._live:
            self._put(image, result.frame.time_s)
        else:
            place = self._place(result)
            while self._last is not None and self._written < place:
                self._put(self._last, self._written / self._fps)
            if self._written == place or not self._live:
                self._put(image, self._written / self._fps)
        self._last = image

    def close(self) -> None:
        """Finish the file, read its index back, and let it appear; a file that does not hold up is removed."""
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        try:
            with suppress(OSError):  # what is missing is found when it is read back
                writer.close()
            found = self._frames_on_disk()
            if found < 1 or found < 0.99 * self._written - 1:
                got = f"{found} that can be read back" if found else "a file that cannot be read back"
                do = "free some space there; nothing of it was kept"
                raise OutputError(self._name, expected=f"{self._written} frames on disk", got=got, do=do)
            self._temporary.replace(self._path)
        finally:
            self._temporary.unlink(missing_ok=True)

    def summary(self) -> dict[str, Any]:
        """Say what was written."""
        record = {"kind": "video", "file": str(self._path), "codec": self._codec, "fps": self._fps}
        return {**record, "size_wh": list(self._size_wh), "frames": self._written, "refitted": self._refitted}

    def _open(self, frame_wh: tuple[int, int]) -> VideoWriter:
        self._size_wh = size_wh = frame_wh[0] + frame_wh[0] % 2, frame_wh[1] + frame_wh[1] % 2
        if size_wh != frame_wh:
            shown, painted = "x".join(map(str, frame_wh)), "x".join(map(str, size_wh))
            self._note(f"{self._path}: {shown} is painted on {painted}, as videos have even sides.")
        writer: VideoWriter
        if available("av"):
            try:
                writer = AvWriter(self._temporary, self._fps, size_wh)
            except OSError as error:
                raise refused(self._path, error, "or name another file") from error
        else:
            self._fps = opencv_rate(self._fps)
            writer = CvWriter(self._temporary, self._fps, size_wh)
        self._codec = writer.codec
        if self._codec != "H.264":
            cure = "" if available("av") else '; pip install "mdpose-edge[video]" brings H.264 and keeps each time'
            self._note(f"{self._path}: {self._codec}, which browsers do not play{cure}.")
        return writer

    def _place(self, result: FrameResult) -> int:
        """Return the number, in the video, of the picture that shows this frame."""
        frame = result.frame
        place = round(frame.time_s * self._fps) - self._shift
        gap = place - (self._written - 1) - round(MAX_GAP_S * self._fps) if self._live else 0
        if self._last is None or gap > 0:
            self._shift += place - self._written if self._last is None else gap
            place = self._written if self._last is None else place - gap
        return place

    def _put(self, image: NDArray[np.uint8], time_s: float) -> None:
        assert self._writer is not None
        if self._written % CHECK_FRAMES == 0:
            self._check_space()
        try:
            self._writer.write(image, time_s)
        except OSError as error:
            raise refused(self._path, error, "nothing of it was kept") from error
        self._written += 1

    def _check_space(self) -> None:
        free = shutil.disk_usage(self._path.parent).free
        if free < RESERVE_BYTES:
            expected = f"at least {RESERVE_BYTES >> 20} MiB free on the disk"
            do = f"free some space; its first {self._written} frames are kept"
            raise OutputError(str(self._path), expected=expected, got=f"{free / (1 << 20):.1f}", do=do)

    def _fitted(self, image: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        if (width, height) == size_wh:
            return image
        if (width + width % 2, height + height % 2) == size_wh:
            return np.asarray(cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE), np.uint8)
        self._refitted += 1
        if self._refitted == 1:
            self._note(f"{self._path}: from {width}x{height} on, frames are fitted into {size_wh[0]}x{size_wh[1]}.")
        scale = min(size_wh[0] / width, size_wh[1] / height)
        new_w, new_h = max(1, round(width * scale)), max(1, round(height * scale))
        canvas = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
        x, y = (size_wh[0] - new_w) // 2, (size_wh[1] - new_h) // 2
        canvas[y : y + new_h, x : x + new_w] = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_AREA)
        return canvas

    def _frames_on_disk(self) -> int:
        try:
            capture = open_file(self._temporary)
        except InputError:
            return 0
        capture.release()
        if self._temporary.suffix.lower() == ".mkv":  # which states no count
            return count_frames(self._temporary).frames or 0
        return capture.total or 0
