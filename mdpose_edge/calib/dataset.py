"""A calibration set: network inputs on disk, where each came from, and a digest that names them.

    CALIB/
      calib.json   the CalibrationRecord below
      inputs.npy   (N, H, W, 3) uint8: what `preprocess` made of each image

The inputs are stored as pixels rather than as image files, so that every machine calibrates on the same numbers: JPEG
decoders and resizers differ in the last bit. docs/decisions/0005-calibration-sets.md has the cost.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.calib.select import Traits
from mdpose_edge.common.arrays import ARRAY_ERRORS
from mdpose_edge.common.document import DocumentFormat, document_json
from mdpose_edge.common.files import visible_files
from mdpose_edge.common.json_text import parse_json
from mdpose_edge.errors import CalibrationError
from mdpose_edge.spec import InputSpec

CALIBRATION_VERSION = 1
"""Of the format; a reader takes its own only."""
RECORD_FILE = "calib.json"
INPUTS_FILE = "inputs.npy"

_MAKE_AGAIN = "copy the set again, or make it again with mdpose-edge calib make"


@dataclass(frozen=True)
class InputFormat:
    """All of an InputSpec that decides the pixels of a network input; batch, names and normalisation do not."""

    height: int
    width: int
    resize: Literal["stretch", "letterbox"]
    fill: tuple[int, int, int] | None
    """What `letterbox` pads with, in `color` order; None for `stretch`, which does not pad."""
    layout: Literal["NHWC"] = "NHWC"
    dtype: Literal["uint8"] = "uint8"
    color: Literal["BGR"] = "BGR"

    @classmethod
    def of(cls, spec: InputSpec) -> InputFormat:
        """Take what decides the pixels."""
        blue, green, red = (int(np.round(value)) for value in spec.mean)
        fill = (blue, green, red) if spec.resize == "letterbox" else None
        return cls(spec.height, spec.width, spec.resize, fill, spec.layout, spec.dtype, spec.color)


@dataclass(frozen=True)
class CalibrationImage:
    """One row of the inputs."""

    name: str
    """File name of the source image."""
    source_sha256: str
    """Of the source file's bytes."""
    pixels_sha256: str
    """Of the network input's bytes."""
    traits: Traits | None
    """What the annotations say of its people, or None where there are no annotations."""


@dataclass(frozen=True)
class SkippedImage:
    """An image that was picked and could not be read; another took its place."""

    name: str
    reason: str


@dataclass(frozen=True)
class CalibrationRecord:
    """What calib.json holds."""

    version: int
    toolkit_version: str
    source: str
    """What the images came from, for people: "coco-mini, train". Not a path."""
    seed: int
    input: InputFormat
    digest: str
    """See `inputs_digest`."""
    images: tuple[CalibrationImage, ...]
    """In the order of the inputs."""
    skipped: tuple[SkippedImage, ...]
    duplicates: int
    """Images passed over because an earlier one gave the very same input."""

    def to_json(self) -> str:
        """Return the record as JSON."""
        return document_json(self)


_FORMAT = DocumentFormat(
    CalibrationRecord,
    version_key="version",
    version=CALIBRATION_VERSION,
    error=CalibrationError,
    if_damaged=_MAKE_AGAIN,
    if_other_version="make the set again with this version",
)


