"""A word becomes a source: image, folder, glob, video file, camera, stream, Jetson CSI camera, raw frames on stdin."""

from __future__ import annotations

import glob
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import cv2

from mdpose_edge.common.secrets import without_secrets
from mdpose_edge.datasets.animations import is_animation, is_motion_jpeg
from mdpose_edge.datasets.images import IMAGE_SUFFIXES, is_heif, left_out, list_images
from mdpose_edge.errors import ConfigError, InputError
from mdpose_edge.stream.capture import CaptureSpec, camera_capture, csi_capture, url_capture
from mdpose_edge.stream.files import ImageSource, RawSource, VideoFile, WebImage
from mdpose_edge.stream.frames import FrameSource, Note, ignore_note
from mdpose_edge.stream.live import LiveSource, Reconnect
from mdpose_edge.stream.web import ask

STDIN = "-"
CSI_PREFIX = "csi:"
DEFAULT_FPS = 30.0
"""Of images and raw frames, which do not say."""

_HEEDED_BY = {
    "--frame-size": "a camera, or raw frames on stdin",
    "--fps": "a camera, raw frames on stdin, or images whose times are written",
    "--reconnect": "a camera, or a stream",
    "--stall": "a camera, or a stream",
}
"""What makes use of an option."""

_SNIFFED_BYTES = 1 << 26
"""A picture is larger than this hardly ever, and a video often."""

_URL = re.compile(r"(rtsps?|https?|rtmps?|rtp|udp|tcp|srt|mms)://", re.IGNORECASE)
_DEVICE = re.compile(r"/dev/video(\d+)")
_SIZE = re.compile(r"(\d+)x(\d+)")


def open_source(
    text: str | int | Sequence[str],
    *,
    frame_size: str | None = None,
    fps: float | None = None,
    reconnect: Reconnect = Reconnect(),  # noqa: B008  (frozen)
    strict: bool = False,
    note: Note = ignore_note,
) -> FrameSource:
    """Open what a word names.

    | text | source |
    |---|---|
    | an image, a folder, a glob, or several | ImageSource |
    | another file, and an animated WebP, GIF, PNG or AVIF | VideoFile |
    | `0`, `/dev/video0` | a camera, live |
    | `rtsp://...`, `http://...` | a stream, live; what has a length is a file, and a picture is one |
    | `csi:0` | a Jetson's CSI camera, by a GStreamer pipeline made here, live |
    | `-` | raw BGR frames of `frame_size` on stdin, one after another |

        with open_source("clip.mp4") as source:
            for captured in source:
                print(captured.index, captured.time_s, captured.image_bgr.shape)

    Args:
        text: the word, the number of a camera, or several words that all name images.
        frame_size: "WxH" px: of raw frames, which need it, and a wish where the source is a camera.
        fps: of images and raw frames, for their times (default 30); a wish where the source is a camera.
        reconnect: what to do when a live source falls silent.
        strict: True ends the run at the first of several images that cannot be read.
        note: called with a sentence about what went wrong and was overcome.

    Raises:
        InputError: there is no such source, or it cannot be opened.
        ConfigError: `frame_size` is missing or is no size, or the source has a size or times of its own.
    """
    words = [str(text)] if isinstance(text, (str, int)) else list(text)
    size_wh = None if frame_size is None else parse_size(frame_size)
    if all(names_images(word) for word in words):
        check_used("images", {"--frame-size": frame_size})
        images = list_images(words)
        if others := left_out(words):
            note(f"left out: {others}.")
        return ImageSource(images, fps=fps or DEFAULT_FPS, strict=strict, note=note)
    if len(words) > 1:
        other = next(word for word in words if not names_images(word))
        raise InputError(
            without_secrets(other), expected="one source, or several images", got=f"{len(words)} sources", do="run each"
        )
    (word,) = words
    if word == STDIN:
        if size_wh is None:
            raise ConfigError("--frame-size", expected="WxH, as stdin has no header", got="none", do="give it")
        # Unbuffered where there is such a thing: the buffer's lock, held by a read under way, would abort Python's end.
        file = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
        return RawSource(file, size_wh, fps=fps or DEFAULT_FPS)
    wish = CaptureSpec(size_wh, fps)
    device = int(word) if word.isdecimal() else _device_of(word)
    if device is not None:
        return LiveSource(word, lambda: camera_capture(device, word, wish), reconnect, note=note)
    if word.startswith(CSI_PREFIX):
        return LiveSource(word, lambda: csi_capture(_csi_sensor(word), word, wish), reconnect, note=note)
    check_used("a stream" if _URL.match(word) else "a video file", {"--frame-size": frame_size, "--fps": fps})
    if _URL.match(word):
        return _open_url(word, reconnect, note)
    return VideoFile(Path(word), note=note)


