"""One opinion on a file: what the readers refuse is a fault of `data check`, and what they take in full is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mdpose_edge.calib.make import make_calibration_set
from mdpose_edge.datasets.check import check_data
from mdpose_edge.datasets.images import read_annotated
from mdpose_edge.datasets.readers import open_split
from mdpose_edge.errors import CalibrationError, DataError, MdposeError
from mdpose_edge.spec import InputSpec
from tests.unit.datasets.oriented import FORMATS, encoded
from tests.unit.tiny_coco import document, person, unlabelled

Change = Callable[[dict[str, Any]], object]
DOG = {"id": 2, "name": "dog"}


def write(folder: Path, data: dict[str, Any], pictures: dict[str, bytes] | None = None) -> Path:
    """Write a split whose pictures are all different, or those given."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "val2017").mkdir()
    for number, name in enumerate(sorted({str(record["file_name"]) for record in data["images"]})):
        noise = np.random.default_rng(number).integers(0, 256, (240, 320, 3), np.uint8)
        content = (pictures or {}).get(name) or cv2.imencode(".jpg", noise)[1].tobytes()
        (folder / "val2017" / name).write_bytes(content)
    (folder / "annotations" / "person_keypoints_val2017.json").write_text(json.dumps(data))
    return folder


def read(folder: Path) -> int:
    """Read a split as an evaluation does, pictures and all; give its people."""
    split = open_split(folder, "val")
    split.check_people()
    for image in split.images:
        read_annotated(image.path, image.wh)
    return len(split.areas)


def both() -> dict[str, Any]:
    return document([person(7), unlabelled(3), person(3, x=20, side=80)])


def first(**changes: Any) -> Change:
    return lambda data: data["annotations"][0].update(changes)


def without(key: str) -> Change:
    return lambda data: data["annotations"][0].pop(key)


def with_a_dog(data: dict[str, Any]) -> None:
    data["categories"] = [*data["categories"], DOG]
    data["annotations"].append({"id": 9, "image_id": 7, "category_id": 2, "bbox": [1, 2, 30, 40], "area": 5})


def with_a_stranger(data: dict[str, Any]) -> None:
    with_a_dog(data)
    data["categories"].remove(DOG)


def counted_from_zero(data: dict[str, Any]) -> None:
    data["categories"] = [{**data["categories"][0], "id": 0}]
    for record in data["annotations"]:
        record["category_id"] = 0


def unlabelled_as_exported(**changes: Any) -> Change:
    def change(data: dict[str, Any]) -> None:
        del data["annotations"][1]["keypoints"], data["annotations"][1]["num_keypoints"]
        data["annotations"][1].update(changes)

    return change


TAKEN: dict[str, Change] = {
    "iscrowd null": first(iscrowd=None),
    "no iscrowd": without("iscrowd"),
    "iscrowd false": first(iscrowd=False),
    "no category_id, of one": without("category_id"),
    "category_id null, of one": first(category_id=None),
    "categories from 0": counted_from_zero,
    "a dog beside": with_a_dog,
    "a dog whose category is not listed": with_a_stranger,
    "no num_keypoints": without("num_keypoints"),
    "num_keypoints null": first(num_keypoints=None),
    "a box alone": unlabelled_as_exported(),
    "no keypoints, as a list": unlabelled_as_exported(keypoints=[], num_keypoints=0),
    "sizes as 320.0": lambda data: data["images"][0].update(width=320.0, height=240.0),
    "no annotation id": without("id"),
}


@pytest.mark.parametrize("change", TAKEN.values(), ids=TAKEN)
def test_what_can_mean_one_thing_only_is_taken(change: Change, tmp_path: Path) -> None:
    data = both()
    change(data)
    write(tmp_path, data)
    assert read(tmp_path) == 3
    assert check_data(tmp_path, "val").counts() == {}
    split = open_split(tmp_path, "val")
    assert split.num_keypoints.tolist() == [17, 0, 17] and not split.iscrowd.any()
    assert split.keypoints[0].ravel().tolist() == both()["annotations"][0]["keypoints"]


def one_file_two_ids(data: dict[str, Any]) -> None:
    data["images"][1]["file_name"] = data["images"][0]["file_name"]


