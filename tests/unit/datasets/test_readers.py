"""CrowdPose's and OCHuman's own files become splits; which format is meant is never guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdpose_edge.datasets.coco import load_split
from mdpose_edge.datasets.keypoints import CROWDPOSE_KEYPOINTS, OCHUMAN_KEYPOINTS
from mdpose_edge.datasets.layout import locate, training_keypoints
from mdpose_edge.datasets.readers import open_split, select_keypoints
from mdpose_edge.errors import ConfigError, DataError, MdposeError
from mdpose_edge.spec import COCO_KEYPOINTS
from tests.unit.datasets.public_formats import CROWD_INDICES, scene, write_crowdpose, write_ochuman
from tests.unit.tiny_coco import document, person, write_split


def test_coco_is_read_as_load_split_reads_it(tmp_path: Path) -> None:
    write_split(tmp_path, document([person(7), person(3)]))
    found, plain = open_split(tmp_path, "val"), load_split(tmp_path, "val")
    assert (found.format, found.crowd_index) == ("coco", None)
    assert found.keypoint_names == COCO_KEYPOINTS.names
    np.testing.assert_array_equal(found.keypoints, plain.keypoints)


def test_crowdpose_gets_areas_from_its_boxes_and_keeps_its_crowd_index(tmp_path: Path) -> None:
    write_crowdpose(tmp_path)
    split = open_split(tmp_path, "test")
    assert split.format == "crowdpose" and split.keypoint_names == CROWDPOSE_KEYPOINTS.names
    assert split.crowd_index is not None and split.crowd_index.tolist() == list(CROWD_INDICES)
    assert split.images[0].path.name == "100000.jpg"
    np.testing.assert_allclose(split.areas, 0.53 * split.boxes_xywh[:, 2] * split.boxes_xywh[:, 3])
    shoulder = COCO_KEYPOINTS.names.index("left_shoulder")
    drawn = np.array(scene(0).annotations[0]["keypoints"], float).reshape(17, 3)
    np.testing.assert_allclose(split.keypoints[0, 0], drawn[shoulder])


@pytest.mark.parametrize("spelling", ["top_head", "head", None])
def test_crowdpose_is_read_in_every_spelling_of_its_keypoints(spelling: str | None, tmp_path: Path) -> None:
    path = write_crowdpose(tmp_path)
    data = json.loads(path.read_text())
    names = [spelling if name == "head" else name for name in CROWDPOSE_KEYPOINTS.names]
    data["categories"][0]["keypoints"] = names if spelling else []
    (tmp_path / "annotations").mkdir()
    path.unlink()
    (tmp_path / "annotations" / "mmpose_crowdpose_test.json").write_text(json.dumps(data))
    assert open_split(tmp_path, "test").keypoint_names == CROWDPOSE_KEYPOINTS.names


def test_ochuman_is_mapped_to_coco_as_its_own_converter_does(tmp_path: Path) -> None:
    write_ochuman(tmp_path)
    split = open_split(tmp_path, "val")
    assert split.format == "ochuman" and split.keypoint_names == COCO_KEYPOINTS.names
    assert [(image.id, image.path.name) for image in split.images] == [
        (1, "000001.jpg"), (2, "000002.jpg"), (3, "000003.jpg"),
    ]  # fmt: skip
    assert np.diff(split.first_person).tolist() == [2, 2, 2]  # the box without keypoints and mask is left out
    drawn = [np.array(p["keypoints"], float).reshape(17, 3) for p in scene(2).annotations]  # the first by its id
    boxes = [p["bbox"] for p in scene(2).annotations]
    np.testing.assert_allclose(split.keypoints[:2, :, :2], [d[:, :2] for d in drawn])
    np.testing.assert_allclose(split.boxes_xywh[:2], boxes, atol=1e-9)
    np.testing.assert_allclose(split.areas[:2], [w * h for _, _, w, h in boxes])
    np.testing.assert_array_equal(split.keypoints[0, :, 2], drawn[0][:, 2])  # hidden by another: v = 1
    by_itself = np.where(drawn[1][:, 2] == 1, 2, drawn[1][:, 2])  # hidden by itself counts as visible
    np.testing.assert_array_equal(split.keypoints[1, :, 2], by_itself)
    np.testing.assert_array_equal(split.num_keypoints, (split.keypoints[:, :, 2] > 0).sum(axis=1))


def test_ochumans_nineteen_are_had_by_name(tmp_path: Path) -> None:
    write_ochuman(tmp_path)
    split = open_split(tmp_path, "val", "ochuman", OCHUMAN_KEYPOINTS)
    assert split.keypoints.shape[1:] == (19, 3) and split.keypoint_names == OCHUMAN_KEYPOINTS.names


def test_ochumans_val_is_the_first_2500_images_and_test_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ochuman(tmp_path)
    monkeypatch.setattr("mdpose_edge.datasets.readers.OCHUMAN_VAL_IMAGES", 2)
    names = {split: [i.path.stem for i in open_split(tmp_path, split).images] for split in ("val", "test")}
    assert names == {"val": ["000001", "000002"], "test": ["000003"]}
    with pytest.raises(DataError, match="the split val or test"):
        open_split(tmp_path, "train", "ochuman")


def test_a_double_of_another_person_is_left_out_of_ochuman(tmp_path: Path) -> None:
    path = write_ochuman(tmp_path)
    data = json.loads(path.read_text())
    data["images"][2]["annotations"][0]["max_iou"] = 1.0
    path.write_text(json.dumps(data))
    assert np.diff(open_split(tmp_path, "val").first_person).tolist() == [1, 2, 2]


def test_the_mapped_file_of_ochuman_is_preferred_to_the_raw_one(tmp_path: Path) -> None:
    write_ochuman(tmp_path)
    data = document([person(7)], image_ids=(7,))
    (tmp_path / "images" / data["images"][0]["file_name"]).write_bytes(b"")
    (tmp_path / "ochuman_coco_format_val_range_0.00_1.00.json").write_text(json.dumps(data))
    split = open_split(tmp_path, "val")
    assert split.format == "ochuman" and [image.id for image in split.images] == [7]


def test_two_formats_in_one_folder_need_a_choice(tmp_path: Path) -> None:
    write_split(tmp_path, document([person(7)]), split="test")
    write_crowdpose(tmp_path)
    with pytest.raises(DataError, match="expected one format, got coco and crowdpose; choose with --format"):
        open_split(tmp_path, "test")
    assert open_split(tmp_path, "test", "coco").format == "coco"
    assert open_split(tmp_path, "test", "crowdpose").format == "crowdpose"


def test_no_file_and_no_such_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"person_keypoints_val2017\.json: .*no such file"):
        open_split(tmp_path, "val")
    with pytest.raises(DataError, match=r"json/crowdpose_val\.json or .*got no such file"):
        open_split(tmp_path, "val", "crowdpose")
    with pytest.raises(ConfigError, match="coco, crowdpose, ochuman, mupots, panoptic, instances, got voc"):
        locate(tmp_path, "val", "voc")


def _crowdpose(change: Any) -> Any:
    def write(folder: Path) -> None:
        path = write_crowdpose(folder)
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return write


def _ochuman(change: Any) -> Any:
    def write(folder: Path) -> None:
        path = write_ochuman(folder)
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return write


BAD = {
    "no crowd index": (_crowdpose(lambda d: d["images"][1].pop("crowdIndex")), "test", "a crowdIndex"),
    "crowd index of 2": (_crowdpose(lambda d: d["images"][1].update(crowdIndex=2)), "test", "got 2 for image 100001"),
    "other keypoints": (_crowdpose(lambda d: d["categories"][0].update(keypoints=["a"])), "test", "got a; use"),
    "box of 3": (_crowdpose(lambda d: d["annotations"][0].update(bbox=[1, 2, 3])), "test", "no area"),
    "annotations missing": (_crowdpose(lambda d: d.pop("annotations")), "test", "a list under the key annotations"),
    "no keypoint names": (_ochuman(lambda d: d.pop("keypoint_names")), "val", "the keys keypoint_names and images"),
    "no image id": (_ochuman(lambda d: d["images"][0].pop("image_id")), "val", "KeyError 'image_id'"),
    "no masks": (_ochuman(lambda d: [p.pop("segms") for p in d["images"][0]["annotations"]]), "val", "KeyError"),
    "box of text": (_ochuman(lambda d: d["images"][0]["annotations"][0].update(bbox="abcd")), "val", "TypeError"),
}


@pytest.mark.parametrize(("write", "split", "message"), BAD.values(), ids=BAD)
def test_files_that_contradict_their_format_are_refused(write: Any, split: str, message: str, tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(MdposeError, match=message):
        open_split(tmp_path, split)


def test_a_part_of_the_keypoints_is_taken_by_name_and_counted_anew(tmp_path: Path) -> None:
    record = person(7)
    record["keypoints"][2] = 0  # the nose is not labelled
    write_split(tmp_path, document([{**record, "num_keypoints": 16}]))
    split = load_split(tmp_path, "val")
    part = select_keypoints(split, ("left_knee", "nose"))
    np.testing.assert_array_equal(part.keypoints[0], split.keypoints[0, [13, 0]])
    assert part.num_keypoints.tolist() == [1]
    with pytest.raises(DataError, match="expected the keypoints head"):
        select_keypoints(split, ("head",))


def test_a_training_is_for_the_formats_own_keypoints_unless_told_otherwise(tmp_path: Path) -> None:
    write_crowdpose(tmp_path, "train")
    assert training_keypoints(tmp_path, "train", None, None) == CROWDPOSE_KEYPOINTS
    assert training_keypoints(tmp_path, "train", "ochuman", "ochuman19") == OCHUMAN_KEYPOINTS
