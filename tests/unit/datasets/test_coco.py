from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdpose_edge.datasets.coco import load_split, results_of, write_results
from mdpose_edge.errors import DataError, EngineError
from mdpose_edge.poses import Poses
from mdpose_edge.spec import COCO_KEYPOINTS
from tests.unit.tiny_coco import HEIGHT, PERSON_CATEGORY, WIDTH, document, person, unlabelled, write_split


def test_images_and_people_are_read_as_the_file_has_them(tmp_path: Path) -> None:
    people = [person(3, x=1.25), person(7), unlabelled(3, iscrowd=1)]
    write_split(tmp_path, document(people, image_ids=(7, 3, 5)))
    split = load_split(tmp_path, "val")
    assert split.keypoint_names == COCO_KEYPOINTS.names
    assert [(i.id, i.path.name, i.width, i.height) for i in split.images] == [
        (i, f"{i:012d}.jpg", WIDTH, HEIGHT) for i in (7, 3, 5)
    ]
    assert [len(split.persons(index)) for index in range(3)] == [1, 2, 0]
    pair = split.persons(1)
    assert pair.keypoints.shape == (2, 17, 3)
    assert {a.dtype for a in (pair.keypoints, pair.boxes_xywh, pair.areas)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(pair.keypoints[0].ravel(), people[0]["keypoints"], rtol=1e-6)
    assert pair.boxes_xywh[0].tolist() == people[0]["bbox"]
    np.testing.assert_allclose(pair.areas, [people[0]["area"], people[2]["area"]])
    assert pair.iscrowd.tolist() == [False, True]
    assert pair.num_keypoints.tolist() == [17, 0]


def test_ground_truth_has_the_very_numbers_of_the_file_and_ids_from_one(tmp_path: Path) -> None:
    people = [person(3, x=0.1 + 0.2), person(7)]
    write_split(tmp_path, document(people, first_id=0))
    split = load_split(tmp_path, "val")
    whole, first = split.ground_truth(), split.ground_truth(1)
    assert whole["annotations"] == [{"id": 1, **people[1]}, {"id": 2, **people[0]}]
    assert [image["id"] for image in first["images"]] == [7]
    assert first["annotations"] == [{"id": 1, **people[1]}]


def test_a_split_without_people_is_read(tmp_path: Path) -> None:
    write_split(tmp_path, document([]), split="train")
    split = load_split(tmp_path, "train")
    assert split.persons(1).keypoints.shape == (0, 17, 3)


def test_annotations_of_other_categories_are_left_out(tmp_path: Path) -> None:
    data = document([person(7), {"image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4]}])
    data["categories"].insert(0, {"id": 2, "name": "dog"})
    data["categories"] = data["categories"][:2]
    write_split(tmp_path, data)
    assert len(load_split(tmp_path, "val").persons(0)) == 1


def without(record: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in record.items() if k != key}


INSTANCES = {"id": 1, "name": "person"}
BAD_DOCUMENTS = {
    "a list": ([], "got a list"),
    "no images key": (without(document([]), "images"), "key images"),
    "no annotations key": (without(document([]), "annotations"), "key annotations"),
    "no images": (document([], image_ids=()), "at least one image"),
    "instances: no keypoints in any category": ({**document([]), "categories": [INSTANCES]}, "got 0 of 1"),
    "two categories with keypoints": ({**document([]), "categories": [PERSON_CATEGORY] * 2}, "got 2 of 2"),
    "annotation without keypoints": (
        document([person(7), without(person(7), "keypoints")]),
        "no keypoints in annotation 2",
    ),
    "no area": (document([without(person(7), "area")]), "no area in annotation 1"),
    "no category, of two": (
        {**document([without(person(7), "category_id")]), "categories": [PERSON_CATEGORY, {"id": 2, "name": "dog"}]},
        "no category_id in annotation 1",
    ),
    "unknown category": (document([person(7, category_id=9)]), "category_ids that stand under categories, got 9"),
    "one file, two images": (
        {**document([]), "images": [{**document([])["images"][0], "id": number} for number in (7, 3)]},
        "000000000007.jpg under the ids 7 and 3",
    ),
    "image id that is text": (
        {**document([]), "images": [{**document([])["images"][0], "id": "7"}]},
        "images with id, file_name, width and height",
    ),
    "16 keypoints": (document([person(7, keypoints=[1.0] * 48)]), "51 numbers under keypoints, got 48"),
    "keypoints that are no list": (document([person(7, keypoints=3)]), "under keypoints, got int"),
    "box of 3": (document([person(7, bbox=[1, 2, 3])]), "4 numbers under bbox, got 3"),
    "text among the keypoints": (document([person(7, keypoints=["x"] * 51)]), "numbers under keypoints"),
    "area null": (document([person(7, area=None)]), "no area in annotation 1"),
    "area NaN": (document([person(7, area=float("nan"))]), "finite numbers under area"),
    "unknown image": (document([person(8)]), "got 8 in annotation 1"),
    "image id of text": (document([{**person(7), "image_id": "7"}]), "got '7' in annotation 1"),
    "annotation that is a number": ({**document([]), "annotations": [5]}, "got a int in annotation 0"),
    "image without a file name": ({**document([]), "images": [{"id": 1}]}, "file_name"),
    "image listed twice": ({**document([], image_ids=(7, 7))}, "two with id 7"),
}


@pytest.mark.parametrize(("data", "got"), BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS)
def test_a_wrong_annotation_file_is_refused(data: Any, got: str, tmp_path: Path) -> None:
    path = write_split(tmp_path, document([]))
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=got) as caught:
        load_split(tmp_path, "val")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b'{"images": [{"id"', b"", b"\xff\xfe\x00", b"not json"])
def test_text_that_is_not_json_is_refused(content: bytes, tmp_path: Path) -> None:
    path = write_split(tmp_path, document([]))
    path.write_bytes(content)
    with pytest.raises(DataError, match="expected JSON"):
        load_split(tmp_path, "val")


def test_missing_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"person_keypoints_val2017\.json: .*no such file"):
        load_split(tmp_path, "val")
    write_split(tmp_path, document([person(7)]))
    image = tmp_path / "val2017" / "000000000003.jpg"
    image.unlink()
    with pytest.raises(DataError, match="no such file") as caught:
        load_split(tmp_path, "val")
    assert caught.value.where == str(image)
    (tmp_path / "val2017").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="no such folder"):
        load_split(tmp_path, "val")


