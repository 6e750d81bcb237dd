"""What is wrong in a file of COCO's instances: every fault of every box."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mdpose_edge.datasets.coco import BOX_COLUMNS, whole_number
from mdpose_edge.datasets.faults import (
    Fault,
    as_box,
    box_outside,
    duplicates,
    files_twice,
    image_faults,
    images_by_id,
    plain_numbers,
    records_of,
    section_faults,
    size_faults,
)


def instance_faults(data: Mapping[str, Any]) -> list[Fault]:
    """Find the faults of a file of boxes that can be seen without its images."""
    images, instances, categories = (records_of(data.get(key)) for key in ("images", "annotations", "categories"))
    faults = [*section_faults(data), *_category_faults(categories), *duplicates("image id", images)]
    faults += files_twice(images)
    faults += [fault for image in images for fault in image_faults(image)]
    faults += [*duplicates("annotation id", instances), *_instances_twice(instances)]
    if isinstance(data.get("annotations"), list) and all(one.get("iscrowd") for one in instances):
        faults.append(Fault("nothing annotated", "no box, crowds apart: nothing to train or measure on"))
    by_id = images_by_id(images)
    known = {category.get("id") for category in categories if whole_number(category.get("id")) is not None}
    for position, instance in enumerate(instances):
        faults += _faults_of(instance, instance.get("id", position), by_id, known)
    return faults


def count_by_category(data: Mapping[str, Any]) -> dict[str, int]:
    """Return how many boxes there are of each category that is listed, by name, in the order of the file."""
    counts = Counter(whole_number(instance.get("category_id")) for instance in records_of(data.get("annotations")))
    listed = records_of(data.get("categories"))
    return {str(category.get("name")): counts[whole_number(category.get("id"))] for category in listed}


def _category_faults(categories: Sequence[Mapping[str, Any]]) -> Iterator[Fault]:
    if not categories:
        yield Fault("no categories", "nothing says what the boxes are of")
    for category in categories:
        if whole_number(category.get("id")) is None or not isinstance(category.get("name"), str):
            yield Fault("malformed record", f"a category without id or name: {str(category)[:60]}")
    yield from duplicates("category id", categories)
    names = Counter(str(category.get("name")) for category in categories)
    for name in (name for name, count in names.items() if count > 1):
        yield Fault("duplicate category", f"{name} stands {names[name]} times")


def _instances_twice(instances: Sequence[Mapping[str, Any]]) -> Iterator[Fault]:
    first: dict[str, Any] = {}
    for position, instance in enumerate(instances):
        if instance.get("iscrowd") or not instance.get("bbox"):
            continue
        number = instance.get("id", position)
        key = str([instance.get(name) for name in ("image_id", "category_id", "bbox")])
        if key in first:
            yield Fault("box twice", f"the same box and category as annotation {first[key]}", annotation=number)
        first.setdefault(key, number)


def _faults_of(
    instance: Mapping[str, Any], number: Any, images: Mapping[Any, Mapping[str, Any]], known: set[Any]
) -> Iterator[Fault]:
    image_id, category_id = whole_number(instance.get("image_id")), whole_number(instance.get("category_id"))
    image = None if image_id is None else images.get(image_id)
    name = None if image is None else str(image.get("file_name"))
    box = plain_numbers(instance.get("bbox"), BOX_COLUMNS)

    def fault(kind: str, detail: str) -> Fault:
        return Fault(kind, detail, name, number, None if box is None else as_box(box))

    if image is None:
        yield fault("unknown image", f"image_id {str(instance.get('image_id'))[:40]} does not stand under images")
    if category_id is None or category_id not in known:
        shown = str(instance.get("category_id"))[:40]
        yield fault("unknown category", f"category_id {shown} does not stand under categories")
    if box is None:
        yield fault("no box", f"bbox is not 4 finite numbers: {str(instance.get('bbox'))[:40]}")
    with_area = instance if instance.get("area") is not None or box is None else {**instance, "area": box[2] * box[3]}
    yield from (fault(*found) for found in size_faults(with_area, box))
    if box is not None and image is not None and not instance.get("iscrowd") and (beyond := box_outside(box, image)):
        yield fault(*beyond)
