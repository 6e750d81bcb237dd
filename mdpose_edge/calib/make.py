"""Images become a calibration set."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mdpose_edge import __version__
from mdpose_edge.calib.dataset import (
    CALIBRATION_VERSION,
    INPUTS_FILE,
    RECORD_FILE,
    CalibrationImage,
    CalibrationRecord,
    InputFormat,
    SkippedImage,
    inputs_digest,
    is_calibration_set,
)
from mdpose_edge.calib.select import Traits, rank_images, traits_of
from mdpose_edge.common.files import file_sha256, name_text, write_folder
from mdpose_edge.common.progress import Progress
from mdpose_edge.datasets.images import list_images, read_annotated, read_image
from mdpose_edge.datasets.layout import is_dataset, locate
from mdpose_edge.datasets.readers import open_split
from mdpose_edge.errors import CalibrationError, InputError
from mdpose_edge.preprocess import preprocess
from mdpose_edge.spec import InputSpec

MIN_IMAGES = 100
"""Below it the ranges hang on single images; fewer are taken only on demand."""
MAX_UNREADABLE = 0.01
"""Largest share of unreadable images among those asked for: above it something is wrong with the data."""


@dataclass(frozen=True)
class _Candidate:
    path: Path
    traits: Traits | None = None
    stated_wh: tuple[int, int] | None = None
    """Of an annotated image."""

    def read(self) -> NDArray[np.uint8]:
        """Read it in the frame of its annotations, or upright where it has none."""
        if self.stated_wh is None:
            return read_image(self.path, orient=True)
        return read_annotated(self.path, self.stated_wh)[0]


@dataclass
class _Taken:
    """What became of the candidates."""

    images: list[CalibrationImage] = field(default_factory=list)
    skipped: list[SkippedImage] = field(default_factory=list)
    duplicates: int = 0


def make_calibration_set(
    data: str | Path,
    out: str | Path,
    spec: InputSpec,
    *,
    split: str | None = None,
    num: int = 512,
    seed: int = 0,
    allow_few: bool = False,
    progress: Progress | None = None,
    data_format: str | None = None,
) -> CalibrationRecord:
    """Pick images, preprocess them as a model takes them, and write the set.

    An image that cannot be read is skipped and one that gives the very input of another is passed over; the next in
    line takes its place. The same images, seed and spec give the same digest. It also depends on the JPEG decoder and
    the resizing of the OpenCV at hand, which is why the set holds pixels.

    Args:
        data: a folder of images (those of subfolders do not count); with `split`, a dataset's (docs/data.md).
        out: the set's folder; an earlier set there is replaced.
        spec: size and resize policy.
        split: the split to pick from, stratified over its annotations; None for a plain folder. As everywhere, images
            with annotations are taken in the frame of these, others upright as EXIF says.
        num: how many images.
        seed: of the draw.
        allow_few: True takes fewer than MIN_IMAGES.
        progress: called after each image.
        data_format: "coco", "crowdpose", "ochuman", or None to take the only one that is there.

    Returns:
        What calib.json holds.

    Raises:
        CalibrationError: too few images asked for or found, too many of them unreadable, or `out` holds something else
            or cannot be written. No set is left.
        DataError: the annotations cannot be used, or state another size than an image has.
        InputError: the folder holds no images.
    """
    data = Path(data)
    _check_num(num, allow_few)
    candidates = _list_frames(data) if split is None else _list_split(data, split, data_format)
    if len(candidates) < num:
        raise _too_few(data, num, len(candidates), f"{len(candidates)} images")
    order = rank_images({name: c.traits.stratum if c.traits else None for name, c in candidates.items()}, seed)
    with write_folder(Path(out), kind="calibration set", is_own=is_calibration_set, error=CalibrationError) as folder:
        taken = _Taken()
        inputs = _read_inputs({name: candidates[name] for name in order}, spec, num, taken)
        _write_inputs(folder / INPUTS_FILE, inputs, (num, spec.height, spec.width, 3), progress, out=Path(out))
        if len(taken.images) < num:
            found = f"{len(taken.images)} ({len(taken.skipped)} unreadable, {taken.duplicates} the same as another)"
            raise _too_few(data, num, len(taken.images), found)
        source = data.resolve().name + (f", {split}" if split else "")
        record = _record(source, seed, InputFormat.of(spec), taken)
        (folder / RECORD_FILE).write_text(record.to_json(), encoding="utf-8")
    return record


def _check_num(num: int, allow_few: bool) -> None:
    if num < 1:
        raise CalibrationError("--num", expected="at least 1 image", got=str(num), do="raise it")
    if num < MIN_IMAGES and not allow_few:
        do = "raise it, or pass --allow-few to measure ranges on so few"
        raise CalibrationError("--num", expected=f"at least {MIN_IMAGES} images", got=str(num), do=do)


def _too_few(data: Path, num: int, available: int, found: str) -> CalibrationError:
    lower = f"--num {available}" + (" --allow-few" if available < MIN_IMAGES else "")
    do = f"give more images, or pass {lower}" if available else "give other images"
    return CalibrationError(str(data), expected=f"{num} readable, different images", got=found, do=do)


def _list_frames(folder: Path) -> dict[str, _Candidate]:
    if not folder.is_dir():
        got = "a file" if folder.exists() else "no such folder"
        raise CalibrationError(str(folder), expected="a folder of images", got=got, do="correct the path")
    if is_dataset(folder):
        do = "name its split, for instance --split train"
        raise CalibrationError(str(folder), expected="a folder of images", got="a dataset's, with annotations", do=do)
    return {path.name: _Candidate(path) for path in list_images([folder])}


def _list_split(data_dir: Path, split: str, data_format: str | None) -> dict[str, _Candidate]:
    data = open_split(data_dir, split, data_format)
    folder = locate(data_dir, split, data_format).image_dir
    return {
        Path(os.path.relpath(image.path, folder)).as_posix(): _Candidate(
            image.path, traits_of(data.persons(index), image.wh), image.wh
        )
        for index, image in enumerate(data.images)
    }


def _read_inputs(
    candidates: Mapping[str, _Candidate], spec: InputSpec, num: int, taken: _Taken
) -> Iterator[NDArray[np.uint8]]:
    """Yield the inputs of the first `num` usable candidates, keeping account in `taken`."""
    seen: set[str] = set()
    for name, candidate in candidates.items():
        try:
            pixels, _ = preprocess(candidate.read(), spec)
        except InputError as error:
            taken.skipped.append(SkippedImage(name_text(name), f"expected {error.expected}, got {error.got}"))
            _check_skipped(candidate.path.parent, taken.skipped, num)
            continue
        pixels_sha256 = hashlib.sha256(pixels.data).hexdigest()
        if pixels_sha256 in seen:
            taken.duplicates += 1
            continue
        seen.add(pixels_sha256)
        taken.images.append(
            CalibrationImage(name_text(name), file_sha256(candidate.path), pixels_sha256, candidate.traits)
        )
        yield pixels
        if len(taken.images) == num:
            return


def _check_skipped(folder: Path, skipped: list[SkippedImage], num: int) -> None:
    if len(skipped) > MAX_UNREADABLE * num:
        raise CalibrationError(
            str(folder),
            expected=f"at most {MAX_UNREADABLE:.0%} unreadable images",
            got=f"{len(skipped)} for a set of {num}, the last {skipped[-1].name} ({skipped[-1].reason})",
            do="repair or remove them",
        )


def _write_inputs(
    path: Path, inputs: Iterable[NDArray[np.uint8]], shape: tuple[int, ...], progress: Progress | None, *, out: Path
) -> None:
    """Write an .npy file of the set `out` row by row; through a memory map, a full disk would kill the process."""
    try:
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for done, pixels in enumerate(inputs, 1):
                file.write(pixels.data)
                if progress is not None:
                    progress(done, shape[0])
    except OSError as error:
        got, do = f"the system's answer: {error.strerror}", "make room, or choose another path"
        raise CalibrationError(str(out), expected="a place to write the inputs", got=got, do=do) from error


def _record(source: str, seed: int, input_format: InputFormat, taken: _Taken) -> CalibrationRecord:
    return CalibrationRecord(
        version=CALIBRATION_VERSION,
        toolkit_version=__version__,
        source=source,
        seed=seed,
        input=input_format,
        digest=inputs_digest(input_format, [image.pixels_sha256 for image in taken.images]),
        images=tuple(taken.images),
        skipped=tuple(taken.skipped),
        duplicates=taken.duplicates,
    )