REFUSED: dict[str, tuple[Change, str]] = {
    "no category_id, of two": (lambda d: (with_a_dog(d), d["annotations"][0].pop("category_id")), "malformed record"),
    "a category of nobody": (first(category_id=9), "unknown category"),
    "one file, two ids": (one_file_two_ids, "one file, several ids"),
    "num_keypoints 0 throughout": (lambda d: [a.update(num_keypoints=0) for a in d["annotations"]], "nobody labelled"),
    "no area": (without("area"), "non-positive area"),
    "area 0": (first(area=0), "non-positive area"),
    "area null": (first(area=None), "non-positive area"),
    "no box": (without("bbox"), "malformed record"),
    "box null": (first(bbox=None), "malformed record"),
    "keypoints that are counted and not there": (without("keypoints"), "malformed record"),
    "keypoints of 16": (first(keypoints=[1.0] * 48), "malformed record"),
    "image id of text": (first(image_id="7"), "malformed record"),
    "an image's id of text": (lambda d: d["images"][0].update(id="7"), "malformed record"),
    "a width of text": (lambda d: d["images"][0].update(width="320"), "zero-sized image"),
    "iscrowd of text": (first(iscrowd="no"), "malformed record"),
    "num_keypoints of text": (first(num_keypoints="many"), "malformed record"),
    "two categories of keypoints": (
        lambda d: d.update(categories=[*d["categories"], {**d["categories"][0], "id": 2}]),
        "several keypoint categories",
    ),
    "an unknown image": (first(image_id=99), "unknown image"),
    "another size": (lambda d: d["images"][0].update(width=640, height=480), "image of another size"),
}


@pytest.mark.parametrize(("change", "kind"), REFUSED.values(), ids=REFUSED)
def test_what_the_readers_refuse_is_a_fault(change: Change, kind: str, tmp_path: Path) -> None:
    data = both()
    change(data)
    write(tmp_path, data)
    with pytest.raises(DataError):
        read(tmp_path)
    assert kind in check_data(tmp_path, "val").counts()


def test_a_person_annotated_twice_is_told(tmp_path: Path) -> None:
    write(tmp_path, document([person(7), person(7), person(3)]))
    assert check_data(tmp_path, "val").counts() == {"person twice": 1}


def oriented(folder: Path, suffix: str, orientation: int, stated_wh: tuple[int, int], side: int = 48) -> Path:
    """Write a split of one picture, `side` px high as stored and 64 wide, with its top left corner white."""
    picture = np.zeros((side, 64, 3), np.uint8)
    picture[:16, :16] = 255
    data = document([person(7, x=4, y=4, side=30)], image_ids=(7,))
    name = f"a{suffix}"
    data["images"] = [{"id": 7, "file_name": name, "width": stated_wh[0], "height": stated_wh[1]}]
    return write(folder, data, {name: encoded(picture, suffix, orientation)})


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(("stated_wh", "corner"), [((64, 48), (4, 4)), ((48, 64), (4, 43))])
def test_the_size_tells_which_way_up_was_annotated(
    suffix: str, stated_wh: tuple[int, int], corner: tuple[int, int], tmp_path: Path
) -> None:
    folder = oriented(tmp_path, suffix, 6, stated_wh)
    (image,) = open_split(folder, "val").images
    frame, _ = read_annotated(image.path, image.wh)
    assert frame.shape[1::-1] == stated_wh
    assert frame[corner].min() > 200 and frame[-5, 4].max() < 50
    assert check_data(folder, "val").counts() == {}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(("orientation", "side"), [(3, 48), (2, 48), (6, 64)])
def test_a_size_that_does_not_tell_is_refused_by_all(suffix: str, orientation: int, side: int, tmp_path: Path) -> None:
    folder = oriented(tmp_path, suffix, orientation, (64, side), side)
    with pytest.raises(DataError, match=f"got EXIF orientation {orientation}"):
        read(folder)
    with pytest.raises(DataError, match=f"got EXIF orientation {orientation}"):
        make_calibration_set(folder, tmp_path / "calib", InputSpec(64, 64), split="val", num=1, allow_few=True)
    assert check_data(folder, "val").counts() == {"two ways up": 1}


