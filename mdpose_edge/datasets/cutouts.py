"""People with outlines, to be cut out of their pictures: COCO's `segmentation` where it is polygons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.datasets.coco import CocoSplit, read_annotations
from mdpose_edge.errors import DataError

LEAST_KEYPOINTS = 5
"""Labelled ones of a person worth pasting."""
LEAST_SIDE = 24.0
"""px, of the shorter side of the box."""
EDGE = 2.0
"""px: a box so near to its image's edge is cut off by it."""


@dataclass(frozen=True)
class CutOut:
    """A person who can be cut out."""

    image: int
    """Index into the split's images."""
    person: int
    """Row of the split's arrays of people."""
    polygons: tuple[NDArray[np.float32], ...]
    """Each (n, 2), px: together they cover what is seen of the person."""
    at_bottom: bool
    """The image's lower edge cuts the person off."""


def read_cut_outs(split: CocoSplit) -> tuple[CutOut, ...]:
    """Find the people who can be cut out of a split: whole, or cut off at the bottom alone.

    Raises:
        DataError: there are none.
    """
    position = dict.fromkeys(range(len(split.images)), 0)
    index_of = {image.id: index for index, image in enumerate(split.images)}
    found = []
    for record in read_annotations(split.annotation_file).get("annotations", []):
        image = index_of.get(record.get("image_id"))
        if image is None or record.get("category_id", split.category_id) != split.category_id:
            continue
        person = int(split.first_person[image]) + position[image]
        position[image] += 1
        if person < split.first_person[image + 1] and _usable(split, image, person):
            polygons = _polygons(record.get("segmentation"))
            if polygons:
                found.append(CutOut(image, person, polygons, _edges(split, image, person)[3]))
    if not found:
        do = "give data with outlines, as COCO's and synth's are, or leave augment.paste_prob at 0"
        expected = "people with polygons under segmentation, to cut them out"
        raise DataError(str(split.annotation_file), expected=expected, got="none", do=do)
    return tuple(found)


def _usable(split: CocoSplit, image: int, person: int) -> bool:
    left, top, right, _ = _edges(split, image, person)
    large = split.boxes_xywh[person, 2:].min() >= LEAST_SIDE
    labelled = (split.keypoints[person, :, 2] > 0).sum() >= LEAST_KEYPOINTS
    return bool(large and labelled and not split.iscrowd[person] and not (left or top or right))


def _edges(split: CocoSplit, image: int, person: int) -> tuple[bool, bool, bool, bool]:
    """Say at which edges of the image the box ends: left, top, right, bottom."""
    x, y, width, height = split.boxes_xywh[person].tolist()
    image_w, image_h = split.images[image].wh
    return x <= EDGE, y <= EDGE, x + width >= image_w - EDGE, y + height >= image_h - EDGE


def _polygons(segmentation: Any) -> tuple[NDArray[np.float32], ...]:
    """Return the polygons of a record; none where it is a run-length code or not a list of coordinates."""
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str):
        return ()
    flat = [part for part in segmentation if isinstance(part, Sequence) and len(part) >= 6 and len(part) % 2 == 0]
    return tuple(np.asarray(part, np.float32).reshape(-1, 2) for part in flat)
