"""COCO keypoint files in and out.

Reading is strict, since a wrong annotation file does not crash a training or an evaluation: it quietly spoils it.
Coordinates are taken as they stand in the file, as continuous pixels (see geometry.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.camera import Camera
from mdpose_edge.common.files import write_whole
from mdpose_edge.common.json_text import parse_json
from mdpose_edge.datasets.doubts import are_shares, doubts_of
from mdpose_edge.datasets.three_d import camera_at, third_dimension
from mdpose_edge.errors import DataError, EngineError
from mdpose_edge.poses import Poses

TOO_LARGE = 2**63
"""From here on, numbers are no coordinate, area or id: arrays cannot hold them, and squares overflow."""
LARGEST_SIDE = 2**20
"""Of an image, px: OpenCV reads none that is larger."""
ANNOTATION_KEYS = ("image_id", "category_id", "keypoints", "num_keypoints", "bbox", "area", "iscrowd")
"""What each annotation of a person must carry: the data that COCO's protocol reads."""
PERSON_CATEGORY_ID = 1
"""COCO's id of the category person, in results and ground truth alike."""
BOX_COLUMNS = 4
"""x, y, width and height."""
KEYPOINT_DECIMALS = 3
"""Of a coordinate in a result file, in pixels: far below what any OKS threshold can tell apart."""


@dataclass(frozen=True)
class CocoImage:
    """One image of a split."""

    id: int
    path: Path
    width: int
    height: int

    @property
    def wh(self) -> tuple[int, int]:
        """Width and height, px, as the annotations state them."""
        return self.width, self.height


@dataclass(frozen=True)
class Categories:
    """What the boxes of a split are of."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
    """The file's, of each name; results carry them too."""
    of: NDArray[np.int64]
    """(boxes,): of each box, an index into both."""


@dataclass(frozen=True)
class Persons:
    """N annotated people, crowds and people without keypoints included; or instances, where there are no keypoints."""

    keypoints: NDArray[np.float32]
    """(N, K, 3): x and y in px, and v (0 not labelled, 1 labelled but hidden, 2 visible)."""
    boxes_xywh: NDArray[np.float32]
    """(N, 4) px."""
    areas: NDArray[np.float32]
    """(N,) px²: of the segment, which sets the scale of OKS."""
    iscrowd: NDArray[np.bool_]
    """(N,): a group that was not annotated one by one."""
    num_keypoints: NDArray[np.int64]
    """(N,): how many are labelled, as the file says."""
    classes: NDArray[np.int64] | None = None
    """(N,): an index into `Categories`, or None where all are people."""
    keypoints_3d: NDArray[np.float32] | None = None
    """(N, K, 3) m in the camera's axes, NaN for people of two dimensions; None where all are."""
    camera: Camera | None = None
    """Of the image, where it is known."""

    def __len__(self) -> int:
        return len(self.areas)


