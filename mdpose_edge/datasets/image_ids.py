"""Which image is which: a COCO id for each image file, and the list that says so."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdpose_edge.common.files import name_text
from mdpose_edge.common.outputs import MADE_BY, MADE_BY_KEY
from mdpose_edge.datasets.coco import keypoint_category, read_annotations
from mdpose_edge.datasets.instances import category_ids
from mdpose_edge.errors import DataError

IMAGE_LIST_SUFFIX = ".images.json"
"""Takes the place of the suffix of the results that the list stands beside."""
_LARGEST_ID = 2**53
"""Beyond it a reader that holds numbers as doubles mixes ids up."""


@dataclass(frozen=True)
class ImageIds:
    """Ids of image files, no two of them the same."""

    by_name: Mapping[str, int]
    """By the path as it was found."""
    category_ids: tuple[int, ...] | None = None
    """By the classes of poses, in the annotations that the ids are from; None where there are none."""

    def image_record(self, name: str, shape: Sequence[int]) -> dict[str, Any]:
        """Return an image as COCO lists it; `shape` begins with height and width."""
        return {"id": self.by_name[name], "file_name": name_text(name), "width": shape[1], "height": shape[0]}


def ids_of_names(paths: Sequence[Path]) -> ImageIds:
    """Take each file's name as its number, as in COCO; where one is no number, or two are the same, count from 1."""
    numbers = [int(path.stem) if path.stem.isdecimal() else _LARGEST_ID for path in paths]
    if len(set(numbers)) < len(numbers) or max(numbers) >= _LARGEST_ID:
        numbers = list(range(1, len(paths) + 1))
    return ImageIds({str(path): number for path, number in zip(paths, numbers, strict=True)})


def ids_of_annotations(paths: Sequence[Path], annotations: Path, classes: Sequence[str] | None = None) -> ImageIds:
    """Take the ids that a COCO annotation file has for images of the same names.

    A file_name with folders is compared with as much of the path.

    Args:
        paths: of the image files.
        annotations: the file.
        classes: of boxes, whose categories are found by name; None of people, whose is the one with keypoints.

    Raises:
        DataError: no COCO file of keypoints, or of these classes; or an image that it does not list, or lists more than
            once.
    """
    data, where = read_annotations(annotations), str(annotations)
    ids = (keypoint_category(data, where)[0],) if classes is None else category_ids(data, classes, where)
    listed = defaultdict[str, list[tuple[tuple[str, ...], int]]](list)
    for record in data.get("images") or []:
        if not isinstance(record, dict) or not isinstance(record.get("id"), int):
            expected, got = "images with a whole number as id, and file_name", str(record)[:80]
            raise DataError(where, expected=expected, got=got, do="correct the record")
        parts = Path(str(record.get("file_name"))).parts
        listed[parts[-1] if parts else ""].append((parts, record["id"]))
    by_name: dict[str, int] = {}
    for path in paths:
        parts = path.absolute().parts
        found = {number for name, number in listed[path.name] if parts[-len(name) :] == name}
        if len(found) != 1:
            got = f"{len(found) or 'none'} for {name_text(path)}"
            do = "name images of these annotations, or leave --ids-from out"
            raise DataError(where, expected="one image for each file", got=got, do=do)
        by_name[str(path)] = found.pop()
    if len(set(by_name.values())) < len(by_name):
        do = "run the folders one by one"
        raise DataError(where, expected="one file for each image", got="two files of one name", do=do)
    return ImageIds(by_name, ids)


def image_list_beside(results: Path) -> Path:
    """Name the list of images that stands beside a file of results."""
    return results.with_suffix(IMAGE_LIST_SUFFIX)


def image_list(images: Sequence[Mapping[str, Any]], categories: Sequence[Mapping[str, Any]] = ()) -> bytes:
    """Return the list as it is written: COCO's `images`, and `categories` where there are several."""
    document = {MADE_BY_KEY: MADE_BY, "images": list(images)}
    if categories:
        document["categories"] = list(categories)
    return (json.dumps(document, indent=1) + "\n").encode()
