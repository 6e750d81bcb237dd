from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge.datasets.images import decode_image, left_out, list_images, read_image, write_image
from mdpose_edge.datasets.orientation import orientation_of
from mdpose_edge.errors import InputError
from tests.unit.datasets import oriented

Image = NDArray[Any]


def picture(height: int = 48, width: int = 64, channels: int = 3) -> Image:
    small = np.random.default_rng(0).integers(0, 256, (6, 8, channels), np.uint8)
    return cv2.resize(small, (width, height)).reshape(height, width, channels)


def encoded(image: Image, suffix: str, *options: int) -> bytes:
    done, data = cv2.imencode(suffix, image, options)
    assert done
    return data.tobytes()


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def rgba(alpha_of_one_pixel: int) -> Image:
    image = np.dstack([picture(), np.full((48, 64), 255, np.uint8)])
    image[5, 5, 3] = alpha_of_one_pixel
    return image


def sixteen_bit() -> Image:
    return picture().astype(np.uint16) * 257


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def flip_a_byte(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


BAD_FILES = {
    "empty file": (lambda: b"", "empty file"),
    "text": (lambda: b"not a picture", "cannot decode"),
    "JPEG cut in its header": (lambda: encoded(picture(), ".jpg")[:40], "breaks off"),
    "JPEG cut in its scan": (lambda: cut(encoded(picture(), ".jpg"), 0.7), "breaks off"),
    "JPEG without its last byte": (lambda: encoded(picture(), ".jpg")[:-1], "breaks off"),
    "progressive JPEG cut between scans": (
        lambda: cut(encoded(picture(), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1), 0.9),
        "breaks off",
    ),
    "PNG cut": (lambda: cut(encoded(picture(), ".png"), 0.7), "breaks off"),
    "PNG without its end chunk": (lambda: encoded(picture(), ".png")[:-12], "breaks off"),
    "PNG with a byte changed": (lambda: flip_a_byte(encoded(picture(), ".png")), "damaged"),
    "WebP cut": (lambda: cut(encoded(picture(), ".webp"), 0.7), "cannot decode"),
    "1x1": (lambda: encoded(picture(1, 1), ".png"), "1x1"),
    "1x1 JPEG": (lambda: encoded(picture(1, 1), ".jpg"), "1x1"),
    "20000x20": (lambda: encoded(picture(20, 20000), ".png"), "20000x20"),
    "16-bit": (lambda: encoded(sixteen_bit(), ".png"), "16 bits"),
    "16-bit grey": (lambda: encoded(sixteen_bit()[..., 0], ".png"), "16 bits"),
    "float": (lambda: encoded(picture().astype(np.float32), ".tiff"), "32 bits"),
    "one transparent pixel": (lambda: encoded(rgba(254), ".png"), "transparent"),
}


@pytest.mark.parametrize("orient", [False, True])
@pytest.mark.parametrize(("make", "got"), BAD_FILES.values(), ids=BAD_FILES)
def test_what_cannot_be_read_whole_and_without_loss_is_refused_by_name(
    make: Callable[[], bytes], got: str, orient: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(make())
    with pytest.raises(InputError, match=got) as caught:
        read_image(path, orient=orient)
    assert caught.value.where == str(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "none.jpg", orient=False)
    with pytest.raises(InputError, match="got a folder"):
        read_image(tmp_path, orient=False)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_read_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "locked.jpg"
    path.write_bytes(encoded(picture(), ".jpg"))
    path.chmod(0)
    with pytest.raises(InputError, match="rights"):
        read_image(path, orient=False)


def test_a_header_that_promises_too_many_pixels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.bmp"
    data = bytearray(encoded(picture(), ".bmp"))
    data[18:26] = struct.pack("<ii", 2**20, 2**20)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"bomb\.bmp"):
        read_image(path, orient=False)


GOOD_FILES = {
    "JPEG": (lambda: encoded(picture(), ".jpg"), 8),
    "progressive JPEG": (lambda: encoded(picture(), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1), 8),
    "JPEG with restart markers": (lambda: encoded(picture(), ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 1), 8),
    "JPEG with bytes after its end": (lambda: encoded(picture(), ".jpg") + b"trailer\xff\xd8", 8),
    "PNG": (lambda: encoded(picture(), ".png"), 0),
    "PNG with bytes after its end": (lambda: encoded(picture(), ".png") + b"trailer", 0),
    "BMP": (lambda: encoded(picture(), ".bmp"), 0),
    "RGBA, opaque": (lambda: encoded(rgba(255), ".png"), 0),
}


@pytest.mark.parametrize("orient", [False, True])
@pytest.mark.parametrize(("make", "tolerance"), GOOD_FILES.values(), ids=GOOD_FILES)
def test_a_whole_image_is_read_as_bgr(make: Callable[[], bytes], tolerance: int, orient: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(make())
    frame = read_image(path, orient=orient)
    assert frame.dtype == np.uint8
    assert frame.shape == (48, 64, 3)
    assert np.abs(frame.astype(int) - picture()).mean() <= tolerance


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_grey_is_repeated_to_three_channels(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"grey{suffix}"
    path.write_bytes(encoded(picture(channels=1), suffix))
    frame = read_image(path, orient=False)
    assert frame.shape == (48, 64, 3)
    assert (frame == frame[..., :1]).all()
    assert np.abs(frame[..., 0].astype(int) - picture(channels=1)[..., 0]).mean() <= 8


def test_exif_orientation_is_honoured_only_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    path.write_bytes(with_orientation(encoded(picture(), ".jpg"), 6))
    stored, upright = read_image(path, orient=False), read_image(path, orient=True)
    assert stored.shape == (48, 64, 3)
    assert np.array_equal(upright, cv2.rotate(stored, cv2.ROTATE_90_CLOCKWISE))


STORED_TOP_LEFT = {1: "TL", 2: "TR", 3: "BR", 4: "BL", 5: "TL", 6: "TR", 7: "BR", 8: "BL"}
"""Where each EXIF orientation shows the corner that is stored first; 5 to 8 swap the sides."""


@pytest.mark.parametrize("suffix", oriented.FORMATS)
@pytest.mark.parametrize("orientation", STORED_TOP_LEFT)
def test_every_format_is_turned_upright_alike(suffix: str, orientation: int, tmp_path: Path) -> None:
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:16, :16] = 255
    path = tmp_path / f"a{suffix}"
    path.write_bytes(oriented.encoded(stored, suffix, orientation))
    assert np.abs(read_image(path, orient=False).astype(int) - stored).mean() < 2
    upright = read_image(path, orient=True)
    assert upright.shape[:2] == ((48, 64) if orientation < 5 else (64, 48))
    corners = {"TL": upright[4, 4], "TR": upright[4, -5], "BL": upright[-5, 4], "BR": upright[-5, -5]}
    assert [name for name, pixel in corners.items() if pixel.min() > 200] == [STORED_TOP_LEFT[orientation]]


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"II*\0",
        b"MM\0*\0\0\0\x08\xff\xff",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0",
    ],
    ids=["nothing", "cut short", "no entries", "orientation 9"],
)
def test_exif_that_is_broken_or_nonsense_turns_nothing(exif: bytes) -> None:
    body = b"Exif\0\0" + exif
    jpeg = encoded(picture(), ".jpg")
    data = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]
    assert orientation_of(data) == 1
    assert decode_image(data, "a.jpg", orient=True).shape == (48, 64, 3)


