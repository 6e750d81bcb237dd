"""Image files become frames, strictly: what cannot be read whole and without loss is refused by name.

OpenCV alone is not strict: it fills the missing part of a truncated JPEG with grey, and reads 16-bit and transparent
pictures by throwing away what does not fit.
"""

from __future__ import annotations

import glob
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.files import name_text, write_whole
from mdpose_edge.common.outputs import MADE_BY
from mdpose_edge.datasets.animations import is_animation, tiff_pages
from mdpose_edge.datasets.orientation import (
    SIDEWAYS,
    UPRIGHT,
    is_tiff,
    orientation_of,
    turn_back,
    turn_upright,
)
from mdpose_edge.errors import DataError, InputError
from mdpose_edge.preprocess import check_frame

IMAGE_SUFFIXES = (".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""What counts as an image inside a folder or a glob, in lower case."""
OTHER_SUFFIXES = (
    ".arw", ".avif", ".cr2", ".cr3", ".dng", ".gif", ".heic", ".heif", ".hif", ".jp2", ".jxl", ".nef", ".psd",
)  # fmt: skip
"""Pictures that are not read from a folder, and told."""
_IPHONE = "have the phone take JPEG (Settings, Camera, Formats, Most Compatible)"
SHOWN_NAMES = 3
"""Of files that are left out, in one sentence."""
JPEG_QUALITY = 92

_SHRINKING = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_JPEG_START = b"\xff\xd8\xff"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_HEIF_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"heim": "HEIC", b"heis": "HEIC", b"mif1": "HEIF", b"avif": "AVIF"}
_PNG_HEADER_END = len(_PNG_START) + 25
"""After IHDR, which must come first and has 13 bytes beside length, name and CRC."""
_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""What ends entropy-coded data: a marker that is neither a stuffed byte (FF00) nor a restart (FFD0-FFD7)."""


def read_image(path: str | Path, *, orient: bool, shrink: int = 1) -> NDArray[np.uint8]:
    """Read an image file as a frame.

    Grey images are repeated to three channels, and alpha that is opaque everywhere is dropped.

    Args:
        path: a file in any format that OpenCV reads.
        orient: True turns the picture upright as its EXIF orientation says, as people expect of phone photos; False
            keeps the pixels as stored. Annotated images are for `read_annotated`.
        shrink: 1; or 2, 4 or 8: a JPEG comes at that fraction of its size, rounded up, which is faster; other formats
            come whole.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        InputError: no such file, not an image, cut short, transparent, not 8-bit, or of unusable size.
    """
    return decode_image(read_image_bytes(Path(path)), str(path), orient=orient, shrink=shrink)


def decode_image(data: bytes, where: str, *, orient: bool, shrink: int = 1) -> NDArray[np.uint8]:
    """Turn the bytes of an image file into a frame, as `read_image` does.

    Args:
        data: the whole file.
        where: what to call it in messages.
        orient: see `read_image`.
        shrink: likewise.

    Raises:
        InputError: as `read_image`.
    """
    image, orientation = _stored(data, where, shrink)
    image = turn_upright(image, orientation) if orient else image
    check_frame(image, where)
    return image


def read_annotated(path: Path, stated_wh: tuple[int, int], shrink: int = 1) -> tuple[NDArray[np.uint8], int]:
    """Read an image in the frame that its annotations mean: as stored, or upright as its EXIF says.

    Args:
        path: the file.
        stated_wh: width and height, px, as the annotations state them, which tells the two apart.
        shrink: see `read_image`.

    Returns:
        (H, W, 3) uint8, BGR, and by how much it was shrunk: 1 where the format comes whole.

    Raises:
        InputError: as `read_image`.
        DataError: it has another size either way; or it is to be turned, and has the same size either way.
    """
    return decode_annotated(read_image_bytes(path), str(path), stated_wh, shrink)


def decode_annotated(
    data: bytes, where: str, stated_wh: tuple[int, int], shrink: int = 1
) -> tuple[NDArray[np.uint8], int]:
    """Turn the bytes of an annotated image into a frame, as `read_annotated` does."""
    if not data.startswith(_JPEG_START) or orientation_of(data) != UPRIGHT:
        shrink = 1  # two sizes that differ may be the same when they are shrunk
    image, orientation = _stored(data, where, shrink)
    frames = annotated_frames(image, orientation, stated_wh, shrink)
    if not frames:
        height, width = _stored(data, where, 1)[0].shape[:2]
        turned = f", or {height}x{width} upright" if orientation in SIDEWAYS and height != width else ""
        raise DataError(
            where,
            expected=f"{stated_wh[0]}x{stated_wh[1]} px, as the annotation file says",
            got=f"{width}x{height}{turned}",
            do="scale the annotations with the images, or restore the image",
        )
    if len(frames) > 1:
        raise DataError(
            where,
            expected="an image with one way up, as its size does not tell which one was annotated",
            got=f"EXIF orientation {orientation}",
            do="turn the pixels so where the annotations are upright, and remove the orientation from the file",
        )
    check_frame(frames[0], where)
    return frames[0], shrink


def annotated_frames(
    image: NDArray[np.uint8], orientation: int, stated_wh: tuple[int, int], shrink: int = 1
) -> list[NDArray[np.uint8]]:
    """Return the frames of a stored image, as it is and upright, that have the size which annotations state."""
    turned = [] if orientation == UPRIGHT else [turn_upright(image, orientation)]
    size = (-(-stated_wh[1] // shrink), -(-stated_wh[0] // shrink))
    return [frame for frame in (image, *turned) if frame.shape[:2] == size]


def read_image_bytes(path: Path) -> bytes:
    """Read a file that should be an image, whole, without decoding it.

    Raises:
        InputError: no such file, a folder, or one that the system refuses to read.
    """
    if path.is_dir():
        raise InputError(str(path), expected="an image file", got="a folder", do="name a file in it")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(str(path), expected="an image file", got="no such file", do="correct the path") from None
    except OSError as error:
        got = f"the system's answer: {error.strerror}"
        raise InputError(str(path), expected="a readable file", got=got, do="check the file and its rights") from error


def is_heif(data: bytes) -> bool:
    """Say whether a file begins as a still HEIC or AVIF picture does, which FFmpeg takes for a video of one tile."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a BGR image, whole or not at all, in the format that the suffix names.

    Args:
        path: .jpg, .png, or another suffix of IMAGE_SUFFIXES.
        image: (H, W, 3) uint8, BGR.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix.lower() in (".jpg", ".jpeg") else []
    _, data = cv2.imencode(path.suffix, image, options)
    write_whole(path, _signed(data.tobytes()))


