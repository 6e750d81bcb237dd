"""What lies at an HTTP address: a picture, a file, or a stream without end."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit, urlunsplit

from mdpose_edge.datasets.animations import is_animation, is_motion_jpeg, needs_opencv
from mdpose_edge.datasets.images import is_heif

VIDEO_SUFFIXES = (
    ".3gp", ".asf", ".avi", ".flv", ".m3u8", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpd", ".mpeg", ".mpg",
    ".ogv", ".sdp", ".ts", ".webm", ".wmv",
)  # fmt: skip
"""Addresses of such names are FFmpeg's at once: some cameras serve one connection at a time."""
PICTURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
MAX_BYTES = 1 << 28
MAX_S = 60.0
"""A picture that is larger, or takes longer, is taken for a stream."""
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Answer:
    """What a server gives."""

    picture: bytes | None = None
    """The whole file, where it is a still picture."""
    ends: bool = False
    """Whether the server states a length: what has one is a file, however little its header knows."""


def ask(url: str, timeout_s: float) -> Answer:
    """Fetch a picture, or find out that there is none; what cannot be fetched is for FFmpeg to judge.

    Args:
        url: http:// or https://, with user and password or without.
        timeout_s: how long the server may be silent.
    """
    parts = urlsplit(url)
    if parts.scheme.lower() not in ("http", "https") or _suffix(parts.path) in VIDEO_SUFFIXES:
        return Answer()
    try:
        with _opener(url).open(_address(url), timeout=timeout_s) as response:
            ends = response.length is not None
            if response.headers.get_content_maintype() in ("multipart", "video", "audio"):
                return Answer(ends=ends)
            return Answer(_picture(response), ends)
    except (OSError, ValueError, http.client.HTTPException):
        return Answer()


def _suffix(path: str) -> str:
    return PurePosixPath(unquote(path)).suffix.lower()


def _address(url: str) -> str:
    """Return the URL without user and password, which urllib does not take in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))


def _opener(url: str) -> urllib.request.OpenerDirector:
    parts = urlsplit(url)
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    if parts.username is not None:
        passwords.add_password(None, _address(url), unquote(parts.username), unquote(parts.password or ""))
    return urllib.request.build_opener(
        urllib.request.HTTPBasicAuthHandler(passwords), urllib.request.HTTPDigestAuthHandler(passwords)
    )


def _picture(response: http.client.HTTPResponse) -> bytes | None:
    """Read a picture to its end; None as soon as it shows to be what FFmpeg opens."""
    data, deadline_s = bytearray(response.read(16)), time.monotonic() + MAX_S
    start = bytes(data)
    if not (start.startswith(PICTURE_STARTS) or is_heif(start) or needs_opencv(start)):
        return None
    while chunk := response.read1(_CHUNK):
        data += chunk
        if len(data) > MAX_BYTES or time.monotonic() > deadline_s:
            return None
        if response.length is None and is_motion_jpeg(bytes(data)):
            return None
    whole = bytes(data)
    for_ffmpeg = is_motion_jpeg(whole) or (is_animation(whole) and not needs_opencv(whole))
    return None if for_ffmpeg else whole