def test_an_image_is_written_in_the_format_of_its_suffix_and_nothing_else_stays(tmp_path: Path) -> None:
    for name, start in {"a.png": b"\x89PNG", "b.JPG": b"\xff\xd8\xff"}.items():
        write_image(tmp_path / "new" / name, picture())
        assert (tmp_path / "new" / name).read_bytes().startswith(start)
    assert np.array_equal(read_image(tmp_path / "new" / "a.png", orient=False), picture())
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["a.png", "b.JPG"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.txt", "c.webp", "deep/d.jpg", "odd[1].jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"listed, not read")
    (tmp_path / "folder.jpg").mkdir()
    return tmp_path


LISTINGS = {
    "a folder": (["."], ["a.PNG", "b.jpg", "c.webp", "odd[1].jpg"]),
    "a file": (["b.jpg"], ["b.jpg"]),
    "a file of another suffix, named directly": (["notes.txt"], ["notes.txt"]),
    "a file whose name looks like a glob": (["odd[1].jpg"], ["odd[1].jpg"]),
    "a glob": (["*.jpg"], ["b.jpg", "odd[1].jpg"]),
    "a glob takes images only": (["*"], ["a.PNG", "b.jpg", "c.webp", "odd[1].jpg"]),
    "a recursive glob": (["**/*.jpg"], ["b.jpg", "deep/d.jpg", "odd[1].jpg"]),
    "several, in their order, each file once": (
        ["deep", "b.jpg", "."],
        ["deep/d.jpg", "b.jpg", "a.PNG", "c.webp", "odd[1].jpg"],
    ),
}


@pytest.mark.parametrize(("sources", "expected"), LISTINGS.values(), ids=LISTINGS)
def test_sources_are_listed(
    sources: list[str], expected: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert [path.as_posix() for path in list_images(sources)] == expected


def test_what_is_passed_over_in_folders_and_globs_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert left_out([".", "*.jpg", "b.jpg", "odd[1].jpg"]) == ""
    for name in ("x.heic", "deep/y.AVIF", "._b.jpg", ".DS_Store", "Thumbs.db"):
        Path(name).write_bytes(b"")
    assert left_out(["."]).startswith("1 hidden file (._b.jpg) and 1 picture (x.heic) of other kinds than .bmp, ")
    assert left_out(["*"]).startswith("1 picture (x.heic) of other kinds")
    assert left_out(["**/*"]).startswith("2 pictures (y.AVIF, x.heic) of other kinds")
    with pytest.raises(InputError, match=r"got none, and 1 picture \(x\.heic\) of other kinds"):
        list_images(["*.heic"])


def test_sources_without_images_are_refused_by_name(folder: Path) -> None:
    (folder / "empty").mkdir()
    for source, got in {"empty": "got none", "*.bmp": "got none", "missing.jpg": "no such file"}.items():
        with pytest.raises(InputError, match=got) as caught:
            list_images([folder / "b.jpg", folder / source])
        assert caught.value.where == str(folder / source)
    with pytest.raises(InputError, match="name at least one"):
        list_images([])


@pytest.mark.parametrize("preview", [False, True])
def test_a_tiff_of_several_pages_is_refused_and_one_with_a_preview_read(preview: bool, tmp_path: Path) -> None:
    pages = [picture(), picture()]
    assert cv2.imwritemulti(str(tmp_path / "pages.tif"), pages)
    data = bytearray((tmp_path / "pages.tif").read_bytes())
    second = int.from_bytes(data[(end := _end_of_tags(data, int.from_bytes(data[4:8], "little"))) : end + 4], "little")
    if preview:
        data[second + 2 : second + 14] = struct.pack("<HHII", 254, 4, 1, 1)
        assert decode_image(bytes(data), "pages.tif", orient=True).shape == picture().shape
        return
    with pytest.raises(InputError, match="expected one picture, got a TIFF of 2 pages; save each as a file"):
        decode_image(bytes(data), "pages.tif", orient=True)


def _end_of_tags(data: bytearray, at: int) -> int:
    return at + 2 + 12 * int.from_bytes(data[at : at + 2], "little")