@dataclass(frozen=True)
class CalibrationSet:
    """A set on disk, found whole and unaltered when it was opened."""

    path: Path
    record: CalibrationRecord
    inputs: NDArray[np.uint8]
    """(N, H, W, 3) BGR, mapped from the file and read-only: a row is in memory when it is used."""

    @property
    def digest(self) -> str:
        """The name of these inputs in this order, for `Provenance.calibration_digest`."""
        return self.record.digest

    def __len__(self) -> int:
        return len(self.inputs)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield each network input as an array (H, W, 3) of its own."""
        for row in self.inputs:
            yield np.array(row)

    def check_fits(self, spec: InputSpec) -> None:
        """Refuse to calibrate a model on inputs that it will not see.

        Raises:
            CalibrationError: another size, resize policy, colour order or type, or other padding.
        """
        wanted, found = InputFormat.of(spec), self.record.input
        for field in dataclasses.fields(InputFormat):
            expected, got = getattr(wanted, field.name), getattr(found, field.name)
            if expected != got:
                raise CalibrationError(
                    str(self.path),
                    expected=f"inputs of {field.name} {expected}, as the model takes",
                    got=f"{field.name} {got}",
                    do="make a set for this model with mdpose-edge calib make --like MODEL",
                )


def inputs_digest(input_format: InputFormat, pixels_sha256: Sequence[str]) -> str:
    """Name a set by its content.

    Equal digests mean equal inputs in equal order. Names, paths, dates and how the images were picked do not enter.

    Args:
        input_format: of the inputs.
        pixels_sha256: of each input's bytes, in order.

    Returns:
        A sha256, 64 hexadecimal digits.
    """
    content = {"version": CALIBRATION_VERSION, "input": dataclasses.asdict(input_format), "pixels": list(pixels_sha256)}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def open_calibration_set(path: str | Path) -> CalibrationSet:
    """Open a set after checking that it is whole and that every input is the one that was written.

    Reads all of it once: about 1 ms per input of 736x736 where the file is in the page cache.

    Raises:
        CalibrationError: no such set, another version, no images, or a file is missing, altered or not the set's.
    """
    path = Path(path)
    record = _read_record(path)
    extra = sorted(visible_files(path) - {RECORD_FILE, INPUTS_FILE})
    if extra:
        expected = f"only {RECORD_FILE} and {INPUTS_FILE}"
        raise CalibrationError(str(path), expected=expected, got=extra[0], do="move it elsewhere")
    inputs = _map_inputs(path / INPUTS_FILE, record)
    for image, row in zip(record.images, inputs, strict=True):
        if hashlib.sha256(row.data).hexdigest() != image.pixels_sha256:
            expected = f"the input of {image.name} as it was written"
            raise CalibrationError(str(path / INPUTS_FILE), expected=expected, got="altered pixels", do=_MAKE_AGAIN)
    return CalibrationSet(path, record, inputs)


def is_calibration_set(path: Path) -> bool:
    """Say whether a folder holds a set's own files alone, whatever their state; an empty folder counts."""
    names = visible_files(path)
    return not names or (RECORD_FILE in names and names <= {RECORD_FILE, INPUTS_FILE} and _is_record(path))


def _is_record(path: Path) -> bool:
    try:
        data = parse_json((path / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and {"version", "digest", "images"} <= data.keys()


def _read_record(path: Path) -> CalibrationRecord:
    file = path / RECORD_FILE
    where = str(file)
    if not file.is_file():
        got = "none" if path.is_dir() else "a file" if path.exists() else "no such folder"
        do = "give a folder that mdpose-edge calib make wrote"
        raise CalibrationError(str(path), expected=f"a calibration set with its {RECORD_FILE}", got=got, do=do)
    record = _FORMAT.read(file)
    if not record.images:
        raise CalibrationError(where, expected="at least one image", got="an empty set", do=_MAKE_AGAIN)
    if record.digest != inputs_digest(record.input, [image.pixels_sha256 for image in record.images]):
        expected = f"the digest of what is listed, {record.digest[:12]}..."
        raise CalibrationError(where, expected=expected, got="another: the list was altered", do=_MAKE_AGAIN)
    return record


def _map_inputs(path: Path, record: CalibrationRecord) -> NDArray[np.uint8]:
    shape = (len(record.images), record.input.height, record.input.width, 3)
    expected = f"uint8 {shape} in C order"
    try:
        inputs: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except ARRAY_ERRORS as error:
        got = "no such file" if not path.exists() else f"a file that is damaged or cut short: {error}"
        raise CalibrationError(str(path), expected=expected, got=got, do=_MAKE_AGAIN) from error
    if inputs.dtype != np.uint8 or inputs.shape != shape or not inputs.flags.c_contiguous:
        got = f"{inputs.dtype} {inputs.shape}{'' if inputs.flags.c_contiguous else ' in another order'}"
        raise CalibrationError(str(path), expected=expected, got=got, do=_MAKE_AGAIN)
    return inputs
