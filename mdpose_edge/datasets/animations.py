"""Which picture files hold several pictures: what reads a still image would see the first alone."""

from __future__ import annotations

from typing import Literal

_MPF = b"MPF\0"
"""Marks a JPEG whose other pictures are previews, depth and gain maps of the same photo (CIPA DC-007)."""
_HEAD_BYTES = 1 << 16
_GIF_STARTS = (b"GIF87a", b"GIF89a")
_SUBFILE_TYPE, _REDUCED = 254, 1
"""A TIFF's tag, and its bit that marks a preview of another page."""


def is_animation(data: bytes) -> bool:
    """Say whether the bytes of a file are a WebP, PNG, GIF or AVIF of several pictures."""
    if data.startswith(b"RIFF") and data[8:16] == b"WEBPVP8X":
        return bool(data[20] & 0x02) if len(data) > 20 else False
    if data.startswith(b"\x89PNG"):
        return 0 < data.find(b"acTL", 0, _HEAD_BYTES) < data.find(b"IDAT")
    return data[4:12] == b"ftypavis" or (data.startswith(_GIF_STARTS) and _gif_pictures(data) > 1)


def needs_opencv(data: bytes) -> bool:
    """Say whether FFmpeg shows less of an animation than it has: WebP, AVIF, and GIF whose pictures state no time."""
    is_timed = b"\x21\xf9\x04" in data
    return data[8:16] == b"WEBPVP8X" or data[4:12] == b"ftypavis" or (data.startswith(_GIF_STARTS) and not is_timed)


def tiff_pages(data: bytes) -> int:
    """Count the pages of a TIFF, previews apart; 1 of anything else, and of what cannot be followed."""
    order: Literal["little", "big"] = "little" if data.startswith(b"II*\0") else "big"
    if not data.startswith((b"II*\0", b"MM\0*")):
        return 1

    def number(at: int, length: int) -> int:
        return int.from_bytes(data[at : at + length], order)

    pages, at, seen = 0, number(4, 4), set[int]()
    while 0 < at < len(data) and at not in seen:
        seen.add(at)
        tags = range(at + 2, at + 2 + 12 * number(at, 2), 12)
        pages += not any(number(tag, 2) == _SUBFILE_TYPE and number(tag + 8, 4) & _REDUCED for tag in tags)
        at = number(tags.stop, 4)
    return max(1, pages)


def is_motion_jpeg(data: bytes) -> bool:
    """Say whether the bytes of a file are JPEGs one after another, as network cameras and `ffmpeg -f mjpeg` write."""
    return data.startswith(b"\xff\xd8\xff") and b"\xff\xd9\xff\xd8\xff" in data and _MPF not in data[:_HEAD_BYTES]


def _gif_pictures(data: bytes) -> int:
    """Count the pictures of a GIF, up to two, by its blocks."""
    count = 0
    try:
        at = 13 + _colours(data[10])
        while count < 2 and data[at] in b"\x21\x2c":
            if data[at] == 0x2C:
                count += 1
                at += 11 + _colours(data[at + 9])
            else:
                at += 2
            while data[at]:
                at += 1 + data[at]
            at += 1
    except IndexError:  # cut short
        pass
    return count


def _colours(flags: int) -> int:
    """Return the bytes of a GIF's colour table."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
