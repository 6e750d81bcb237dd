"""What is wrong in an annotation file: every fault of every record, where a reader would stop at the first."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.datasets.coco import LARGEST_SIDE, is_number, whole_number
from mdpose_edge.datasets.doubts import IMAGE_MARGIN_PX, are_shares, are_unlike, identity
from mdpose_edge.datasets.keypoints import without_partner
from mdpose_edge.spec import KeypointSpec

Box = tuple[float, float, float, float]

VISIBLE_MARGIN, HIDDEN_MARGIN = 0.05, 1.0
"""How far outside its box a keypoint with v = 2 or v = 1 may lie, as a share of the box's longer side. COCO's boxes
enclose what is visible: of 1,452 labelled keypoints in a sample of COCO no visible one lies out by over 0.02, and some
hidden ones by up to 0.46."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    kind: str
    """In a few words, the same for all of its kind."""
    detail: str
    """What was found."""
    image: str | None = None
    """The file of the image, as the annotations name it."""
    annotation: Any = None
    """The annotation's id, or its position where it has none."""
    box_xywh: Box | None = None
    keypoints: tuple[tuple[float, float, float], ...] | None = None
    """(x, y, v), to paint."""

    def to_json_dict(self) -> dict[str, Any]:
        """Return what a program reads."""
        return {"kind": self.kind, "detail": self.detail, "image": self.image, "annotation": self.annotation}


def annotation_faults(data: Mapping[str, Any], keypoints: KeypointSpec | None = None) -> list[Fault]:
    """Find the faults of an annotation file in COCO's form that can be seen without its images.

    Args:
        data: see readers.coco_form.
        keypoints: the set that is wanted of the file, or None for the file's own names.
    """
    images, annotations = records_of(data.get("images")), records_of(data.get("annotations"))
    categories = [category for category in records_of(data.get("categories")) if category.get("keypoints")]
    names = _keypoint_names(categories)
    faults = [*section_faults(data), *_name_faults(names, keypoints), *duplicates("image id", images)]
    if len(categories) > 1:
        faults.append(Fault("several keypoint categories", f"{len(categories)} name keypoints: keep one"))
    faults += [*files_twice(images), *_people_twice(annotations)]
    faults += [fault for image in images for fault in image_faults(image)]
    faults += duplicates("annotation id", annotations)
    by_id = images_by_id(images)
    if isinstance(data.get("annotations"), list) and not any(map(_is_labelled, annotations)):
        faults.append(
            Fault("nobody labelled", "no person with keypoints, crowds apart: nothing to train or measure on")
        )
    category_id = categories[0].get("id") if len(categories) == 1 else None
    for position, annotation in enumerate(annotations):
        faults += _person_faults(annotation, annotation.get("id", position), by_id, len(names), category_id)
    return faults


