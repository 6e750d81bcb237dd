"""COCO's instances files: boxes of any categories, without keypoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdpose_edge.datasets.coco import (
    BOX_COLUMNS,
    Categories,
    CocoSplit,
    at_least_zero,
    numbers_of,
    read_annotations,
    read_images,
    whole_number,
)
from mdpose_edge.datasets.layout import locate
from mdpose_edge.errors import ConfigError, DataError
from mdpose_edge.spec import KeypointSpec

_DO = "correct the file; mdpose-edge data check lists every fault"


def box_split_of(
    data: Mapping[str, Any], path: Path, image_dir: Path, name: str, classes: Sequence[str] | None = None
) -> CocoSplit:
    """Build a split of boxes from the content of a COCO file, of instances or of people.

    A missing iscrowd is 0, a missing area that of the box.

    Args:
        data: the parsed JSON.
        path: the file, for messages.
        image_dir: the folder that its images must be in.
        name: of the split.
        classes: the categories that are wanted, in their order; annotations of others are left out. None takes all, in
            the order of the file.

    Raises:
        DataError: it is no COCO JSON, lacks a category that is wanted, has an instance without a box, contradicts
            itself, or an image is missing.
    """
    where = str(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), list):
            do = "use COCO's instances file"
            raise DataError(where, expected=f"a list under the key {key}", got="none", do=do)
    ids = _ids_by_name(data["categories"], where)
    names = tuple(ids) if classes is None else tuple(classes)
    if missing := [one for one in names if one not in ids]:
        expected, got = f"the categories {_listed(names)}", f"{_listed(ids)}, without {missing[0]}"
        raise DataError(where, expected=expected, got=got, do="give data of the categories that the model finds")
    images = read_images(data["images"], image_dir, where)
    index_of = {image.id: index for index, image in enumerate(images)}
    rows = [_completed(row, index_of, set(ids.values()), where) for row in _records(data["annotations"], where)]
    number_of = {ids[one]: number for number, one in enumerate(names)}
    rows = [row for row in rows if row["category_id"] in number_of]
    owners = np.fromiter((index_of[row["image_id"]] for row in rows), np.int64, len(rows))
    order = np.argsort(owners, kind="stable")
    of = np.fromiter((number_of[row["category_id"]] for row in rows), np.int64, len(rows))
    boxes = at_least_zero("box side", numbers_of(rows, "bbox", BOX_COLUMNS, where), slice(2, 4), where)
    return CocoSplit(
        name=name,
        annotation_file=path,
        images=images,
        keypoint_names=(),
        first_person=np.searchsorted(owners[order], np.arange(len(images) + 1)),
        keypoints=np.zeros((len(rows), 0, 3)),
        boxes_xywh=boxes[order],
        areas=at_least_zero("area", numbers_of(rows, "area", 1, where), slice(None), where)[order, 0],
        iscrowd=numbers_of(rows, "iscrowd", 1, where)[order, 0] != 0,
        num_keypoints=np.zeros(len(rows), np.int64),
        categories=Categories(names, tuple(ids[one] for one in names), of[order]),
    )


def category_ids(data: Mapping[str, Any], classes: Sequence[str], where: str) -> tuple[int, ...]:
    """Return the ids that an annotation file has for classes.

    Raises:
        DataError: it lacks one of them.
    """
    records = data.get("categories")
    ids = _ids_by_name(records if isinstance(records, list) else [], where)
    if missing := [one for one in classes if one not in ids]:
        expected, got = f"the categories {_listed(classes)}", f"{_listed(ids) or 'none'}, without {missing[0]}"
        raise DataError(where, expected=expected, got=got, do="give annotations of the categories that the model finds")
    return tuple(ids[one] for one in classes)


def training_classes(
    data_dir: str | Path,
    split: str,
    data_format: str | None,
    classes: tuple[str, ...] | None,
    keypoints: KeypointSpec,
) -> tuple[str, ...]:
    """Return the classes that a training on a split is for: people, where there are keypoints.

    Args:
        data_dir: the dataset's folder.
        split: as for `layout.locate`.
        data_format: likewise.
        classes: those that are wanted, or None for all of the file.
        keypoints: that are wanted.

    Raises:
        ConfigError: classes are wanted of people with keypoints.
        DataError: the file cannot be read, or has no categories.
    """
    if keypoints.names:
        if classes is not None:
            do = "leave it out, or set data.format to instances"
            raise ConfigError("data.classes", expected="none with keypoints", got=", ".join(classes), do=do)
        return ("person",)
    if classes is not None:
        return classes
    path = locate(data_dir, split, data_format, boxes=True).annotation_file
    records = read_annotations(path).get("categories")
    return tuple(_ids_by_name(records if isinstance(records, list) else [], str(path)))


def _ids_by_name(records: Sequence[Any], where: str) -> dict[str, int]:
    ids: dict[str, int] = {}
    for record in records:
        fields = record if isinstance(record, dict) else {}
        number, name = whole_number(fields.get("id")), fields.get("name")
        if number is None or not isinstance(name, str) or not name:
            raise DataError(where, expected="categories with id and name", got=str(record)[:80], do=_DO)
        if name in ids or number in ids.values():
            got = f"two of the name {name}" if name in ids else f"two with id {number}"
            raise DataError(where, expected="categories that differ", got=got, do="remove one")
        ids[name] = number
    if not ids:
        raise DataError(where, expected="at least one category", got="none", do="use COCO's instances file")
    return ids


def _records(annotations: Sequence[Any], where: str) -> list[dict[str, Any]]:
    for record in annotations:
        if not isinstance(record, dict):
            got = f"a {type(record).__name__}"
            raise DataError(where, expected="annotations that are JSON objects", got=got, do=_DO)
    return list(annotations)


def _completed(row: dict[str, Any], images: Mapping[int, int], known: set[int], where: str) -> dict[str, Any]:
    """Return what is read of an annotation, with what exporters leave out where it can mean one thing only."""
    number = row.get("id", "without id")
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != BOX_COLUMNS:
        got = f"{'none' if not box else str(box)[:40]} in annotation {number}"
        raise DataError(where, expected="a bbox [x, y, width, height] of each instance", got=got, do=_DO)
    image_id, category_id = row.get("image_id"), row.get("category_id")
    if whole_number(image_id) is None or image_id not in images:
        got = f"{image_id!r} in annotation {number}"
        raise DataError(where, expected="image_ids that stand under images", got=got, do=_DO)
    if whole_number(category_id) is None or category_id not in known:
        got = f"{category_id!r} in annotation {number}"
        raise DataError(where, expected="category_ids that stand under categories", got=got, do=_DO)
    area, crowd = row.get("area"), row.get("iscrowd")
    if area is None:
        (sides,) = numbers_of([row], "bbox", BOX_COLUMNS, where)[:, 2:]
        area = float(sides.prod())
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": box,
        "area": area,
        "iscrowd": 0 if crowd is None else crowd,
    }


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    """Name the first few."""
    most = 6
    few = list(names)[:most]
    return ", ".join(few) + (f" and {len(names) - most} more" if len(names) > most else "")