def test_results_have_cocos_format_and_keep_the_order_of_scores(tmp_path: Path) -> None:
    close = np.nextafter(np.float32(0.9), np.float32(0))
    keypoints = np.linspace(-3, 500.12345, 2 * 34, dtype=np.float32).reshape(2, 17, 2)
    poses = Poses(keypoints, np.array([0.9, close], np.float32), np.ones_like(keypoints))
    rows = results_of(42, poses)
    assert [set(row) for row in rows] == [{"image_id", "category_id", "keypoints", "score"}] * 2
    assert [row["score"] for row in rows] == [0.9, float(str(close))]
    assert np.float32(rows[1]["score"]) == close
    triples = np.array([row["keypoints"] for row in rows]).reshape(2, 17, 3)
    np.testing.assert_allclose(triples[..., :2], keypoints, atol=0.5001e-3)
    assert (triples[..., 2] == 1).all()
    write_results(tmp_path / "out" / "results.json", rows)
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == rows
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["results.json"]


def test_results_of_a_model_without_keypoints_have_boxes() -> None:
    nothing = np.zeros((2, 0, 2), np.float32)
    boxes = np.array([[-1.5, 2, 10.1239, 4], [0, 0, 5, 6]], np.float32)
    poses = Poses(nothing, np.array([0.9, 0.5], np.float32), nothing, boxes)
    assert results_of(42, poses, (5,)) == [
        {"image_id": 42, "category_id": 5, "bbox": [-1.5, 2, 11.624, 2], "score": 0.9},
        {"image_id": 42, "category_id": 5, "bbox": [0, 0, 5, 6], "score": 0.5},
    ]
    classes = replace(poses, classes=np.array([2, 0]))
    assert [row["category_id"] for row in results_of(42, classes, (1, 44, 90))] == [90, 1]
    assert [row["category_id"] for row in results_of(42, classes)] == [3, 1]
    boxes[1, 2] = np.nan
    with pytest.raises(EngineError, match="image 42"):
        results_of(42, poses)


def test_boxes_besides_keypoints_leave_the_results_as_they_are() -> None:
    keypoints = np.full((1, 17, 2), 3, np.float32)
    plain = Poses(keypoints, np.ones(1, np.float32), keypoints)
    boxed = replace(plain, model_boxes_xyxy=np.full((1, 4), np.nan, np.float32))
    assert json.dumps(results_of(42, boxed)) == json.dumps(results_of(42, plain))
    assert list(results_of(42, boxed)[0]) == ["image_id", "category_id", "keypoints", "score"]


@pytest.mark.parametrize("num_keypoints", [17, 0])
def test_no_poses_give_no_results(num_keypoints: int) -> None:
    assert results_of(42, Poses.empty(num_keypoints)) == []


@pytest.mark.parametrize("field", ["keypoints_xy", "scores"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_results_that_are_not_finite_are_refused(field: str, value: float) -> None:
    keypoints = np.zeros((1, 17, 2), np.float32)
    poses = Poses(keypoints, np.ones(1, np.float32), keypoints.copy())
    getattr(poses, field).flat[0] = value
    with pytest.raises(EngineError, match="image 42"):
        results_of(42, poses)


@pytest.mark.parametrize(("split", "images", "people", "labelled"), [("train", 80, 172, 86), ("val", 79, 118, 68)])
def test_real_coco_files_are_read(split: str, images: int, people: int, labelled: int, shared_data: Path) -> None:
    data = load_split(shared_data / "coco-mini", split)
    assert (len(data.images), len(data.areas), int((data.num_keypoints > 0).sum())) == (images, people, labelled)
    assert np.array_equal((data.keypoints[..., 2] > 0).sum(axis=1), data.num_keypoints)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["images"][0].update(width=0), "images of at least 1x1 px and .*, got 0x240 for image 7"),
        (lambda d: d["images"][0].update(width=2**21), "at most 1048576 a side, got 2097152x240 for image 7"),
        (lambda d: d["images"][0].update(height=1e308), "images with id, file_name, width and height"),
        (lambda d: d["images"][0].update(id=10**400), "images with id, file_name, width and height"),
        (lambda d: d["annotations"][0].update(area=1e308), "finite numbers under area, below 9.2e.18, got larger ones"),
        (lambda d: d["annotations"][0].update(bbox=[10**400, 0, 1, 1]), "expected numbers under bbox"),
        (lambda d: d["images"][1].update(height=-1), "got 320x-1 for image 3"),
        (lambda d: d["annotations"][0].update(area=-0.5), "no area below 0, got -0.5"),
        (lambda d: d["annotations"][0].update(bbox=[10, 10, -20, 30]), "no box side below 0, got -20"),
    ],
    ids=[
        "no width",
        "too wide",
        "huge height",
        "huge id",
        "huge area",
        "huge box",
        "negative height",
        "negative area",
        "negative box",
    ],
)
def test_sizes_that_cannot_be_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    data = document([person(7)])
    write_split(tmp_path, data)
    change(data)
    (tmp_path / "annotations" / "person_keypoints_val2017.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match=message):
        load_split(tmp_path, "val")
