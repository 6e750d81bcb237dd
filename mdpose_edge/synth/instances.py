"""Boxes of everything in a drawn scene, people and things alike, as COCO annotates instances."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.synth.raster import Raster

CATEGORIES = ("person", "box", "table", "bush", "ball", "seat", "pole")
"""By id, from 1."""
MIN_AREA = 12
"""A person or thing of which fewer pixels are seen is not annotated."""
MOST_INSTANCES = 1000
"""In a picture, as far as ids go: the splits share none."""


@dataclass(frozen=True)
class Thing:
    """Something that stands around, made of several solids."""

    name: str
    """One of CATEGORIES."""
    solids: range
    """Its rows of `Solids`."""


def annotate_things(things: Sequence[Thing], raster: Raster) -> list[dict[str, Any]]:
    """Return COCO annotations, without ids, of the things of which enough is seen: the box around what is nearest."""
    number_of = np.full(len(raster.surfaces.owners) + 1, -1, np.int32)
    for number, thing in enumerate(things):
        number_of[thing.solids.start : thing.solids.stop] = number
    shown = number_of[raster.solid]  # row -1, of nothing, is the last
    boxes, areas = visible(shown, len(things))
    return [
        instance(things[number].name, shown == number, boxes[number], int(areas[number]))
        for number in np.flatnonzero(areas >= MIN_AREA).tolist()
    ]


def instance(name: str, mask: NDArray[np.bool_], box: NDArray[np.float64], area: int) -> dict[str, Any]:
    """Return the annotation of a mask (H, W) with its box x0, y0, x1, y1."""
    x0, y0, x1, y1 = box.tolist()
    return {
        "category_id": CATEGORIES.index(name) + 1, "iscrowd": 0, "area": float(area),
        "bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": outline(mask[int(y0):int(y1), int(x0):int(x1)], (x0, y0)),
    }  # fmt: skip


def of_people(annotations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return people's annotations as instances: without what a skeleton adds."""
    kept = ("category_id", "iscrowd", "area", "bbox", "segmentation")
    return [{key: annotation[key] for key in kept} for annotation in annotations]


def visible(owner: NDArray[np.int32], count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the boxes (N, 4) x0, y0, x1, y1 and areas (N,) of the visible masks."""
    areas = np.bincount(owner.ravel() + 1, minlength=count + 1)[1:]
    boxes = np.zeros((count, 4))
    for index in np.flatnonzero(areas).tolist():
        mask = owner == index
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        boxes[index] = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return boxes, areas


def outline(mask: NDArray[np.bool_], corner: tuple[float, float]) -> list[list[float]]:
    """Return the polygons around a mask, in the coordinates of the image."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_L1)
    polygons = [(contour.reshape(-1, 2) + np.array(corner) + 0.5).ravel().tolist() for contour in contours]
    solid = [polygon for polygon in polygons if len(polygon) >= 6]
    if solid:
        return solid
    x, y = corner
    high, wide = mask.shape
    return [[x, y, x + wide, y, x + wide, y + high, x, y + high]]


def write_instances(
    root: Path,
    split: str,
    head: dict[str, Any],
    images: Sequence[dict[str, Any]],
    found: Sequence[list[dict[str, Any]]],
) -> None:
    """Write a split's instances file.

    Args:
        root: the dataset's folder.
        split: "train", "val".
        head: what the keypoint file has under info and licenses.
        images: COCO's records.
        found: the annotations of each, without ids.
    """
    annotations = [
        {"id": image["id"] * MOST_INSTANCES + number, "image_id": image["id"], **record}
        for image, records in zip(images, found, strict=True)
        for number, record in enumerate(records)
    ]
    document = {
        **head,
        "images": [{key: value for key, value in image.items() if key != "camera"} for image in images],
        "annotations": annotations,
        "categories": [
            {"id": number, "name": name, "supercategory": "person" if name == "person" else "thing"}
            for number, name in enumerate(CATEGORIES, 1)
        ],
    }
    (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(document))