@dataclass(frozen=True)
class CocoSplit:
    """A split: its images in the order of the file, and the people in each.

    People lie in flat arrays rather than in objects, so that forked workers share their pages, and in float64, so that
    an evaluation sees the very numbers of the file.
    """

    name: str
    """For instance "val"."""
    annotation_file: Path
    images: tuple[CocoImage, ...]
    keypoint_names: tuple[str, ...]
    first_person: NDArray[np.int64]
    """(images + 1,): people of image i are rows first_person[i] to first_person[i + 1] of the arrays below."""
    keypoints: NDArray[np.float64]
    boxes_xywh: NDArray[np.float64]
    areas: NDArray[np.float64]
    iscrowd: NDArray[np.bool_]
    num_keypoints: NDArray[np.int64]
    format: str = "coco"
    """Whose annotations these are, which decides the protocol of an evaluation: see datasets/."""
    category_id: int = PERSON_CATEGORY_ID
    """Of people, in the file; results carry it too."""
    file_keypoint_names: tuple[str, ...] = ()
    """As the file orders them, where `keypoint_names` are the same in another order."""
    crowd_index: NDArray[np.float64] | None = None
    """(images,) in [0, 1], CrowdPose only: how much the people of an image overlap."""
    categories: Categories | None = None
    """Of boxes without keypoints; None where there are people with keypoints alone."""
    keypoints_3d: NDArray[np.float64] | None = None
    """(people, K, 3): see Persons."""
    cameras: NDArray[np.float64] | None = None
    """(images, 4): fx, fy, cx, cy of each image's camera, px, NaN where it is not known; None where none is."""
    doubts: Mapping[str, int] = field(default_factory=dict)
    """What is taken as it stands though it is most likely wrong, by kind: how many people show it."""

    @property
    def result_ids(self) -> tuple[int, ...]:
        """The category ids of results, by class."""
        return (self.category_id,) if self.categories is None else self.categories.ids

    @property
    def measured(self) -> NDArray[np.bool_]:
        """(people,): who is measured on: people with keypoints, or every box; crowds apart."""
        labelled: NDArray[np.bool_] = ~self.iscrowd
        return labelled if self.categories is not None else labelled & (self.num_keypoints > 0)

    def persons(self, index: int) -> Persons:
        """Return the people of the image at `index`, in the order of the file."""
        rows = slice(self.first_person[index], self.first_person[index + 1])
        return Persons(
            self.keypoints[rows].astype(np.float32),
            self.boxes_xywh[rows].astype(np.float32),
            self.areas[rows].astype(np.float32),
            self.iscrowd[rows],
            self.num_keypoints[rows],
            None if self.categories is None else self.categories.of[rows],
            None if self.keypoints_3d is None else self.keypoints_3d[rows].astype(np.float32),
            camera_at(self.cameras, index),
        )

    def check_people(self, num_images: int | None = None) -> None:
        """Refuse to measure where there is nobody to measure on.

        Args:
            num_images: only the first so many images, or None for all.

        Raises:
            DataError: none of them shows a person with keypoints, or a box, crowds apart; or somebody with keypoints
                has no area.
        """
        count = len(self.images[:num_images])
        people = slice(self.first_person[count])
        measured = self.measured[people]
        if not measured.any():
            whole = count == len(self.images)
            of = "the split" if whole else f"the first {count} of {len(self.images)} images"
            do = "give annotated data, or another split" if whole else "take more images"
            expected = "people with annotated keypoints to measure on"
            if self.categories is not None:
                expected = "annotated boxes to measure on"
            raise DataError(str(self.annotation_file), expected=expected, got=f"none in {of}", do=do)
        flat = measured & (self.areas[people] <= 0)
        if flat.any() and self.categories is None:
            expected, got = "an area above 0 of each person, by which OKS is measured", f"{flat.sum()} without"
            do = "correct them; mdpose-edge data check lists them"
            raise DataError(str(self.annotation_file), expected=expected, got=got, do=do)

    def check_in_view(self) -> None:
        """Refuse to train where no picture shows anybody.

        Raises:
            DataError: no person with keypoints, or no box, has the centre of its box inside its image.
        """
        wh = np.repeat([image.wh for image in self.images], np.diff(self.first_person), axis=0)
        centres = self.boxes_xywh[:, :2] + self.boxes_xywh[:, 2:] / 2
        inside = ((centres >= 0) & (centres < wh)).all(axis=1)
        labelled = self.measured
        if labelled.any() and not (labelled & inside).any():
            expected, got = "people inside their images to train on", f"{labelled.sum()}, all of them outside"
            if self.categories is not None:
                expected = "boxes inside their images to train on"
            do = "correct the boxes; mdpose-edge data check lists them"
            raise DataError(str(self.annotation_file), expected=expected, got=got, do=do)

    def in_file_order(self, results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Put the keypoints of results in the order of the annotation file, so that they can be evaluated with it."""
        return _reordered(results, self.keypoint_names, self.file_keypoint_names)

    def from_file_order(self, results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Undo `in_file_order`."""
        return _reordered(results, self.file_keypoint_names, self.keypoint_names)

    def ground_truth(self, num_images: int | None = None) -> dict[str, Any]:
        """Return the first images (all by default) as a dataset for COCO's evaluation code, which may write into it.

        Annotations are numbered from 1: COCO's evaluation code takes the id 0 for "no match".
        """
        images = self.images[:num_images]
        owners = np.repeat([image.id for image in images], np.diff(self.first_person[: len(images) + 1]))
        if self.categories is not None:
            return {**_image_list(images), **self._boxes(self.categories, owners.tolist())}
        columns = (self.keypoints, self.num_keypoints, self.boxes_xywh, self.areas, self.iscrowd)
        rows = zip(owners, *(column[: len(owners)] for column in columns), strict=True)
        annotations = [
            {
                "id": row + 1,
                "image_id": int(image_id),
                "category_id": self.category_id,
                "keypoints": keypoints.ravel().tolist(),
                "num_keypoints": int(count),
                "bbox": box.tolist(),
                "area": float(area),
                "iscrowd": int(crowd),
            }
            for row, (image_id, keypoints, count, box, area, crowd) in enumerate(rows)
        ]
        return {
            **_image_list(images),
            "annotations": annotations,
            "categories": [{"id": self.category_id, "name": "person", "keypoints": list(self.keypoint_names)}],
        }

    def _boxes(self, categories: Categories, owners: list[int]) -> dict[str, Any]:
        """Return annotations and categories of the first so many boxes, whose images' ids are given."""
        columns = (categories.of, self.boxes_xywh, self.areas, self.iscrowd)
        rows = zip(owners, *(column[: len(owners)] for column in columns), strict=True)
        annotations = [
            {
                "id": row + 1,
                "image_id": image_id,
                "category_id": categories.ids[number],
                "bbox": box.tolist(),
                "area": float(area),
                "iscrowd": int(crowd),
            }
            for row, (image_id, number, box, area, crowd) in enumerate(rows)
        ]
        named = zip(categories.ids, categories.names, strict=True)
        return {"annotations": annotations, "categories": [{"id": number, "name": name} for number, name in named]}


def _image_list(images: Sequence[CocoImage]) -> dict[str, Any]:
    return {"images": [{"id": image.id, "width": image.width, "height": image.height} for image in images]}


def load_split(data_dir: str | Path, split: str) -> CocoSplit:
    """Read DIR/annotations/person_keypoints_{split}2017.json and check that its images are in DIR/{split}2017/.

    Args:
        data_dir: a folder in COCO's layout.
        split: "train", "val", or another name that stands in both places.

    Raises:
        DataError: a file is missing, is not COCO keypoint JSON, or contradicts itself.
    """
    path = Path(data_dir) / "annotations" / f"person_keypoints_{split}2017.json"
    return split_of(read_annotations(path), path, Path(data_dir) / f"{split}2017", split)


def split_of(data: dict[str, Any], path: Path, image_dir: Path, name: str) -> CocoSplit:
    """Build a split from the content of a COCO keypoint file.

    Args:
        data: the parsed JSON.
        path: the file, for messages.
        image_dir: the folder that its images must be in.
        name: of the split.

    Raises:
        DataError: it is not COCO keypoint JSON, contradicts itself, or an image is missing.
    """
    where = str(path)
    data = completed(data)
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), list):
            do = "use COCO's person_keypoints file"
            raise DataError(where, expected=f"a list under the key {key}", got="none", do=do)
    category_id, names = keypoint_category(data, where)
    images = read_images(data["images"], image_dir, where)
    index_of = {image.id: index for index, image in enumerate(images)}
    people = list(_check_people(data["annotations"], category_id, len(names), index_of, where))
    counts = numbers_of(people, "num_keypoints", 1, where)[:, 0].astype(np.int64)
    keypoints = numbers_of(people, "keypoints", 3 * len(names), where).reshape(-1, len(names), 3)
    boxes = at_least_zero("box side", numbers_of(people, "bbox", 4, where), slice(2, 4), where)
    areas = at_least_zero("area", numbers_of(people, "area", 1, where), slice(None), where)[:, 0]
    iscrowd = numbers_of(people, "iscrowd", 1, where)[:, 0] != 0
    joints, cameras = third_dimension(people, data["images"], len(names), where)
    owners = np.fromiter((index_of[person["image_id"]] for person in people), np.int64, len(people))
    wh = np.array([image.wh for image in images], np.float64)[owners]
    _refuse_shares(keypoints, wh, where)
    doubts = doubts_of(keypoints, boxes, areas, counts, iscrowd, wh, owners)
    keypoints[counts == 0, :, 2] = 0  # whatever v says: COCO's protocol takes nobody by their keypoints then
    order = np.argsort(owners, kind="stable")
    return CocoSplit(
        name=name,
        annotation_file=path,
        category_id=category_id,
        images=images,
        keypoint_names=names,
        first_person=np.searchsorted(owners[order], np.arange(len(images) + 1)),
        keypoints=keypoints[order],
        boxes_xywh=boxes[order],
        areas=areas[order],
        iscrowd=iscrowd[order],
        num_keypoints=counts[order],
        keypoints_3d=None if joints is None else joints[order],
        cameras=cameras,
        doubts=doubts,
    )


