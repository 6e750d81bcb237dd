"""What a video file's container says of itself: whether it is all there, how many frames it holds, of how many tracks.

Decoders answer a file that breaks off as they answer one that ends, and estimate a length that no header states.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_TS_PACKET = 188
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa")
_EBML, _SEGMENT, _TRACKS, _TRACK, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1654AE6B, 0xAE, 0x1F43B675
_TRACK_NUMBER, _TRACK_TYPE, _SIMPLE_BLOCK, _BLOCK_GROUP, _BLOCK = 0xD7, 0x83, 0xA3, 0xA0, 0xA1
_PARENTS = (_SEGMENT, _TRACKS, _CLUSTER, _BLOCK_GROUP)
_VIDEO = 1
_ISO_PARENTS = (b"moov", b"trak", b"mdia")


@dataclass(frozen=True)
class Container:
    """A video file by its own structure; None where that does not tell."""

    whole: bool | None = None
    """False where the file ends inside something that it began."""
    states_count: bool = False
    """True where the header holds the number of frames, so that a decoder need not estimate it."""
    countable: bool = False
    """Whether `count_frames` can tell what this does not."""
    frames: int | None = None
    """Frames of the first video track, counted."""
    tracks: int | None = None
    """Video tracks."""


def read_container(path: Path) -> Container:
    """Read the outermost structure of a file, without decoding anything.

    It knows Matroska and WebM, MP4 and MOV, AVI, FLV, WMV, Ogg, MPEG-TS, GIF, PNG and raw motion JPEG; of others it
    says nothing.
    """
    return _read(path, _container)


def count_frames(path: Path) -> Container:
    """Walk every element of a Matroska file: seconds for one of hours."""
    return _read(path, _matroska)


def _read(path: Path, reader: Callable[[BinaryIO, int], Container]) -> Container:
    try:
        with open(path, "rb", buffering=0) as file:
            return reader(file, os.fstat(file.fileno()).st_size)
    except (OSError, EOFError, KeyError, _Unclear):
        return Container()


class _Unclear(Exception):
    """The structure makes no sense: it is damaged, or of another kind than it seemed."""


def _container(file: BinaryIO, size: int) -> Container:
    head = _bytes(file, 0, 12)
    if head.startswith(_EBML.to_bytes(4, "big")):
        return _matroska_head(file, size)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return _iso(file, size)
    if head.startswith(b"RIFF"):
        return Container(whole=_chunks_end(file, size), states_count=head[8:12] == b"AVI ")
    if head.startswith(b"OggS"):
        return Container(whole=_ogg_ends(file, size))
    if head.startswith(_ASF):
        return Container(whole=_asf_ends(file, size))
    if head.startswith(b"FLV"):
        return Container(whole=_flv_ends(file, size))
    if head.startswith((b"GIF87a", b"GIF89a")):
        return Container(whole=_tail(file, size).endswith(b"\x3b"))
    if head.startswith(b"\x89PNG"):
        return Container(whole=_tail(file, size).endswith(b"IEND\xaeB`\x82"))
    if head.startswith(b"\xff\xd8\xff"):
        return Container(whole=_tail(file, size).endswith(b"\xff\xd9"))
    if size > 3 * _TS_PACKET and all(_bytes(file, n * _TS_PACKET, 1) == b"\x47" for n in range(3)):
        return Container(whole=size % _TS_PACKET == 0)
    return Container()


def _bytes(file: BinaryIO, start: int, count: int) -> bytes:
    file.seek(start)
    return file.read(count)


def _tail(file: BinaryIO, size: int) -> bytes:
    """Return the last bytes without the zeros that some writers pad with."""
    return _bytes(file, max(0, size - 4096), 4096).rstrip(b"\0")


def _iso(file: BinaryIO, size: int) -> Container:
    """Walk the boxes of an MP4 or MOV (ISO/IEC 14496-12)."""
    whole, fragmented, tracks = True, False, 0
    for kind, body, end in _boxes(file, 0, size):
        fragmented |= kind == b"moof"
        whole &= end <= size
        if kind == b"moov" and end <= size:
            tracks = _iso_video_tracks(file, body, end)
    return Container(whole, states_count=not fragmented, tracks=tracks or None)


def _iso_video_tracks(file: BinaryIO, start: int, end: int) -> int:
    count = 0
    for kind, body, box_end in _boxes(file, start, end):
        if kind in _ISO_PARENTS:
            count += _iso_video_tracks(file, body, min(end, box_end))
        elif kind == b"hdlr":
            count += _bytes(file, body + 8, 4) == b"vide"
    return count


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Return each box's kind, where its body begins, and where it ends, as it says."""
    while start + 8 <= end:
        head = _bytes(file, start, 16)
        length, body = int.from_bytes(head[:4], "big"), start + 8
        if length == 1:
            length, body = int.from_bytes(head[8:16], "big"), start + 16
        box_end = start + length if length else end
        if box_end < body:
            raise _Unclear
        yield head[4:8], body, box_end
        start = box_end