def test_a_picture_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    folder = oriented(tmp_path, ".jpg", 6, (128, 96))
    with pytest.raises(DataError, match="expected 128x96 px, as the annotation file says, got 64x48, or 48x64 upright"):
        read(folder)
    with pytest.raises(MdposeError) as error:
        make_calibration_set(folder, tmp_path / "calib", InputSpec(64, 64), split="val", num=1, allow_few=True)
    assert not isinstance(error.value, CalibrationError)
    assert check_data(folder, "val").counts() == {"image of another size": 1}


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_is_shrunk_by_its_content_whatever_its_name(suffix: str, tmp_path: Path) -> None:
    picture = np.zeros((480, 640, 3), np.uint8)
    path = tmp_path / ("a.png" if suffix == ".jpg" else "a.jpg")
    path.write_bytes(cv2.imencode(suffix, picture)[1].tobytes())
    frame, shrunk = read_annotated(path, (640, 480), shrink=4)
    assert (frame.shape[:2], shrunk) == (((120, 160), 4) if suffix == ".jpg" else ((480, 640), 1))


def twice(**changes: Any) -> Change:
    return lambda data: data["annotations"].append({**data["annotations"][0], "id": 9, **changes})


def as_shares(annotation: dict[str, Any]) -> None:
    points = np.reshape(annotation["keypoints"], (-1, 3)) / (320, 240, 1)
    annotation["keypoints"] = points.ravel().tolist()


def with_a_keypoint(*values: float) -> Change:
    def change(data: dict[str, Any]) -> None:
        data["annotations"][0]["keypoints"][12:15] = values

    return change


DOUBTED: dict[str, tuple[Change, set[str]]] = {
    "nothing": (lambda data: None, set()),
    "a person twice": (twice(), {"person twice"}),
    "twice, the box moved": (twice(bbox=[99.7, 40, 120, 120]), {"person twice"}),
    "a crowd of the same keypoints": (twice(iscrowd=1), set()),
    "unlabelled twice": (lambda d: d["annotations"].append({**d["annotations"][1], "id": 9}), {"person twice"}),
    "two unlabelled": (lambda data: data["annotations"].append(unlabelled(3, id=9, x=180)), set()),
    "one in shares": (lambda data: as_shares(data["annotations"][0]), {"shares for pixels", "keypoint outside box"}),
    "v = 3": (with_a_keypoint(150, 100, 3), {"bad visibility"}),
    "v = 0.9": (with_a_keypoint(150, 100, 0.9), {"bad visibility"}),
    "v = -1": (with_a_keypoint(150, 100, -1), {"bad visibility", "num_keypoints disagrees"}),
    "count": (first(num_keypoints=0), {"num_keypoints disagrees"}),
    "an area of 1": (first(area=1.0), {"area unlike its box"}),
    "the area of the image": (first(area=320 * 240), {"area unlike its box"}),
    "a flat box": (first(bbox=[100, 40, 0, 120]), {"non-positive box"}),
    "corners for sides": (first(bbox=[100, 40, 220, 160]), set()),
    "corners for sides, to the right": (first(bbox=[150, 40, 220, 160]), {"box outside image", "keypoint outside box"}),
    "a keypoint far away": (with_a_keypoint(310, 235, 2), {"keypoint outside box"}),
    "a keypoint beyond": (with_a_keypoint(400, 100, 1), {"keypoint outside box", "keypoint outside image"}),
}  # fmt: skip


@pytest.mark.parametrize(("change", "kinds"), DOUBTED.values(), ids=DOUBTED)
def test_what_is_taken_though_it_seems_wrong_is_counted_as_the_check_counts_it(
    change: Change, kinds: set[str], tmp_path: Path
) -> None:
    data = both()
    change(data)
    write(tmp_path, data)
    counted = check_data(tmp_path, "val").counts()
    assert set(counted) == kinds
    counted.pop("keypoint outside box", None)  # of which no figure speaks
    assert open_split(tmp_path, "val").doubts == counted


def test_a_file_in_shares_of_the_image_is_refused(tmp_path: Path) -> None:
    data = both()
    for annotation in data["annotations"]:
        as_shares(annotation)
    write(tmp_path, data)
    with pytest.raises(DataError, match="expected keypoints in pixels, got all of 2 people between 0 and 1"):
        open_split(tmp_path, "val")
    assert check_data(tmp_path, "val").counts()["shares for pixels"] == 2


@pytest.mark.parametrize("key", ["keypoints", "bbox", "iscrowd", "area"])
def test_numbers_as_text_are_refused(key: str, tmp_path: Path) -> None:
    data = both()
    value = data["annotations"][0][key]
    data["annotations"][0][key] = [*map(str, value)] if isinstance(value, list) else str(value)
    write(tmp_path, data)
    with pytest.raises(DataError, match=f"expected numbers under {key}, got text"):
        open_split(tmp_path, "val")
    assert check_data(tmp_path, "val").faults