def _refuse_shares(keypoints: NDArray[np.float64], wh: NDArray[np.float64], where: str) -> None:
    """Refuse a file whose keypoints are shares of width and height throughout.

    Raises:
        DataError: it is one.
    """
    labelled = (keypoints[:, :, 2] > 0).any(axis=1)
    if labelled.any() and are_shares(keypoints, wh)[labelled].all():
        got = f"all of {labelled.sum()} people between 0 and 1"
        do = "multiply x by the width of the image and y by its height, boxes and areas too"
        raise DataError(where, expected="keypoints in pixels", got=got, do=do)


def completed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Write out what exporters leave out, where it can mean one thing only, and drop other categories' annotations.

    A missing or null iscrowd is 0; category_id, where there is one category, is its id; num_keypoints is the count of
    those labelled; keypoints are all unlabelled where none are counted.

    Args:
        data: see read_annotations; not modified. What is wrong in it stays wrong.
    """
    annotations, categories = data.get("annotations"), data.get("categories")
    if not isinstance(annotations, list) or not isinstance(categories, list):
        return dict(data)
    with_keypoints = _keypoint_categories(data)
    if len(with_keypoints) != 1:
        return dict(data)
    (person,) = with_keypoints
    listed = {c["id"] for c in categories if isinstance(c, Mapping) and whole_number(c.get("id")) is not None}
    only = person["id"] if len(categories) == 1 else None
    kept = [
        _completed(a, only, len(person["keypoints"])) for a in annotations if not _is_other(a, person["id"], listed)
    ]
    return {**data, "annotations": kept}


def _keypoint_categories(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    records = data.get("categories")
    return [
        record
        for record in (records if isinstance(records, list) else [])
        if isinstance(record, Mapping)
        and whole_number(record.get("id")) is not None
        and isinstance(record.get("keypoints"), list)
        and record["keypoints"]
    ]


def _is_other(annotation: Any, person_id: int, listed: set[int]) -> bool:
    """Say whether an annotation is of another category; one that is not listed may be a mistake if it has keypoints."""
    if not isinstance(annotation, dict) or whole_number(annotation.get("category_id")) in (None, person_id):
        return False
    return annotation["category_id"] in listed or not annotation.get("keypoints")


def _completed(annotation: Any, category_id: int | None, num_keypoints: int) -> Any:
    if not isinstance(annotation, dict):
        return annotation
    meant: dict[str, Any] = {"iscrowd": 0}
    if category_id is not None:
        meant["category_id"] = category_id
    keypoints = annotation.get("keypoints")
    if not keypoints and not annotation.get("num_keypoints"):
        meant |= {"keypoints": [0] * (3 * num_keypoints), "num_keypoints": 0}
    elif isinstance(keypoints, list):
        meant["num_keypoints"] = sum(isinstance(v, (int, float)) and v > 0 for v in keypoints[2::3])
    missing = {key: value for key, value in meant.items() if annotation.get(key) in (None, [])}
    return {**annotation, **missing} if missing else annotation


def whole_number(value: Any) -> int | None:
    """Return a number that is whole, as an int; None for anything else, bools and what is too large included."""
    if isinstance(value, bool) or not is_number(value) or not float(value).is_integer():
        return None
    return int(value)


def is_number(value: Any) -> bool:
    """Say whether a JSON value is a number that can be reckoned with: neither NaN nor TOO_LARGE."""
    return isinstance(value, (int, float)) and abs(value) < TOO_LARGE


def keypoint_category(data: Mapping[str, Any], where: str) -> tuple[int, tuple[str, ...]]:
    """Return the id of the one category with keypoints, and their names.

    Args:
        data: see read_annotations.
        where: the file, for messages.

    Raises:
        DataError: none names its keypoints, or several do.
    """
    records = data.get("categories")
    categories = records if isinstance(records, list) else []
    found = [
        c for c in categories if isinstance(c, Mapping) and whole_number(c.get("id")) is not None and c.get("keypoints")
    ]
    if len(found) != 1:
        got = f"{len(found)} of {len(categories)}"
        do = "use COCO's person_keypoints file rather than instances, or keep one category"
        raise DataError(where, expected="one category with keypoint names", got=got, do=do)
    return found[0]["id"], tuple(map(str, found[0]["keypoints"]))


def results_of(image_id: int, poses: Poses, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Put the poses of one image into COCO's result format, under the ids that the annotations have for each class.

    Poses without keypoints have their "bbox" in their place, last. With keypoints there is none: COCO's evaluation code
    would take the results for boxes, and their areas from them.

    The ids are by the classes of the poses, which where these are None are all the first; None numbers classes from 1,
    so that people are PERSON_CATEGORY_ID. Coordinates are rounded to
    KEYPOINT_DECIMALS; scores are not rounded, since ties would change their order. v is 1
    throughout: the protocol does not read it.

    Raises:
        EngineError: a coordinate or score is not finite. pycocotools would count it as a match, because no comparison
            with NaN is ever true.
    """
    has_keypoints = poses.keypoints_xy.shape[1] > 0
    coordinates = poses.keypoints_xy if has_keypoints else poses.boxes_xyxy
    if not (np.isfinite(coordinates).all() and np.isfinite(poses.scores).all()):
        do = "evaluate the fp32 artifact to see whether its precision is the cause"
        raise EngineError(f"image {image_id}", expected="finite poses", got="NaN or infinity", do=do)
    classes = [0] * len(poses) if poses.classes is None else poses.classes.tolist()
    # str() of a float32 is the shortest decimal that reads back as the same float32.
    scores = [float(str(score)) for score in poses.scores]
    of = [
        {"image_id": image_id, "category_id": number + 1 if category_ids is None else category_ids[number]}
        for number in classes
    ]
    if has_keypoints:
        rows = zip(of, _keypoint_rows(coordinates).tolist(), scores, strict=True)
        return [{**head, "keypoints": row, "score": score} for head, row, score in rows]
    boxes = zip(of, _box_rows(coordinates).tolist(), scores, strict=True)
    return [{**head, "score": score, "bbox": row} for head, row, score in boxes]


