"""Is a dataset sound? Its annotations, its images, and a sheet of the suspects to look at."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.progress import Progress
from mdpose_edge.datasets.coco import read_annotations, whole_number
from mdpose_edge.datasets.faults import Fault, annotation_faults, records_of
from mdpose_edge.datasets.images import (
    annotated_frames,
    decode_image,
    read_annotated,
    read_image,
    read_image_bytes,
)
from mdpose_edge.datasets.instance_faults import count_by_category, instance_faults
from mdpose_edge.datasets.layout import BOX_FORMAT, locate
from mdpose_edge.datasets.orientation import SIDEWAYS, orientation_of
from mdpose_edge.datasets.readers import coco_form
from mdpose_edge.draw import contact_sheet
from mdpose_edge.errors import ConfigError, DataError, InputError
from mdpose_edge.spec import KeypointSpec

SHEET_PICTURES = 24
SHEET_PER_KIND = 4
SHEET_COLUMNS, SHEET_CELL_WH = 4, (320, 240)
_BOX_BGR, _DOT_BGR, _GREY = (0, 0, 255), (0, 255, 255), 96
_LINE = 64
"""Letters that a card of the sheet has room for."""
_CONTEXT = 0.4
"""Share of a person's longer side that the sheet shows around it."""


@dataclass(frozen=True)
class Findings:
    """What a check found."""

    data: str
    split: str
    format: str
    annotation_file: Path
    image_dir: Path
    images: int
    people: int
    labelled_people: int
    faults: tuple[Fault, ...]
    categories: Mapping[str, int] = field(default_factory=dict)
    """How many boxes of each category there are, where they are of any; `people` are all of them then."""
    stated_wh: Mapping[str, tuple[Any, Any]] = field(default_factory=dict, repr=False)
    """Width and height of each image by its file, as the annotations have them."""

    def counts(self) -> dict[str, int]:
        """Return how many faults there are of each kind, most first."""
        return dict(Counter(fault.kind for fault in self.faults).most_common())

    def to_json_dict(self) -> dict[str, Any]:
        """Return everything, ready for json.dump."""
        plain = {key: getattr(self, key) for key in ("data", "split", "format", "images", "people", "labelled_people")}
        faults = [fault.to_json_dict() for fault in self.faults]
        if self.categories:
            plain["categories"] = dict(self.categories)
        return {**plain, "annotation_file": str(self.annotation_file), "counts": self.counts(), "faults": faults}


def check_data(
    data_dir: str | Path,
    split: str,
    data_format: str | None = None,
    *,
    keypoints: KeypointSpec | None = None,
    progress: Progress | None = None,
) -> Findings:
    """Look for every fault of a split: in its annotations, then in each image.

    Args:
        data_dir: the dataset's folder.
        split: "train", "val", ...
        data_format: one of layout.FORMATS, or None to take the only one that is there.
        keypoints: the set that is wanted of the split, or None for the names of the file.
        progress: called after each image.

    Raises:
        DataError: there is no annotation file, it is no JSON object, or it is of another format than its name says.
        ConfigError: keypoints are wanted of a file of boxes.
    """
    located = locate(data_dir, split, data_format)
    data = coco_form(read_annotations(located.annotation_file), located, split)
    images, people = records_of(data.get("images")), records_of(data.get("annotations"))
    if not images:
        raise DataError(str(located.annotation_file), expected="images", got="none", do="use another file")
    has_boxes = located.format == BOX_FORMAT
    if has_boxes and keypoints is not None:
        do = "leave the option out, or give data with keypoints"
        raise ConfigError("--keypoints", expected="annotations of keypoints", got=str(located.annotation_file), do=do)
    faults = instance_faults(data) if has_boxes else annotation_faults(data, keypoints)
    faults += _picture_faults(images, located.image_dir, progress)
    return Findings(
        data=str(data_dir),
        split=split,
        format=located.format,
        annotation_file=located.annotation_file,
        image_dir=located.image_dir,
        images=len(images),
        people=len(people),
        labelled_people=sum(bool(person.get("num_keypoints")) for person in people),
        faults=tuple(faults),
        categories=count_by_category(data) if has_boxes else {},
        stated_wh={str(image.get("file_name")): (image.get("width"), image.get("height")) for image in images},
    )


def suspects_sheet(findings: Findings) -> NDArray[np.uint8]:
    """Paint a contact sheet of suspects: a few of each kind, each with its box red and its keypoints yellow.

    Raises:
        ValueError: nothing is wrong.
    """
    taken: Counter[str] = Counter()
    shown: list[Fault] = []
    for fault in findings.faults:
        if len(shown) < SHEET_PICTURES and taken[fault.kind] < SHEET_PER_KIND:
            taken[fault.kind] += 1
            shown.append(fault)
    pictures = [_picture(fault, findings) for fault in shown]
    titles = [": ".join(filter(None, (fault.kind, fault.image or str(fault.annotation or "")))) for fault in shown]
    return contact_sheet(pictures, SHEET_COLUMNS, SHEET_CELL_WH, titles)


