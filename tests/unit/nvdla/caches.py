"""A reader of TensorRT's calibration caches, which this package writes and TensorRT alone reads."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple


class Cache(NamedTuple):
    """What a calibration cache holds."""

    tensorrt: int
    """The version as one number: see `platforms.version_number`."""
    algorithm: str
    scales: dict[str, float]
    """By tensor: amax / 127."""


def read_cache(text: str) -> Cache:
    """Read a cache whose every line is as TensorRT wants it, each tensor once."""
    first, *lines = text.splitlines()
    header = re.fullmatch(r"TRT-(\d+)-(\w+)", first)
    assert header is not None, first
    entries = [re.fullmatch(r"(.+): ([0-9a-f]{8})", line) for line in lines]  # greedy: a name may hold ": " itself
    scales = {entry[1]: struct.unpack(">f", bytes.fromhex(entry[2]))[0] for entry in entries if entry is not None}
    assert len(scales) == len(lines), text
    return Cache(int(header[1]), header[2], scales)