def _chunks_end(file: BinaryIO, size: int) -> bool | None:
    """Walk the outermost chunks of a RIFF file; one that was written to a pipe states no size."""
    start = 0
    while start + 8 <= size:
        head = _bytes(file, start, 8)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] not in (b"RIFF", b"JUNK") or length in (0, 0xFFFFFFFF):
            return None
        start += 8 + length + length % 2
    return start <= size + 1


def _ogg_ends(file: BinaryIO, size: int) -> bool | None:
    """See whether the last page is all there, and marked as the end of its stream (RFC 3533)."""
    tail = _bytes(file, max(0, size - (1 << 17)), 1 << 17)
    at = tail.rfind(b"OggS")
    if at < 0:
        return None
    page = tail[at:]
    return len(page) > 27 and bool(page[5] & 4) and len(page) == 27 + page[26] + sum(page[27 : 27 + page[26]])


def _asf_ends(file: BinaryIO, size: int) -> bool | None:
    """Walk the outermost objects of a WMV or ASF; one that was broadcast states no size."""
    start = 0
    while start + 24 <= size:
        length = int.from_bytes(_bytes(file, start + 16, 8), "little")
        if length < 24:
            return None
        start += length
    return start == size


def _flv_ends(file: BinaryIO, size: int) -> bool:
    start = int.from_bytes(_bytes(file, 5, 4), "big") + 4
    while start + 11 <= size:
        head = _bytes(file, start, 4)
        if head[0] & 0x1F not in (8, 9, 18):
            raise _Unclear
        start += 11 + int.from_bytes(head[1:4], "big") + 4
    return start == size


def _matroska_head(file: BinaryIO, size: int) -> Container:
    """Read what comes before the first cluster (RFC 9559); one that was written to a pipe states no size."""
    whole, tracks = None, 0
    for kind, body, end in _elements(file, 0, size):
        if kind == _SEGMENT and end > body:
            whole = end <= size
        elif kind == _TRACK:
            tracks += _video_track(file, body, min(end, size)) is not None
        elif kind == _CLUSTER:
            break
    return Container(whole, countable=True, tracks=tracks or None)


def _matroska(file: BinaryIO, size: int) -> Container:
    """Count the blocks of the first video track, and see whether every element is all there."""
    tracks: list[int] = []
    count, whole = 0, True
    try:
        for kind, body, end in _elements(file, 0, size):
            whole &= end <= size
            if kind == _TRACK and (number := _video_track(file, body, min(end, size))) is not None:
                tracks.append(number)
            elif kind in (_SIMPLE_BLOCK, _BLOCK) and tracks and end <= size:
                count += _vint(file, body, keep_marker=False)[0] == tracks[0]
    except EOFError:
        whole = False
    return Container(whole, frames=count, tracks=len(tracks) or None)


def _video_track(file: BinaryIO, start: int, end: int) -> int | None:
    """Return the number of a track, or None where it is no video."""
    fields = {child: (at, to) for child, at, to in _elements(file, start, end)}
    return _number(file, *fields[_TRACK_NUMBER]) if _number(file, *fields[_TRACK_TYPE]) == _VIDEO else None


def _elements(file: BinaryIO, start: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Return each element's ID, where its body begins and ends, as it says; those within a parent follow it."""
    while start < size:
        kind, width = _vint(file, start, keep_marker=True)
        length, length_width = _vint(file, start + width, keep_marker=False)
        body = start + width + length_width
        unknown = length == (1 << 7 * length_width) - 1  # written to a pipe
        if unknown and kind not in _PARENTS:
            raise _Unclear
        yield kind, body, body if unknown else body + length
        start = body if kind in _PARENTS else body + length


def _vint(file: BinaryIO, start: int, *, keep_marker: bool) -> tuple[int, int]:
    """Read a number of variable width; give it and its width. The marker belongs to an element's ID."""
    data = _bytes(file, start, 8)
    if data.startswith(b"\0"):
        raise _Unclear
    width = 9 - data[0].bit_length() if data else 1
    if len(data) < width:
        raise EOFError
    value = int.from_bytes(data[:width], "big")
    return (value if keep_marker else value & ((1 << 7 * width) - 1)), width


def _number(file: BinaryIO, start: int, end: int) -> int:
    return int.from_bytes(_bytes(file, start, end - start), "big")