def check_used(source: str, given: Mapping[str, object]) -> None:
    """Refuse options that a source would not heed.

    Args:
        source: what kind it is, for the message.
        given: value by option; None where it was not given.

    Raises:
        ConfigError: one is given.
    """
    for option, value in given.items():
        if value is not None:
            raise ConfigError(option, expected=_HEEDED_BY[option], got=source, do=f"leave {option} out")


def names_images(word: str) -> bool:
    """Say whether a word names an image, a folder or a glob, rather than a video, a device or a stream."""
    if word == STDIN or names_live(word):
        return False
    path = Path(word)
    if path.is_file():
        is_named_so = path.suffix.lower() in IMAGE_SUFFIXES
        if _is_video(path, allow_motion_jpeg=not is_named_so):
            return False
        # An image by its first bytes, whatever its name.
        return is_named_so or cv2.haveImageReader(word) or is_heif(_first_bytes(path))
    return path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES or glob.has_magic(word)


def names_live(word: str) -> bool:
    """Say whether a word names a camera or a URL, which can be lost and opened again."""
    return bool(word.isdecimal() or word.startswith(CSI_PREFIX) or _URL.match(word) or _DEVICE.fullmatch(word))


def parse_size(text: str) -> tuple[int, int]:
    """Read "WxH".

    Raises:
        ConfigError: it is no size, or a side is 0.
    """
    match = _SIZE.fullmatch(text)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(size) < 1:
        raise ConfigError("--frame-size", expected="WxH in pixels, like 1280x720", got=text, do="correct it")
    return size


def _first_bytes(path: Path) -> bytes:
    with suppress(OSError), open(path, "rb") as file:
        return file.read(16)
    return b""


def _is_video(path: Path, *, allow_motion_jpeg: bool) -> bool:
    """Say whether a file that looks like an image is none, by its content; some cameras add to a .jpg after its end."""
    with suppress(OSError), open(path, "rb") as file:
        head = file.read(12)
        if head[:3] in (b"GIF", b"RIF", b"\x89PN", b"\xff\xd8\xff") or head[4:] == b"ftypavis":
            file.seek(0)
            data = file.read(_SNIFFED_BYTES)
            return is_animation(data) or (allow_motion_jpeg and is_motion_jpeg(data))
    return False


def _device_of(word: str) -> int | None:
    match = _DEVICE.fullmatch(word)
    return int(match[1]) if match else None


def _csi_sensor(word: str) -> int:
    number = word.removeprefix(CSI_PREFIX)
    if not number.isdecimal():
        raise InputError(word, expected="csi: and the sensor's number, like csi:0", got=word, do="correct it")
    return int(number)


def _open_url(url: str, reconnect: Reconnect, note: Note) -> FrameSource:
    """Open what lies at a URL: a picture, a file, which states a length or whose server does, or a live stream."""
    answer = ask(url, reconnect.stall_s)
    if answer.picture is not None:
        return WebImage(url, answer.picture)
    capture = url_capture(url, reconnect.stall_s)
    if capture.has_length or answer.ends:
        return VideoFile(url, note=note, capture=capture)
    return LiveSource(url, lambda: url_capture(url, reconnect.stall_s), reconnect, note=note, first=capture)
