"""Splits of COCO (people, and instances of any category), CrowdPose and OCHuman as one kind of object.

The formats differ in the keypoints, in what v means, in whether a person has an area, and in how boxes are written; all
of that ends here. Facts: docs/data.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdpose_edge.datasets.coco import PERSON_CATEGORY_ID, CocoSplit, completed, read_annotations, split_of
from mdpose_edge.datasets.instances import box_split_of
from mdpose_edge.datasets.keypoints import CROWDPOSE_KEYPOINTS
from mdpose_edge.datasets.layout import BOX_FORMAT, Located, is_mapped, locate
from mdpose_edge.datasets.solid_formats import from_mupots, from_panoptic
from mdpose_edge.errors import DataError
from mdpose_edge.spec import KeypointSpec

CROWDPOSE_AREA_OF_BOX = 0.53
"""CrowdPose's files have no areas; its evaluation code takes this share of the box."""
OCHUMAN_VISIBILITY = {0: 0, 1: 2, 2: 2, 3: 1}
"""OCHuman's v (missing, visible, hidden by oneself, hidden by another) in COCO's terms, as its own converter has it."""
OCHUMAN_VAL_IMAGES = 2500
"""Its val split: the first so many images, by id, that have a person with both keypoints and mask. Test is the rest."""

_CROWDPOSE_ALIASES = {"top_head": "head"}


def open_split(
    data_dir: str | Path,
    split: str,
    data_format: str | None = None,
    keypoints: KeypointSpec | None = None,
    classes: Sequence[str] | None = None,
) -> CocoSplit:
    """Read a split of any known format.

    Args:
        data_dir: the dataset's folder.
        split: "train", "val", "test", ...
        data_format: one of layout.FORMATS, or None to take the only one that is there.
        keypoints: the keypoints wanted, in their order: those of the file, or a part of them. None takes COCO's files
            as they are, CrowdPose's 14, and COCO's 17 of OCHuman's 19; none at all asks for boxes.
        classes: of boxes, the categories wanted, in their order; None takes all of the file.

    Raises:
        ConfigError: no such format.
        DataError: the files cannot be found or used, or do not annotate these keypoints or categories.
    """
    wants_boxes = keypoints is not None and not keypoints.names
    located = locate(data_dir, split, data_format, boxes=wants_boxes)
    data = coco_form(read_annotations(located.annotation_file), located, split)
    if wants_boxes or (keypoints is None and located.format == BOX_FORMAT):
        boxes = box_split_of(data, located.annotation_file, located.image_dir, split, classes)
        return dataclasses.replace(boxes, format=located.format)
    found = split_of(data, located.annotation_file, located.image_dir, split)
    found = dataclasses.replace(found, format=located.format, crowd_index=_crowd_index(data, located))
    if keypoints is None and located.format in ("ochuman", "panoptic"):
        keypoints = located.default_keypoints()
    return found if keypoints is None else select_keypoints(found, keypoints.names)


def select_keypoints(split: CocoSplit, names: tuple[str, ...]) -> CocoSplit:
    """Keep some keypoints of a split, in another order.

    Raises:
        DataError: the split does not annotate one of them.
    """
    if names == split.keypoint_names:
        return split
    if not set(names) <= set(split.keypoint_names):
        raise DataError(
            str(split.annotation_file),
            expected=f"the keypoints {', '.join(names)}",
            got=", ".join(split.keypoint_names),
            do="give data of the same keypoint set, or name the set with --keypoints",
        )
    columns = [split.keypoint_names.index(name) for name in names]
    kept = split.keypoints[:, columns]
    labelled = (kept[:, :, 2] > 0).sum(axis=1)
    return dataclasses.replace(
        split,
        keypoint_names=names,
        file_keypoint_names=split.keypoint_names if set(names) == set(split.keypoint_names) else (),
        keypoints=kept,
        keypoints_3d=None if split.keypoints_3d is None else split.keypoints_3d[:, columns],
        num_keypoints=np.where(split.num_keypoints > 0, labelled, 0),
    )


def coco_form(data: dict[str, Any], located: Located, split: str) -> dict[str, Any]:
    """Rewrite the content of an annotation file in COCO's form, as far as it can be; what is wrong in it stays wrong.

    Raises:
        DataError: the file is of another format than its name says.
    """
    where = str(located.annotation_file)
    if located.format == "crowdpose":
        data = _from_crowdpose(data, where)
    elif located.format == "ochuman" and not is_mapped(located):
        data = _from_ochuman(data, split, where)
    elif located.format == "mupots":
        data = from_mupots(data, where)
    elif located.format == "panoptic":
        data = from_panoptic(data, located.annotation_file, split)
    return data if located.format == BOX_FORMAT else completed(data)


