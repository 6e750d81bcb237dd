"""COCO's instances files: what is read of them, what is refused, and what `data check` says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdpose_edge.datasets.check import check_data
from mdpose_edge.datasets.layout import locate, training_keypoints
from mdpose_edge.datasets.readers import open_split
from mdpose_edge.errors import ConfigError, DataError
from mdpose_edge.spec import COCO_KEYPOINTS, NO_KEYPOINTS
from tests.command import Run, command_runner
from tests.unit.tiny_instances import CATEGORIES, boxes_document, instance, write_boxes


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return command_runner(monkeypatch, capfd)


TWO = [instance(3, 90, x=5), instance(7, 1), instance(7, 44, iscrowd=1)]


def test_boxes_of_all_categories_are_read_with_the_ids_of_the_file(tmp_path: Path) -> None:
    write_boxes(tmp_path, boxes_document(TWO))
    split = open_split(tmp_path, "val")
    assert split.categories is not None and split.format == "instances" and split.keypoints.shape == (3, 0, 3)
    assert (split.categories.names, split.result_ids) == (("person", "bottle", "chair"), (1, 44, 90))
    found = split.persons(0)  # image 7 comes first in the file
    assert found.classes is not None and found.classes.tolist() == [0, 1]
    assert found.boxes_xywh[0].tolist() == [30, 20, 60, 80] and split.measured.tolist() == [True, False, True]
    truth = split.ground_truth()
    assert [row["category_id"] for row in truth["annotations"]] == [1, 44, 90]
    assert truth["categories"] == CATEGORIES
    assert [row["bbox"][0] for row in split.ground_truth(1)["annotations"]] == [30, 30]


def test_a_choice_of_categories_in_another_order(tmp_path: Path) -> None:
    write_boxes(tmp_path, boxes_document(TWO))
    split = open_split(tmp_path, "val", None, NO_KEYPOINTS, ("chair", "person"))
    assert split.categories is not None and split.result_ids == (90, 1)
    assert split.categories.of.tolist() == [1, 0] and len(split.areas) == 2


def test_what_exporters_leave_out(tmp_path: Path) -> None:
    lean = instance(7)
    del lean["area"], lean["iscrowd"]
    write_boxes(tmp_path, boxes_document([lean]))
    split = open_split(tmp_path, "val")
    assert split.areas.tolist() == [60 * 80] and split.iscrowd.tolist() == [False]


def test_of_two_files_the_one_that_is_wanted_is_taken(tmp_path: Path) -> None:
    write_boxes(tmp_path, boxes_document(TWO), beside_people=True)
    assert locate(tmp_path, "val").format == "coco"
    assert locate(tmp_path, "val", boxes=True).format == "instances"
    assert open_split(tmp_path, "val", None, NO_KEYPOINTS).categories is not None
    assert open_split(tmp_path, "val", None, COCO_KEYPOINTS).categories is None
    assert open_split(tmp_path, "val", "instances").categories is not None
    assert training_keypoints(tmp_path, "val", "instances", None) == NO_KEYPOINTS
    (tmp_path / "annotations" / "instances_val2017.json").unlink()
    people = open_split(tmp_path, "val", None, NO_KEYPOINTS, ("person",))
    assert people.categories is not None and len(people.areas) == 1  # people have boxes too


def changed(**changes: Any) -> dict[str, Any]:
    return boxes_document([{**instance(7), **changes}])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (changed(bbox=None), r"expected a bbox \[x, y, width, height\] of each instance, got none in annotation 1"),
        (changed(bbox=[1, 2, 3]), r"got \[1, 2, 3\] in annotation 1"),
        (changed(bbox=[1, 2, "wide", 3]), "expected numbers under bbox"),
        (changed(bbox=[1, 2, -3, 3]), "expected no box side below 0, got -3"),
        (changed(category_id=5), "category_ids that stand under categories, got 5 in annotation 1"),
        (changed(image_id=5), "image_ids that stand under images, got 5 in annotation 1"),
        ({**changed(), "categories": []}, "at least one category"),
        ({**changed(), "categories": [*CATEGORIES, {"id": 91, "name": "chair"}]}, "two of the name chair"),
        ({**changed(), "categories": [{"id": 44}]}, "categories with id and name"),
        ({**changed(), "annotations": ["box"]}, "annotations that are JSON objects, got a str"),
        ({**changed(), "annotations": None}, "a list under the key annotations"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_a_sentence(data: dict[str, Any], expected: str, tmp_path: Path) -> None:
    write_boxes(tmp_path, data)
    with pytest.raises(DataError, match=expected):
        open_split(tmp_path, "val")


def test_categories_that_are_not_the_models_are_refused(tmp_path: Path) -> None:
    write_boxes(tmp_path, boxes_document(TWO))
    with pytest.raises(DataError, match="expected the categories person, dog, got person, bottle, chair, without dog"):
        open_split(tmp_path, "val", None, NO_KEYPOINTS, ("person", "dog"))
    with pytest.raises(DataError, match="expected one category with keypoint names, got 0 of 3"):
        open_split(tmp_path, "val", None, COCO_KEYPOINTS)


def test_a_split_without_boxes_is_nothing_to_measure_on(tmp_path: Path) -> None:
    write_boxes(tmp_path, boxes_document([instance(7, iscrowd=1)]))
    with pytest.raises(DataError, match="annotated boxes to measure on, got none in the split"):
        open_split(tmp_path, "val").check_people()
    write_boxes(tmp_path / "out", boxes_document([instance(7, x=2000)]))
    with pytest.raises(DataError, match="boxes inside their images to train on, got 1, all of them outside"):
        open_split(tmp_path / "out", "val").check_in_view()


def test_data_check_lists_every_fault(tmp_path: Path) -> None:
    twice = instance(3, 1)
    data = boxes_document([
        *[twice] * 2, instance(7, 5), instance(9), instance(7, bbox=None), instance(7, bbox=[1, 2, 0, 5], area=0),
        instance(7, x=300),
    ])  # fmt: skip
    data["categories"] = [*CATEGORIES, {"id": 44, "name": "chair"}]
    write_boxes(tmp_path, data)
    found = check_data(tmp_path, "val")
    assert found.counts() == {
        "duplicate image": 1, "box twice": 1, "unknown category": 1, "unknown image": 1, "no box": 1,
        "non-positive box": 1, "non-positive area": 1, "box outside image": 1, "duplicate category id": 1,
        "duplicate category": 1,
    }  # fmt: skip
    assert found.to_json_dict()["categories"]["person"] == 2


def test_data_check_counts_the_boxes_of_a_sound_file(tmp_path: Path, command: Run) -> None:
    write_boxes(tmp_path, {**boxes_document([instance(7), instance(7, 1)]), "images": boxes_document([])["images"][:1]})
    code, out, _ = command("data", "check", tmp_path)
    assert code == 0 and "(instances): 1 images, 2 boxes: 1 person, 1 bottle, 0 chair" in " ".join(out.split())
    with pytest.raises(ConfigError, match=r"--keypoints: expected annotations of keypoints, got .*instances_val2017"):
        check_data(tmp_path, "val", keypoints=COCO_KEYPOINTS)
    empty = {**boxes_document([]), "annotations": []}
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(empty))
    assert "nothing annotated" in check_data(tmp_path, "val").counts()
    assert np.all([fault.image is None for fault in check_data(tmp_path, "val").faults if "annotated" in fault.kind])


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
@pytest.mark.parametrize("value", [1e308, "text", {}])
def test_data_check_tells_a_section_that_is_no_list(key: str, value: Any, tmp_path: Path) -> None:
    write_boxes(tmp_path, boxes_document(TWO))
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    if key == "images":
        with pytest.raises(DataError, match="expected images, got none"):
            check_data(tmp_path, "val")
    else:
        assert "missing section" in check_data(tmp_path, "val").counts()
