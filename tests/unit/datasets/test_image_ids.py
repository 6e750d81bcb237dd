"""Image ids: those of the names where these are numbers, else counted; or those of annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mdpose_edge.datasets.image_ids import ids_of_annotations, ids_of_names
from mdpose_edge.errors import DataError
from tests.unit.tiny_coco import document


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["000000000139.jpg", "7.png"], [139, 7]),
        (["0.jpg"], [0]),
        (["2.jpg", "cat.jpg"], [1, 2]),
        (["a/1.jpg", "b/1.jpg"], [1, 2]),
        (["000007.jpg", "7.png"], [1, 2]),
        (["20261128174500123456.jpg", "20261128174500123457.jpg"], [1, 2]),
        (["²3.jpg"], [1]),
    ],
    ids=str,
)
def test_names_that_are_numbers_are_the_ids_unless_two_would_share_one(names: list[str], ids: list[int]) -> None:
    assert ids_of_names(list(map(Path, names))).by_name == dict(zip(names, ids, strict=True))


def annotations(folder: Path, files: dict[int, str], **changes: Any) -> Path:
    data = document([], image_ids=list(files)) | changes
    for record in data["images"]:
        record["file_name"] = files[record["id"]]
    data["categories"] = [{**data["categories"][0], "id": 4}]
    path = folder / "truth.json"
    path.write_text(json.dumps(data))
    return path


def test_ids_of_annotations_go_by_file_name_and_as_much_of_the_path_as_it_has(tmp_path: Path) -> None:
    truth = annotations(tmp_path, {31: "cat.jpg", 32: "a/1.jpg", 33: "b/1.jpg"})
    found = ids_of_annotations([Path("x/cat.jpg"), Path("b/1.jpg"), Path("a/1.jpg")], truth)
    assert found.by_name == {"x/cat.jpg": 31, "b/1.jpg": 33, "a/1.jpg": 32}
    assert found.category_ids == (4,)


def test_the_categories_of_boxes_are_found_by_name(tmp_path: Path) -> None:
    truth = annotations(tmp_path, {31: "cat.jpg"})
    assert ids_of_annotations([Path("cat.jpg")], truth, ("person",)).category_ids == (4,)
    with pytest.raises(DataError, match="expected the categories person, cow, got person, without cow"):
        ids_of_annotations([Path("cat.jpg")], truth, ("person", "cow"))


@pytest.mark.parametrize(
    ("files", "paths", "got"),
    [
        ({1: "cat.jpg"}, ["dog.jpg"], "got none for dog.jpg"),
        ({1: "cat.jpg", 2: "cat.jpg"}, ["cat.jpg"], "got 2 for cat.jpg"),
        ({1: "cat.jpg"}, ["a/cat.jpg", "b/cat.jpg"], "got two files of one name"),
    ],
)
def test_what_annotations_do_not_tell_apart_is_refused(
    tmp_path: Path, files: dict[int, str], paths: list[str], got: str
) -> None:
    with pytest.raises(DataError) as error:
        ids_of_annotations(list(map(Path, paths)), annotations(tmp_path, files))
    assert got in str(error.value)