def _picture_faults(images: Sequence[Mapping[str, Any]], folder: Path, progress: Progress | None) -> list[Fault]:
    faults: list[Fault] = []
    seen: dict[str, str] = {}
    for done, record in enumerate(images, 1):
        name = record.get("file_name")
        if isinstance(name, str):
            faults += _file_faults(record, name, folder / name, seen)
        if progress is not None:
            progress(done, len(images))
    return faults


def _file_faults(record: Mapping[str, Any], name: str, path: Path, seen: dict[str, str]) -> list[Fault]:
    if not path.is_file():
        return [Fault("missing image", str(path), name)]
    try:
        content = read_image_bytes(path)
        image = decode_image(content, str(path), orient=False)
    except InputError as error:
        return [Fault("broken image", f"expected {error.expected}, got {error.got}", name)]
    digest = hashlib.sha256(content).hexdigest()
    twin = seen.setdefault(digest, name)
    faults = [] if twin == name else [Fault("duplicate image", f"the same bytes as {twin}", name)]
    return [*faults, *_frame_faults(record, name, image, orientation_of(content))]


def _frame_faults(record: Mapping[str, Any], name: str, image: NDArray[np.uint8], orientation: int) -> Iterator[Fault]:
    """Say where the size that is stated fits no frame of the image, or does not tell which one was annotated."""
    stated, found = (record.get("width"), record.get("height")), (image.shape[1], image.shape[0])
    width, height = map(whole_number, stated)
    frames = [] if width is None or height is None else annotated_frames(image, orientation, (width, height))
    if not frames:
        turned = f", {found[1]}x{found[0]} upright" if orientation in SIDEWAYS else ""
        detail = f"{stated[0]}x{stated[1]} px stated, {found[0]}x{found[1]} found{turned}"
        yield Fault("image of another size", detail, name)
    elif len(frames) > 1:
        detail = f"EXIF orientation {orientation}, and the size is the same either way: which one was annotated?"
        yield Fault("two ways up", detail, name)


def _picture(fault: Fault, findings: Findings) -> NDArray[np.uint8]:
    """Show a suspect in its image, in the frame of its annotations; a grey card where there is none to show."""
    blank = np.full((SHEET_CELL_WH[1], SHEET_CELL_WH[0], 3), _GREY, np.uint8)
    if fault.image is None:
        return _with_text(blank, fault.detail)
    path = findings.image_dir / fault.image
    try:
        image, _ = read_annotated(path, findings.stated_wh[fault.image])
    except (DataError, InputError, TypeError):  # TypeError: no size is stated
        try:
            image = read_image(path, orient=False)
        except InputError:
            return _with_text(blank, fault.detail)
    return _with_text(_around(_painted(image, fault), fault), fault.detail)


def _painted(image: NDArray[np.uint8], fault: Fault) -> NDArray[np.uint8]:
    width = max(1, round(max(image.shape[:2]) / 300))
    if fault.box_xywh is not None:
        x, y, w, h = (round(float(np.clip(side, -1e6, 1e6))) for side in fault.box_xywh)
        cv2.rectangle(image, (x, y), (x + w, y + h), _BOX_BGR, width)
    for px, py, v in fault.keypoints or ():
        if v > 0:
            cv2.circle(image, (round(px), round(py)), 2 * width, _DOT_BGR, cv2.FILLED, cv2.LINE_AA)
    return image


def _around(image: NDArray[np.uint8], fault: Fault) -> NDArray[np.uint8]:
    """Cut out a person and its surroundings; keypoints and box stay in view where they lie outside the image."""
    if fault.box_xywh is None:
        return image
    x, y, w, h = fault.box_xywh
    corners = [(x, y), (x + w, y + h), *((px, py) for px, py, v in fault.keypoints or () if v > 0)]
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    margin = _CONTEXT * max(float((high - low).max()), 32.0)
    left, top = np.floor(np.maximum(low - margin, 0)).astype(int)
    right, bottom = np.ceil(np.minimum(high + margin, image.shape[1::-1])).astype(int)
    part = image[top:bottom, left:right]
    return part if min(part.shape[:2]) > 0 else image


def _with_text(picture: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    width, height = SHEET_CELL_WH
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    card = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    cv2.rectangle(card, (0, card.shape[0] - 18), (card.shape[1], card.shape[0]), (0, 0, 0), cv2.FILLED)
    line = text if len(text) <= _LINE else text[: _LINE - 3] + "..."
    cv2.putText(card, line, (4, card.shape[0] - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255,) * 3, 1, cv2.LINE_AA)
    return card
