"""Which way up a picture is, as its EXIF says: in JPEG, PNG, WebP and TIFF, whatever the decoder makes of it.

OpenCV's releases differ in the formats whose orientation they heed, and none can leave a TIFF as it is stored.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

UPRIGHT = 1
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""

_TAG = 0x0112
_TIFF_STARTS = (b"II*\0", b"MM\0*")
_INTEGERS = {3: "H", 4: "I"}
"""EXIF's types SHORT, which orientation has, and LONG, which some write."""


def orientation_of(data: bytes) -> int:
    """Return the EXIF orientation of an image file, 1 (upright) to 8; 1 where it says none, or nonsense."""
    if data.startswith(b"\xff\xd8"):
        exif = next(_jpeg_exif(data), b"")
    elif data.startswith(b"\x89PNG"):
        exif = next(_chunks(data, 8, b"eXIf", ">"), b"")
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        exif = next(_chunks(data, 12, b"EXIF", "<"), b"").removeprefix(b"Exif\0\0")
    else:
        exif = data
    return _orientation_tag(exif) if exif.startswith(_TIFF_STARTS) else UPRIGHT


def is_tiff(data: bytes) -> bool:
    """Say whether this is a TIFF, which OpenCV turns whether asked to or not."""
    return data.startswith(_TIFF_STARTS)


def turn_upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn an image as it is stored into the one that people see.

    Args:
        image: (H, W, 3).
        orientation: 1 to 8.

    Returns:
        (H, W, 3), or (W, H, 3) where the orientation is one of SIDEWAYS.
    """
    if orientation in SIDEWAYS:
        image = image.transpose(1, 0, 2)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(image[rows, columns])


def turn_back(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo `turn_upright`: quarter turns have one another as inverse, all else itself."""
    return turn_upright(image, {6: 8, 8: 6}.get(orientation, orientation))


def _jpeg_exif(data: bytes) -> Iterator[bytes]:
    """Yield what the Exif segments before the picture hold."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        if data[position + 1] == 0xFF:  # fill byte
            position += 1
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : end]
        if data[position + 1] == 0xE1 and body.startswith(b"Exif\0\0"):
            yield body[6:]
        position = end


def _chunks(data: bytes, position: int, name: bytes, order: str) -> Iterator[bytes]:
    """Yield the chunks of a name: a PNG's have length, name, body, CRC; a WebP's name, length, body, padding."""
    while position + 8 <= len(data):
        first, second = data[position : position + 4], data[position + 4 : position + 8]
        kind, length = (second, first) if order == ">" else (first, second)
        size = struct.unpack(f"{order}I", length)[0]
        if kind == name:
            yield data[position + 8 : position + 8 + size]
        position += 8 + size + (4 if order == ">" else size % 2)


def _orientation_tag(exif: bytes) -> int:
    order = "<" if exif.startswith(b"II") else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == _TAG and kind in _INTEGERS:
                (value,) = struct.unpack_from(f"{order}{_INTEGERS[kind]}", exif, entry + 8)
                return value if 1 <= value <= 8 else UPRIGHT
    except struct.error:
        pass
    return UPRIGHT