def _keypoint_rows(coordinates: NDArray[np.float32]) -> NDArray[np.float64]:
    rounded = coordinates.astype(np.float64).round(KEYPOINT_DECIMALS)
    visible = np.ones((*rounded.shape[:2], 1))
    return np.concatenate([rounded, visible], axis=2).reshape(len(rounded), rounded.shape[1] * 3)


def _box_rows(coordinates: NDArray[np.float32]) -> NDArray[np.float64]:
    corners = coordinates.astype(np.float64)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).round(KEYPOINT_DECIMALS)


def write_results(path: str | Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Write results as COCO's evaluation server takes them, whole or not at all."""
    write_whole(Path(path), json.dumps(list(results)).encode())


def read_annotations(path: Path) -> dict[str, Any]:
    """Read an annotation file as it stands.

    Raises:
        DataError: no such file, or one that is not a JSON object.
    """
    where = str(path)
    try:
        with path.open("rb") as file:
            data = parse_json(file.read())
    except FileNotFoundError:
        do = "pass a folder in COCO's layout, or correct the split"
        raise DataError(where, expected="COCO annotations", got="no such file", do=do) from None
    except OSError as error:
        got = f"the system's answer: {error.strerror}"
        raise DataError(where, expected="a readable file", got=got, do="check the file and its rights") from error
    except ValueError as error:  # not JSON, or not UTF-8
        got = f"text that is none: {error}"
        raise DataError(where, expected="JSON", got=got, do="copy or make it again") from error
    if not isinstance(data, dict):
        do = "use COCO's person_keypoints file"
        raise DataError(where, expected="a JSON object", got=f"a {type(data).__name__}", do=do)
    return data


def read_images(records: list[Any], folder: Path, where: str) -> tuple[CocoImage, ...]:
    """Read the list of images.

    Raises:
        DataError: a record is malformed, two have one id or file, or a file is not in the folder.
    """
    if not folder.is_dir():
        do = "put the images there"
        raise DataError(str(folder), expected="the folder with the split's images", got="no such folder", do=do)
    present = {entry.name for entry in os.scandir(folder)}
    images: dict[int, CocoImage] = {}
    files: dict[Path, int] = {}
    for record in records:
        image = _read_image_record(record, folder, where)
        if min(image.wh) < 1 or max(image.wh) > LARGEST_SIDE:
            expected = f"images of at least 1x1 px and at most {LARGEST_SIDE} a side"
            got = f"{image.width}x{image.height} for image {image.id}"
            raise DataError(where, expected=expected, got=got, do="correct the record, or remove it")
        if str(record["file_name"]) not in present and not image.path.is_file():
            raise DataError(str(image.path), expected=f"the image {image.id}", got="no such file", do="copy it there")
        if image.id in images:
            raise DataError(where, expected="one image per id", got=f"two with id {image.id}", do="remove one")
        if image.path in files:
            got = f"{record['file_name']} under the ids {files[image.path]} and {image.id}"
            raise DataError(
                where, expected="one id per file", got=got, do="give its people one image, and remove the other"
            )
        images[image.id], files[image.path] = image, image.id
    if not images:
        raise DataError(where, expected="at least one image", got="none", do="use another file")
    return tuple(images.values())


def _read_image_record(record: Any, folder: Path, where: str) -> CocoImage:
    fields = record if isinstance(record, dict) else {}
    number, width, height = (whole_number(fields.get(key)) for key in ("id", "width", "height"))
    name = fields.get("file_name")
    if number is None or width is None or height is None or not isinstance(name, str):
        expected, got = "images with id, file_name, width and height", str(record)[:80]
        raise DataError(where, expected=expected, got=got, do="correct the record")
    return CocoImage(number, folder / name, width, height)


def _reordered(
    results: Iterable[Mapping[str, Any]], names: Sequence[str], wanted: Sequence[str]
) -> list[dict[str, Any]]:
    if not names or not wanted:
        return [dict(result) for result in results]
    columns = [3 * names.index(name) + part for name in wanted for part in range(3)]
    return [{**result, "keypoints": [result["keypoints"][column] for column in columns]} for result in results]


def _check_people(
    annotations: list[Any], category_id: int, num_keypoints: int, known_images: Mapping[int, int], where: str
) -> Iterator[dict[str, Any]]:
    """Yield the annotations of the keypoint category, each with every key, of the right length, on a known image."""
    for position, annotation in enumerate(annotations):
        problem = _problem_of(annotation, category_id, num_keypoints, known_images)
        if problem is not None:
            name = annotation.get("id", position) if isinstance(annotation, dict) else position
            expected, got = problem
            do = "correct it, or use COCO's person_keypoints file"
            raise DataError(where, expected=expected, got=f"{got} in annotation {name}", do=do)
        yield annotation


def _problem_of(
    annotation: Any, category_id: int, num_keypoints: int, known_images: Mapping[int, int]
) -> tuple[str, str] | None:
    """Say what was expected of an annotation and what was found, or None where all is well."""
    if not isinstance(annotation, dict):
        return "annotations that are JSON objects", f"a {type(annotation).__name__}"
    for key in ANNOTATION_KEYS:
        if annotation.get(key) is None:
            return f"annotations with {', '.join(ANNOTATION_KEYS)}", f"no {key}"
    for key, length in (("keypoints", 3 * num_keypoints), ("bbox", 4)):
        value = annotation[key]
        if not isinstance(value, list) or len(value) != length:
            found = len(value) if isinstance(value, list) else type(value).__name__
            return f"a list of {length} numbers under {key}", str(found)
    if annotation["category_id"] != category_id:
        return "category_ids that stand under categories", repr(annotation["category_id"])
    image_id = annotation["image_id"]
    if whole_number(image_id) is None or image_id not in known_images:
        return "image_ids that stand under images", repr(image_id)
    return None


def numbers_of(people: list[dict[str, Any]], key: str, width: int, where: str) -> NDArray[np.float64]:
    """Return what annotations have under a key, (people, width).

    Raises:
        DataError: it is no number, not finite, or too large.
    """
    values = [person[key] for person in people]
    flat = values if width == 1 else list(chain.from_iterable(values))
    if str in set(map(type, flat)):
        raise DataError(where, expected=f"numbers under {key}", got="text", do="correct the file")
    try:
        numbers = np.fromiter(flat, np.float64, len(people) * width).reshape(len(people), width)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(where, expected=f"numbers under {key}", got=str(error), do="correct the file") from error
    if not (np.abs(numbers) < TOO_LARGE).all():
        expected, got = f"finite numbers under {key}, below {TOO_LARGE:.1e}", "larger ones, NaN or infinity"
        raise DataError(where, expected=expected, got=got, do="correct the file")
    return numbers


def at_least_zero(name: str, numbers: NDArray[np.float64], columns: slice, where: str) -> NDArray[np.float64]:
    """Return numbers of which some columns must not be below 0.

    Raises:
        DataError: one is.
    """
    lowest = numbers[:, columns].min(initial=0.0)
    if lowest < 0:
        do = "correct the file; mdpose-edge data check lists every such annotation"
        raise DataError(where, expected=f"no {name} below 0", got=f"{lowest:g}", do=do)
    return numbers
