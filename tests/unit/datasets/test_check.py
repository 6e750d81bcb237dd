"""A dataset's faults, each planted by hand: all are found, by name, and a clean set has none."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from mdpose_edge.cli import app
from mdpose_edge.datasets.check import check_data, suspects_sheet
from mdpose_edge.datasets.images import read_image
from mdpose_edge.datasets.keypoints import keypoint_set
from mdpose_edge.errors import DataError
from tests.unit.datasets.public_formats import write_crowdpose, write_ochuman
from tests.unit.tiny_coco import document, person, unlabelled, write_split


def sound(folder: Path) -> dict[str, Any]:
    """Write a split without a fault, its pictures all different."""
    data = document([person(7), unlabelled(3), person(5, x=20, side=80)], image_ids=(7, 3, 5))
    write_split(folder, data)
    for number, record in enumerate(data["images"]):
        picture = np.random.default_rng(number).integers(0, 256, (240, 320, 3), np.uint8)
        assert cv2.imwrite(str(folder / "val2017" / record["file_name"]), picture)
    return data


def rewrite(folder: Path, data: Any) -> None:
    (folder / "annotations" / "person_keypoints_val2017.json").write_text(json.dumps(data))


def test_a_sound_set_has_no_faults(tmp_path: Path) -> None:
    sound(tmp_path)
    seen: list[tuple[int, int]] = []
    found = check_data(tmp_path, "val", progress=lambda done, total: seen.append((done, total)))
    assert found.faults == () and found.counts() == {}
    assert (found.format, found.images, found.people, found.labelled_people) == ("coco", 3, 3, 2)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def _first(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda d: d["annotations"][0].update(changes)


def _keypoint(index: int, *values: float) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        data["annotations"][0]["keypoints"][3 * index : 3 * index + 3] = values

    return change


def _names(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        names = [new if name == old else name for name in data["categories"][0]["keypoints"]]
        data["categories"] = [{**data["categories"][0], "keypoints": names}]

    return change


def _text_ids(data: dict[str, Any]) -> None:
    data["images"][0]["id"] = data["annotations"][0]["image_id"] = "7"


def _crowd_and_unlabelled(data: dict[str, Any]) -> None:
    data["annotations"] = [{**data["annotations"][0], "iscrowd": 1}, data["annotations"][1]]


ANNOTATION_FAULTS = {
    "keypoint outside box": (_keypoint(4, 10, 10, 2), {"keypoint outside box": 1}),
    "hidden, a little outside": (_keypoint(4, 80, 40, 1), {}),
    "hidden, far outside": (_keypoint(4, 310, 235, 1), {}),
    "hidden, beyond its box's own size": (_first(bbox=[100, 40, 30, 30], area=500), {"keypoint outside box": 1}),
    "keypoint outside image": (_keypoint(4, -40, 100, 1), {"keypoint outside image": 1, "keypoint outside box": 1}),
    "box outside image": (_first(bbox=[100, 40, 400, 120]), {"box outside image": 1}),
    "negative area": (_first(area=-1), {"non-positive area": 1}),
    "no area": (lambda d: d["annotations"][0].pop("area"), {"non-positive area": 1}),
    "flat box": (_first(bbox=[100, 40, 0, 120]), {"non-positive box": 1}),
    "annotation twice": (lambda d: d["annotations"][1].update(id=1), {"duplicate annotation id": 1}),
    "image twice": (lambda d: d["images"].append(d["images"][0]), {"duplicate image id": 1, "duplicate image": 0}),
    "count": (_first(num_keypoints=5), {"num_keypoints disagrees": 1}),
    "v = 3": (_keypoint(4, 150, 100, 3), {"bad visibility": 1}),
    "no such image": (_first(image_id=99), {"unknown image": 1}),
    "image id of text": (_first(image_id="7"), {"malformed record": 1}),
    "image ids all of text": (_text_ids, {"malformed record": 2}),
    "nobody": (lambda d: d.update(annotations=[]), {"nobody labelled": 1}),
    "only a crowd and one unlabelled": (_crowd_and_unlabelled, {"nobody labelled": 1}),
    "zero width": (lambda d: d["images"][0].update(width=0), {"zero-sized image": 1, "image of another size": 1}),
    "left without right": (_names("right_knee", "knee"), {"flip without partner": 1}),
    "two lefts": (_names("right_knee", "left_patella"), {"flip without partner": 2}),
    "nan": (_keypoint(4, float("nan"), 100, 2), {"malformed record": 1}),
    "a box beyond all numbers": (_first(bbox=[10**400, 0, 1, 1]), {"malformed record": 1}),
    "a width beyond all": (
        lambda d: d["images"][0].update(width=10**400),
        {"zero-sized image": 1, "image of another size": 1},
    ),
    "short box": (_first(bbox=[1, 2]), {"malformed record": 1}),
    "an annotation that is a number": (lambda d: d["annotations"].append(5), {"malformed record": 1}),
    "an image without a name": (lambda d: d["images"].append({"id": 9}), {"malformed record": 1}),
    "no names": (lambda d: d.update(categories=[{"id": 1}]), {"no keypoint names": 1}),
    "no categories": (lambda d: d.pop("categories"), {"missing section": 1, "no keypoint names": 1}),
}  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), ANNOTATION_FAULTS.values(), ids=ANNOTATION_FAULTS)
def test_each_fault_of_the_annotations_is_found_by_name(change: Any, expected: Any, tmp_path: Path) -> None:
    data = sound(tmp_path)
    change(data)
    rewrite(tmp_path, data)
    assert check_data(tmp_path, "val").counts() == {kind: count for kind, count in expected.items() if count}


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


IMAGE_FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (Path.unlink, "missing image"),
    "truncated": (_truncate, "broken image"),
    "text": (lambda path: path.write_text("no picture"), "broken image"),
    "another size": (lambda path: cv2.imwrite(str(path), np.zeros((120, 160, 3), np.uint8)), "image of another size"),
    "a copy": (lambda path: shutil.copy(path.with_name("000000000003.jpg"), path), "duplicate image"),
}


@pytest.mark.parametrize(("spoil", "kind"), IMAGE_FAULTS.values(), ids=IMAGE_FAULTS)
def test_each_fault_of_an_image_is_found_by_name(spoil: Callable[[Path], Any], kind: str, tmp_path: Path) -> None:
    sound(tmp_path)
    spoil(tmp_path / "val2017" / "000000000007.jpg")
    found = check_data(tmp_path, "val")
    assert found.counts() == {kind: 1}
    assert {fault.image for fault in found.faults} <= {"000000000007.jpg", "000000000003.jpg"}


def test_crowds_are_not_held_to_their_box(tmp_path: Path) -> None:
    data = sound(tmp_path)
    data["annotations"][0].update(iscrowd=1, bbox=[-50, -50, 20, 20])
    rewrite(tmp_path, data)
    assert check_data(tmp_path, "val").counts() == {}


@pytest.mark.parametrize(("write", "split"), [(write_crowdpose, "test"), (write_ochuman, "val")])
def test_public_formats_are_checked_in_cocos_terms(write: Any, split: str, tmp_path: Path) -> None:
    write(tmp_path)
    found = check_data(tmp_path, split)
    assert {kind for kind in found.counts() if kind != "keypoint outside box"} == set()


def test_the_sheet_shows_suspects_in_red_and_yellow(tmp_path: Path) -> None:
    data = sound(tmp_path)
    _keypoint(4, 10, 10, 2)(data)
    data["annotations"][2]["num_keypoints"] = 5
    rewrite(tmp_path, data)
    (tmp_path / "val2017" / "000000000003.jpg").unlink()
    found = check_data(tmp_path, "val")
    sheet = suspects_sheet(found)
    assert found.counts() == {"keypoint outside box": 1, "num_keypoints disagrees": 1, "missing image": 1}
    red = (sheet[..., 2] > 220) & (sheet[..., :2].max(axis=2) < 40)
    yellow = (sheet[..., 1:].min(axis=2) > 220) & (sheet[..., 0] < 40)
    assert red.sum() > 50 and yellow.sum() > 50


def test_the_command_exits_with_0_1_and_2(tmp_path: Path) -> None:
    run = CliRunner()
    data = sound(tmp_path / "data")
    clean = run.invoke(app, ["data", "check", str(tmp_path / "data"), "--out", str(tmp_path / "none.png")])
    assert clean.exit_code == 0 and "no faults" in clean.stdout and not (tmp_path / "none.png").exists()
    data["annotations"][0]["area"] = 0
    rewrite(tmp_path / "data", data)
    sheet, report = tmp_path / "sheet.png", tmp_path / "report.json"
    bad = run.invoke(
        app, ["data", "check", str(tmp_path / "data"), "--out", str(sheet), "--json", str(report)]
    )  # fmt: skip
    assert bad.exit_code == 1 and "non-positive area" in bad.stdout
    written = json.loads(report.read_text())
    assert written["counts"] == {"non-positive area": 1}
    assert written["faults"] == [
        {"kind": "non-positive area", "detail": "area 0", "image": "000000000007.jpg", "annotation": 1}
    ]
    assert read_image(sheet, orient=False).shape[2] == 3
    unreadable = run.invoke(app, ["data", "check", str(tmp_path / "nowhere")])
    assert isinstance(unreadable.exception, DataError)  # main() turns it into a sentence and exit code 2


@pytest.mark.parametrize(
    ("names", "flips", "expected"),
    [
        ("[nose, left_eye, right_eye]", "[[left_eye, right_eye]]", {}),
        ("[nose, left_eye]", "[]", {"flip without partner": 1}),
        ("[nose, left_eye, beak]", "[[left_eye, beak]]", {"keypoint not annotated": 1}),
    ],
)
def test_a_keypoint_set_is_checked_instead_of_the_files_names(
    names: str, flips: str, expected: dict[str, int], tmp_path: Path
) -> None:
    data = sound(tmp_path / "data")
    _names("right_knee", "knee")(data)  # not in the set: no fault of it
    rewrite(tmp_path / "data", data)
    path = tmp_path / "set.yaml"
    sigmas = [0.05] * (names.count(",") + 1)
    path.write_text(f"{{names: {names}, flips: {flips}, skeleton: [], sigmas: {sigmas}}}")
    assert check_data(tmp_path / "data", "val", keypoints=keypoint_set(path)).counts() == expected
    found = CliRunner().invoke(app, ["data", "check", str(tmp_path / "data"), "--keypoints", str(path)])
    assert found.exit_code == (1 if expected else 0)
    assert all(kind in found.stdout for kind in expected)


def test_one_fault_is_one_and_what_has_no_subject_has_no_colon(tmp_path: Path) -> None:
    data = sound(tmp_path)
    _names("right_knee", "knee")(data)
    rewrite(tmp_path, data)
    found = CliRunner().invoke(app, ["data", "check", str(tmp_path)])
    assert "\n1 fault\n" in re.sub(" +\n", "\n", found.stdout) and " left_knee has no right" in found.stdout
    assert ": left_knee" not in found.stdout
    data["annotations"][0]["image_id"] = 99
    rewrite(tmp_path, data)
    found = CliRunner().invoke(app, ["data", "check", str(tmp_path)])
    assert "2 faults" in found.stdout and "annotation 1: image_id 99 does not" in found.stdout


def test_files_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    sound(tmp_path)
    path = tmp_path / "annotations" / "person_keypoints_val2017.json"
    for text, message in (("{", "expected JSON"), ("[]", "a JSON object"), ('{"images": []}', "expected images")):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            check_data(tmp_path, "val")


def test_real_coco_files_are_clean(shared_data: Path) -> None:
    for split in ("train", "val"):
        assert check_data(shared_data / "coco-mini", split).counts() == {}