def _signed(data: bytes) -> bytes:
    """Say in a PNG or JPEG who made it, so that a later run knows it from a picture of somebody's own."""
    if data.startswith(_PNG_START):
        body = b"tEXtSoftware\0" + MADE_BY.encode()
        chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
        return data[:_PNG_HEADER_END] + chunk + data[_PNG_HEADER_END:]
    if data.startswith(_JPEG_START):
        first_end = 4 + int.from_bytes(data[4:6], "big")  # JFIF's segment must stay the first
        comment = MADE_BY.encode()
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        return data[:first_end] + segment + data[first_end:]
    return data


def list_images(sources: Sequence[str | Path]) -> list[Path]:
    """Find the images that the sources name.

    Args:
        sources: files, folders (their images, sorted; hidden ones and subfolders do not count) and globs (sorted, `**`
            reaches subfolders). A file named directly is taken whatever its suffix.

    Returns:
        Paths in the order of the sources; a file that is named twice comes once.

    Raises:
        InputError: no sources, a source that does not exist, or a folder or glob without images.
    """
    if not sources:
        raise InputError(expected="an image, a folder or a glob", got="none", do="name at least one")
    found: dict[Path, Path] = {}
    for source in sources:
        for path in _images_of(str(source)):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def left_out(sources: Sequence[str | Path]) -> str:
    """Say what `list_images` passes over in folders and globs although somebody may hope for it; nothing where none."""
    hidden, others = list[str](), list[str]()
    for source in map(str, sources):
        is_folder = Path(source).is_dir()
        for path in sorted(Path(source).iterdir() if is_folder else map(Path, _matches(source))):
            if is_folder and path.name.startswith(".") and path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                hidden.append(name_text(path.name))
            elif _is_listed(path, OTHER_SUFFIXES, is_folder=is_folder):
                others.append(name_text(path.name))
    parts = []
    if hidden:
        parts.append(f"{_counted(hidden, 'hidden file')}")
    if others:
        parts.append(f"{_counted(others, 'picture')} of other kinds than {', '.join(IMAGE_SUFFIXES)}: convert to JPEG")
    return " and ".join(parts)


def _matches(source: str) -> Iterator[str]:
    """Return the files that a glob names; none where it is a file's own name."""
    is_glob = glob.has_magic(source) and not Path(source).is_file()
    return glob.iglob(source, recursive=True) if is_glob else iter(())