def _from_crowdpose(data: dict[str, Any], where: str) -> dict[str, Any]:
    """Add areas, and settle the names of the keypoints, which circulate in two spellings or not at all."""
    names = list(CROWDPOSE_KEYPOINTS.names)
    categories = []
    for category in _records(data, "categories"):
        given = [_CROWDPOSE_ALIASES.get(str(name), str(name)) for name in category.get("keypoints") or names]
        if given != names:
            do = "use CrowdPose's own files, or choose another --format"
            raise DataError(where, expected=f"the keypoints {', '.join(names)}", got=", ".join(given), do=do)
        categories.append({**category, "keypoints": names})
    annotations = data.get("annotations")
    if isinstance(annotations, list):
        annotations = [_with_area(annotation) for annotation in annotations]
    return {**data, "categories": categories, "annotations": annotations}


def _with_area(annotation: Any) -> Any:
    box = annotation.get("bbox") if isinstance(annotation, dict) else None
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(side, (int, float)) for side in box):
        return annotation
    return {**annotation, "area": CROWDPOSE_AREA_OF_BOX * box[2] * box[3]}


def _crowd_index(data: Mapping[str, Any], located: Located) -> Any:
    if located.format != "crowdpose":
        return None
    indices = [image.get("crowdIndex") for image in data["images"]]
    for image, index in zip(data["images"], indices, strict=True):
        if not isinstance(index, (int, float)) or not 0 <= index <= 1:
            got = f"{index} for image {image['id']}"
            do = "use CrowdPose's own files, or choose another --format"
            raise DataError(str(located.annotation_file), expected="a crowdIndex in [0, 1]", got=got, do=do)
    return np.array(indices, np.float64)


def _from_ochuman(data: dict[str, Any], split: str, where: str) -> dict[str, Any]:
    """Rewrite ochuman.json: the people with keypoints and mask, which are those that the dataset measures on."""
    if split not in ("val", "test"):
        do = "use these two: it is made to test on"
        raise DataError(where, expected="the split val or test of OCHuman", got=split, do=do)
    names = data.get("keypoint_names")
    do = "use OCHuman's own file, or choose another --format"
    if not isinstance(names, list) or not isinstance(data.get("images"), list):
        raise DataError(where, expected="the keys keypoint_names and images", got="none", do=do)
    try:
        images, annotations = _ochuman_records(data["images"], split)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        got = f"a record that lacks it: {type(error).__name__} {error}"
        expected = "images with image_id and annotations, each with bbox, keypoints, segms and max_iou"
        raise DataError(where, expected=expected, got=got, do=do) from error
    category = {"id": PERSON_CATEGORY_ID, "name": "person", "keypoints": names}
    return {"images": images, "annotations": annotations, "categories": [category]}


def _ochuman_records(records: list[Any], split: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Number images and people as OCHuman's converter does, so that results fit the files that it hands out."""
    with_people = [(image, people) for image in records if (people := _measured_people(image))]
    with_people.sort(key=lambda pair: pair[0]["image_id"])
    chosen = with_people[:OCHUMAN_VAL_IMAGES] if split == "val" else with_people[OCHUMAN_VAL_IMAGES:]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image, people in chosen:
        # A box that is the very same as another's is a double, and the converter leaves it out.
        singles = [person for person in people if person["max_iou"] < 1]
        if singles:
            images.append({**image, "id": len(images) + 1})
            annotations += [_ochuman_person(person, len(images)) for person in singles]
    return images, [{"id": number, **annotation} for number, annotation in enumerate(annotations, 1)]


def _measured_people(image: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [person for person in image["annotations"] if person["keypoints"] and person["segms"]]


def _ochuman_person(person: Mapping[str, Any], image_number: int) -> dict[str, Any]:
    keypoints = list(person["keypoints"])
    keypoints[2::3] = [OCHUMAN_VISIBILITY.get(v, v) for v in keypoints[2::3]]
    left, top, right, bottom = person["bbox"]
    width, height = right - left, bottom - top
    return {
        "image_id": image_number,
        "category_id": PERSON_CATEGORY_ID,
        "keypoints": keypoints,
        "num_keypoints": sum(v > 0 for v in keypoints[2::3]),
        "bbox": [left, top, width, height],
        "area": width * height,
        "iscrowd": 0,
    }


def _records(data: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = data.get(key)
    return [record for record in found if isinstance(record, dict)] if isinstance(found, list) else []
