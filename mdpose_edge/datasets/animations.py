"""Which picture files hold several pictures: what reads a still image would see the first alone."""

from __future__ import annotations

_MPF = b"MPF\0"
"""Marks a JPEG whose other pictures are previews, depth and gain maps of the same photo (CIPA DC-007)."""
_HEAD_BYTES = 1 << 16


def is_animation(data: bytes) -> bool:
    """Say whether the bytes of a file are a WebP, PNG or GIF of several pictures."""
    if data.startswith(b"RIFF") and data[8:16] == b"WEBPVP8X":
        return bool(data[20] & 0x02) if len(data) > 20 else False
    if data.startswith(b"\x89PNG"):
        return 0 < data.find(b"acTL", 0, _HEAD_BYTES) < data.find(b"IDAT")
    return data.startswith((b"GIF87a", b"GIF89a")) and _gif_pictures(data) > 1


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