def _counted(names: Sequence[str], what: str) -> str:
    more = ", ..." if len(names) > SHOWN_NAMES else ""
    return f"{len(names)} {what}{'' if len(names) == 1 else 's'} ({', '.join(names[:SHOWN_NAMES])}{more})"


def _images_of(source: str) -> list[Path]:
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        candidates, kind = path.iterdir(), "folder"
    elif glob.has_magic(source):
        candidates, kind = (Path(name) for name in glob.iglob(source, recursive=True)), "glob"
    else:
        raise InputError(source, expected="an image, a folder or a glob", got="no such file", do="correct the path")
    images = sorted(p for p in candidates if _is_listed(p, IMAGE_SUFFIXES, is_folder=path.is_dir()))
    if not images:
        expected = f"a {kind} with images ({', '.join(IMAGE_SUFFIXES)})"
        others = left_out([source])
        got = f"none, and {others}" if others else "none"
        raise InputError(source, expected=expected, got=got, do="correct the path")
    return images


def _is_listed(path: Path, suffixes: Sequence[str], *, is_folder: bool) -> bool:
    """Say whether a file counts; in a folder, hidden ones do not: macOS writes ._a.jpg beside a.jpg."""
    hidden = is_folder and path.name.startswith(".")
    return not hidden and path.suffix.lower() in suffixes and path.is_file()


def _stored(data: bytes, where: str, shrink: int) -> tuple[NDArray[np.uint8], int]:
    """Decode an image as it is stored, and say how it is to be turned."""
    is_jpeg = data.startswith(_JPEG_START)
    if (is_jpeg and not _jpeg_is_whole(data)) or (data.startswith(_PNG_START) and not _png_is_whole(data)):
        raise InputError(where, expected="a whole image", got="one that breaks off or is damaged", do="copy it again")
    if is_animation(data):
        raise InputError(
            where, expected="a still image", got="an animation", do="give the file alone: it is read as a video"
        )
    if (pages := tiff_pages(data)) > 1:
        raise InputError(where, expected="one picture", got=f"a TIFF of {pages} pages", do="save each as a file")
    if is_jpeg:
        image = _decode(data, _SHRINKING[shrink] | cv2.IMREAD_IGNORE_ORIENTATION, where)
    else:
        image = _decode(data, cv2.IMREAD_UNCHANGED, where)
        _check_loses_nothing_as_bgr(image, where)
        if image.shape[2:] != (3,):
            image = _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, where)
    orientation = orientation_of(data)
    return (turn_back(image, orientation) if is_tiff(data) else image), orientation


def _decode(data: bytes, flags: int, where: str) -> NDArray[Any]:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:  # raised where the header promises more pixels than OpenCV agrees to hold
        raise InputError(where, expected="an image", got=f"OpenCV's refusal: {error.err}", do="convert it") from error
    if image is None:
        got = "a file that OpenCV cannot decode" if data else "an empty file"
        do = "convert it to JPEG or PNG, or leave it out"
        if is_heif(data):
            got = f"{_HEIF_BRANDS[data[8:12]]}, which OpenCV cannot decode"
            do = f"convert it to JPEG (heif-convert IN OUT.jpg), or {_IPHONE}"
        raise InputError(where, expected="an image", got=got, do=do)
    return image


def _check_loses_nothing_as_bgr(image: NDArray[Any], where: str) -> None:
    if image.dtype != np.uint8:
        got = f"{8 * image.dtype.itemsize} bits per channel"
        raise InputError(where, expected="8 bits per channel", got=got, do="convert it to 8 bits")
    if image.shape[2:] == (4,) and image[..., 3].min() < 255:
        do = "flatten it onto the background that you want"
        raise InputError(where, expected="an opaque image", got="transparent pixels", do=do)


def _jpeg_is_whole(data: bytes) -> bool:
    """Walk the segments and scans of a JPEG to its end marker; bytes after it are allowed, as cameras write some."""
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return False
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker != 0xDA:
            continue
        after = _MARKER_AFTER_SCAN.search(data, position)
        if after is None:
            return False
        position = after.start()
        if data[position + 1] == 0xD9:
            return True
    return False


def _png_is_whole(data: bytes) -> bool:
    """Walk the chunks of a PNG to its end chunk, checking each CRC."""
    position = len(_PNG_START)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        body = data[position + 4 : position + 8 + length]
        if zlib.crc32(body) != int.from_bytes(data[position + 8 + length : position + 12 + length], "big"):
            return False
        if body.startswith(b"IEND"):
            return True
        position += 12 + length
    return False