def section_faults(data: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what is missing or malformed of the three lists."""
    for key in ("images", "annotations", "categories"):
        records = data.get(key)
        if not isinstance(records, list):
            yield Fault("missing section", f"no list under {key}")
            continue
        for position, record in enumerate(records):
            if not isinstance(record, dict):
                yield Fault("malformed record", f"a {type(record).__name__} under {key}, position {position}")


def _name_faults(names: Sequence[str], keypoints: KeypointSpec | None) -> Iterator[Fault]:
    if not names:
        yield Fault("no keypoint names", "no category names its keypoints")
    if keypoints is not None:
        for name in keypoints.names:
            if name not in names:
                yield Fault("keypoint not annotated", f"{name} is in the set, and not among the file's names")
        for name in without_partner(keypoints):
            yield Fault("flip without partner", f"{name} is in no pair of the set's flips")
        return
    for name in names:
        side = next((side for side in ("left", "right") if side in name.lower()), None)
        if side is None:
            continue
        other = "right" if side == "left" else "left"
        partners = [candidate for candidate in names if candidate.lower() == name.lower().replace(side, other)]
        if not partners:
            yield Fault("flip without partner", f"{name} has no {other} counterpart")


def duplicates(what: str, records: Sequence[Mapping[str, Any]]) -> Iterator[Fault]:
    """Yield ids that stand twice; `what` is whose."""
    counts = Counter(record["id"] for record in records if _hashable(record.get("id")))
    for number, count in counts.items():
        if count > 1:
            yield Fault(f"duplicate {what}", f"{what} {number} stands {count} times", annotation=number)


def files_twice(images: Sequence[Mapping[str, Any]]) -> Iterator[Fault]:
    """Find files that are several images: their people are each other's misses in an evaluation."""
    ids: dict[str, set[Any]] = defaultdict(set)
    for image in images:
        if isinstance(image.get("file_name"), str) and _hashable(image.get("id")):
            ids[image["file_name"]].add(image["id"])
    for name, numbers in ids.items():
        if len(numbers) > 1:
            yield Fault("one file, several ids", f"the ids {', '.join(sorted(map(str, numbers)))}", name)


def _people_twice(annotations: Sequence[Mapping[str, Any]]) -> Iterator[Fault]:
    """Find people annotated twice: one of the two can never be found."""
    first: dict[bytes, Any] = {}
    for position, annotation in enumerate(annotations):
        stated, box = annotation.get("keypoints"), plain_numbers(annotation.get("bbox"), 4)
        points = plain_numbers(stated, len(stated) // 3 * 3) if isinstance(stated, list) else None
        if annotation.get("iscrowd") or box is None or points is None:
            continue
        key = identity(points.reshape(-1, 3), box, annotation.get("image_id"))
        number = annotation.get("id", position)
        if key in first:
            yield Fault("person twice", f"the same keypoints as annotation {first[key]}", annotation=number)
        first.setdefault(key, number)


def image_faults(image: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield the faults of an image's record."""
    name = image.get("file_name")
    if "id" not in image or not isinstance(name, str):
        yield Fault("malformed record", f"an image without id or file_name: {str(image)[:60]}")
        return
    if whole_number(image["id"]) is None:
        yield Fault("malformed record", f"an image's id is not a whole number: {str(image['id'])[:40]!r}", name)
    width, height = image.get("width"), image.get("height")
    if not all(1 <= (whole_number(side) or 0) <= LARGEST_SIDE for side in (width, height)):
        yield Fault("zero-sized image", f"{str(width)[:40]}x{str(height)[:40]} px", image=name)


def _person_faults(
    person: Mapping[str, Any],
    number: Any,
    images: Mapping[Any, Mapping[str, Any]],
    keypoints: int,
    category_id: Any,
) -> Iterator[Fault]:
    image_id = person.get("image_id")
    image = images.get(image_id) if _hashable(image_id) else None
    name = str(image.get("file_name")) if image else None
    if whole_number(image_id) is None:
        yield Fault("malformed record", f"image_id is not a whole number: {str(image_id)[:40]!r}", name, number)
    elif image is None:
        yield Fault("unknown image", f"image_id {image_id} does not stand under images", annotation=number)
    box = plain_numbers(person.get("bbox"), 4)
    triples = plain_numbers(person.get("keypoints"), 3 * keypoints)
    painted = None if triples is None else tuple((x, y, v) for x, y, v in triples.reshape(-1, 3).tolist())
    rectangle = None if box is None else as_box(box)

    def fault(kind: str, detail: str) -> Fault:
        return Fault(kind, detail, name, number, rectangle, painted)

    if person.get("category_id") is None:
        yield fault("malformed record", "no category_id, where there are several categories")
    elif category_id is not None and person["category_id"] != category_id:
        yield fault(
            "unknown category", f"category_id {str(person['category_id'])[:40]} does not stand under categories"
        )
    if whole_number(person.get("num_keypoints")) is None:
        yield fault("malformed record", "no num_keypoints")
    if not isinstance(person.get("iscrowd"), (int, float)):
        yield fault("malformed record", f"iscrowd is no number: {str(person.get('iscrowd'))[:40]}")
    if box is None:
        yield fault("malformed record", f"bbox is not 4 finite numbers: {str(person.get('bbox'))[:40]}")
    if triples is None and keypoints:  # without names their number is unknown, and that is said once
        yield fault("malformed record", f"keypoints are not {3 * keypoints} finite numbers")
    yield from (fault(*found) for found in size_faults(person, box))
    area = np.array([person["area"] if _positive(person.get("area")) else 0], np.float64)
    if box is not None and not person.get("iscrowd") and are_unlike(area, box[None])[0]:
        yield fault("area unlike its box", f"area {area[0]:g} in a box of {box[2]:g}x{box[3]:g} px")
    if triples is not None:
        points = triples.reshape(-1, 3)
        yield from (fault(*found) for found in _keypoint_faults(points, person.get("num_keypoints")))
        if not person.get("iscrowd"):
            yield from (fault(*found) for found in _place_faults(points, box, image))


def size_faults(person: Mapping[str, Any], box: NDArray[np.float64] | None) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the size of a box, and its area."""
    if box is not None and box[2:].min() <= 0:
        yield "non-positive box", f"{box[2]:g}x{box[3]:g} px"
    if not _positive(person.get("area")):
        yield "non-positive area", f"area {person.get('area')}"


def _keypoint_faults(points: NDArray[np.float64], stated: Any) -> Iterator[tuple[str, str]]:
    visibility = points[:, 2]
    strange = visibility[~np.isin(visibility, (0, 1, 2))]
    if len(strange):
        yield "bad visibility", f"v = {strange[0]:g}, where 0, 1 and 2 are known"
    labelled = int((visibility > 0).sum())
    if stated != labelled:
        yield "num_keypoints disagrees", f"num_keypoints {stated}, labelled {labelled}"


def _place_faults(
    points: NDArray[np.float64], box: NDArray[np.float64] | None, image: Mapping[str, Any] | None
) -> Iterator[tuple[str, str]]:
    labelled, hidden = points[points[:, 2] > 0, :2], points[points[:, 2] > 0, 2] == 1
    if image is not None and _positive(image.get("width")) and _positive(image.get("height")):
        size = np.array([image["width"], image["height"]], np.float64)
        if are_shares(points[None], size[None])[0]:
            yield "shares for pixels", "all keypoints lie between 0 and 1"
        outside = _beyond(labelled, np.zeros(2), size) > IMAGE_MARGIN_PX
        if outside.any():
            yield "keypoint outside image", f"{outside.sum()} of {len(labelled)}"
        if box is not None and (found := box_outside(box, image)):
            yield found
    if box is not None and box[2:].min() > 0:
        allowed = np.where(hidden, HIDDEN_MARGIN, VISIBLE_MARGIN) * box[2:].max()
        outside = _beyond(labelled, box[:2], box[:2] + box[2:]) > allowed
        if outside.any():
            yield "keypoint outside box", f"{outside.sum()} of {len(labelled)}"


def box_outside(box: NDArray[np.float64], image: Mapping[str, Any]) -> tuple[str, str] | None:
    """Say whether a box (x, y, width, height) reaches out of its image, whose size the record states."""
    if not (_positive(image.get("width")) and _positive(image.get("height"))):
        return None
    corners = np.stack([box[:2], box[:2] + box[2:]])
    if _beyond(corners, np.zeros(2), np.array([image["width"], image["height"]], np.float64)).max() <= IMAGE_MARGIN_PX:
        return None
    return "box outside image", " ".join(f"{side:g}" for side in box)


def images_by_id(images: Sequence[Mapping[str, Any]]) -> dict[Any, Mapping[str, Any]]:
    """Return the images that have an id, by it."""
    return {image.get("id"): image for image in images if _hashable(image.get("id"))}


def as_box(numbers: NDArray[np.float64]) -> Box:
    """Return four numbers as a box to paint."""
    x, y, width, height = numbers.tolist()
    return x, y, width, height


def _beyond(points: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each point (N, 2) lies outside a rectangle, px."""
    distance: NDArray[np.float64] = np.maximum(np.maximum(low - points, points - high), 0.0).max(axis=1)
    return distance


def _keypoint_names(categories: Sequence[Mapping[str, Any]]) -> list[str]:
    named = [category["keypoints"] for category in categories]
    return [str(name) for name in named[0]] if named and isinstance(named[0], list) else []


def plain_numbers(values: Any, count: int) -> NDArray[np.float64] | None:
    """Return so many finite numbers, or None where the values are something else."""
    if not isinstance(values, list) or len(values) != count or not count:
        return None
    if not all(map(is_number, values)):
        return None
    return np.array(values, np.float64)


def _positive(value: Any) -> bool:
    return is_number(value) and value > 0


def _is_labelled(person: Mapping[str, Any]) -> bool:
    return bool(person.get("num_keypoints")) and not person.get("iscrowd")


def _hashable(value: Any) -> bool:
    return isinstance(value, (int, float, str))


def records_of(records: Any) -> list[dict[str, Any]]:
    """Return what is a record in a list that may be none."""
    return [record for record in records if isinstance(record, dict)] if isinstance(records, list) else []
