"""cv2.VideoCapture, opened for each kind of source, with errors that say what is missing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.secrets import without_secrets
from mdpose_edge.errors import InputError

FFMPEG_QUIET = "-8"
"""FFmpeg's own word for no messages: what goes wrong is reported by us, once, in a sentence."""
OPEN_TIMEOUT_S = 5.0
"""How long a URL may take to answer when it is opened."""
CSI_SIZE_WH, CSI_FPS = (1280, 720), 30.0
"""Asked of a CSI camera where nothing else is: nvarguscamerasrc needs to be told."""


@dataclass(frozen=True)
class CaptureSpec:
    """What is wished of a camera; None leaves it to the camera."""

    size_wh: tuple[int, int] | None = None
    fps: float | None = None


class FileCapture(Protocol):
    """What a video file needs of its decoder."""

    fps: float | None
    total: int | None
    """Frames, as the header or the decoder has it."""

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        """Return the next frame; False at the end, and where one does not decode."""

    def position_s(self) -> float:
        """Return the time of the frame that was read last, by the file."""

    def release(self) -> None:
        """Close it."""


class Capture:
    """An open cv2.VideoCapture.

    Args:
        inner: opened; owned from now on.
    """

    def __init__(self, inner: cv2.VideoCapture) -> None:
        self._inner = inner
        frames = inner.get(cv2.CAP_PROP_FRAME_COUNT)
        self.total: int | None = int(frames) if 0 < frames < 1e12 else None
        """Frames by the header, where it says so."""
        fps = inner.get(cv2.CAP_PROP_FPS)
        self.fps: float | None = fps if 0 < fps < 1e4 else None

    @property
    def has_length(self) -> bool:
        """True of a file, wherever it lies; False of a stream that never ends."""
        return self.total is not None

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        """Wait for the next frame: whether there was one, and its picture."""
        try:
            found, image = self._inner.read()
        except cv2.error:  # a backend that lost its device inside the call
            return False, None
        return found, np.asarray(image, np.uint8) if found and image is not None else None

    def position_s(self) -> float:
        """Return the time of the frame that was read last, by the file."""
        return self._inner.get(cv2.CAP_PROP_POS_MSEC) / 1e3

    def release(self) -> None:
        """Close it; calling it twice is harmless."""
        self._inner.release()


def file_capture(path: Path) -> Capture:
    """Open a video file.

    Raises:
        InputError: no such file, a folder, or nothing that FFmpeg in this OpenCV can read.
    """
    name = without_secrets(str(path))
    if not path.exists():
        expected = "an image, a video, a camera or a URL"
        raise InputError(name, expected=expected, got="no such file", do="correct the path")
    if not path.is_file():
        raise InputError(name, expected="a video file", got="something else", do="name a file")
    return _opened(
        cv2.CAP_ANY,
        str(path),
        [],
        name,
        expected="a video",
        do="play it to see whether it is whole, or convert it",
    )


def camera_capture(device: int, name: str, wish: CaptureSpec) -> Capture:
    """Open a camera of the system by number.

    Raises:
        InputError: there is no such camera, or another program holds it.
    """
    parameters = []
    if wish.size_wh is not None:
        parameters += [cv2.CAP_PROP_FRAME_WIDTH, wish.size_wh[0], cv2.CAP_PROP_FRAME_HEIGHT, wish.size_wh[1]]
    if wish.fps is not None:
        parameters += [cv2.CAP_PROP_FPS, round(wish.fps)]
    path = f"/dev/video{device}"
    got = f"no {path}" if not Path(path).exists() else f"no answer from {path}"
    do = "plug it in, end the program that holds it, or list the cameras with v4l2-ctl --list-devices"
    return _opened(cv2.CAP_ANY, device, parameters, f"camera {name}", expected="a camera", got=got, do=do)


def url_capture(url: str, stall_s: float) -> Capture:
    """Open a stream or file at a URL.

    Args:
        url: anything that FFmpeg opens.
        stall_s: how long one read may wait.

    Raises:
        InputError: nothing answers, or it is no video.
    """
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(OPEN_TIMEOUT_S * 1e3)]
    timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(stall_s * 1e3)]
    do = "check the address, and that this machine reaches it"
    return _opened(cv2.CAP_FFMPEG, url, timeouts, without_secrets(url), expected="a video stream", do=do)


def csi_capture(sensor: int, name: str, wish: CaptureSpec) -> Capture:
    """Open a CSI camera of a Jetson.

    Raises:
        InputError: this OpenCV has no GStreamer, or the camera does not answer.
    """
    if not has_gstreamer():
        raise InputError(
            name,
            expected="an OpenCV with GStreamer, which opens CSI cameras",
            got=f"OpenCV {cv2.__version__} without it",
            do="use JetPack's own (apt install libopencv-python), not the one from pip: docs/jetson.md says how",
        )
    pipeline = csi_pipeline(sensor, wish.size_wh or CSI_SIZE_WH, wish.fps or CSI_FPS)
    do = "check the ribbon cable, and restart the camera service: sudo systemctl restart nvargus-daemon"
    return _opened(cv2.CAP_GSTREAMER, pipeline, [], name, expected="a CSI camera", do=do)


def csi_pipeline(sensor: int, size_wh: tuple[int, int], fps: float) -> str:
    """Write the GStreamer pipeline that brings a Jetson CSI camera's frames to OpenCV.

    Debayering, scaling and the conversion to BGRx are done by the Jetson's own units; the CPU drops the fourth channel.
    """
    width, height = size_wh
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM), format=NV12, framerate={round(fps)}/1 ! "
        f"nvvidconv ! video/x-raw, width={width}, height={height}, format=BGRx ! videoconvert ! "
        "video/x-raw, format=BGR ! appsink drop=true max-buffers=1 sync=false"
    )


def has_gstreamer() -> bool:
    """Say whether this OpenCV opens GStreamer pipelines."""
    # Not getBackends: it also lists the plugins that a wheel could load and does not bring.
    return bool(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER))


def quiet_ffmpeg() -> None:
    """Keep FFmpeg and OpenCV from writing to stderr on their own; what the user has set stays."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", FFMPEG_QUIET)
    if "OPENCV_LOG_LEVEL" not in os.environ:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _opened(
    backend: int, target: str | int, parameters: list[int], name: str, *, expected: str, do: str, got: str = ""
) -> Capture:
    quiet_ffmpeg()
    inner: Any = None
    try:
        inner = cv2.VideoCapture(target, backend, parameters)
        opened = inner.isOpened()
    except cv2.error:
        opened = False
    if not opened:
        raise InputError(name, expected=expected, got=got or "nothing that OpenCV can open", do=do)
    return Capture(inner)
