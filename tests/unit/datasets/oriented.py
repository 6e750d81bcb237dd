"""Pictures whose EXIF says how they are to be turned, in every format that has it."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray

FORMATS = (".jpg", ".png", ".webp", ".tif")


def encoded(image: NDArray[np.uint8], suffix: str, orientation: int) -> bytes:
    """Encode an image as it is stored, and say how it is to be shown."""
    best = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, 98], ".webp": [cv2.IMWRITE_WEBP_QUALITY, 101]}.get(suffix, [])
    data = cv2.imencode(suffix, image, best)[1].tobytes()
    exif = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, orientation, 0)
    if suffix == ".jpg":
        body = b"Exif\0\0" + exif
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    if suffix == ".png":
        body = b"eXIf" + exif
        return data[:33] + struct.pack(">I", len(exif)) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]
    if suffix == ".webp":
        sides = (image.shape[1] - 1).to_bytes(3, "little") + (image.shape[0] - 1).to_bytes(3, "little")
        head = b"VP8X" + struct.pack("<I", 10) + b"\x08\0\0\0" + sides
        body = b"WEBP" + head + data[12:] + b"EXIF" + struct.pack("<I", len(exif)) + exif
        return b"RIFF" + struct.pack("<I", len(body)) + body
    return _tiff(data, orientation)


def _tiff(data: bytes, orientation: int) -> bytes:
    """Put a second directory at the end, with the tag, and point to it."""
    order = "<" if data.startswith(b"II") else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    entries = [data[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(count)]
    tags = {struct.unpack_from(f"{order}H", entry)[0]: entry for entry in entries}
    tags[274] = struct.pack(f"{order}HHIHH", 274, 3, 1, orientation, 0)
    listed = b"".join(tags[tag] for tag in sorted(tags))
    padded = data + b"\0" * (len(data) % 2)
    directory = struct.pack(f"{order}H", len(tags)) + listed + b"\0" * 4
    return padded[:4] + struct.pack(f"{order}I", len(padded)) + padded[8:] + directory
