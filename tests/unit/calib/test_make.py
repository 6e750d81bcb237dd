from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mdpose_edge.calib.dataset import CalibrationRecord, open_calibration_set
from mdpose_edge.calib.make import make_calibration_set
from mdpose_edge.common.files import file_sha256
from mdpose_edge.errors import CalibrationError, DataError, InputError
from mdpose_edge.spec import InputSpec
from tests.unit.calib.frames import SPEC, write_frames
from tests.unit.datasets.public_formats import write_crowdpose, write_ochuman
from tests.unit.tiny_coco import document, person, write_split


def make(data: Path, out: Path, num: int, **options: Any) -> CalibrationRecord:
    return make_calibration_set(data, out, SPEC, num=num, **{"allow_few": True, **options})


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frames(tmp_path_factory.mktemp("data") / "frames", 120)


@pytest.fixture
def few(tmp_path: Path) -> Path:
    return write_frames(tmp_path / "frames", 10)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Eight images: 0 to 3 empty, 4 and 5 with one person, 6 with two, 7 with six."""
    people = [person(4), person(5), *(person(6, side=20 + i) for i in range(2)), *(person(7) for _ in range(6))]
    write_split(tmp_path / "coco", document(people, image_ids=range(8)))
    rng = np.random.default_rng(1)
    for path in (tmp_path / "coco" / "val2017").iterdir():
        assert cv2.imwrite(str(path), rng.integers(0, 256, (240, 320, 3), np.uint8))
    return tmp_path / "coco"


def test_a_folder_of_frames_becomes_a_set(frames: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    record = make(frames, tmp_path / "calib", 100, allow_few=False, progress=lambda *step: told.append(step))
    assert open_calibration_set(tmp_path / "calib").record == record
    assert told == [(done, 100) for done in range(1, 101)]
    assert len({image.name for image in record.images}) == 100
    assert all(image.source_sha256 == file_sha256(frames / image.name) for image in record.images)
    assert all(image.traits is None for image in record.images)
    assert (record.source, record.skipped, record.duplicates) == ("frames", (), 0)
    assert os.listdir(tmp_path) == ["calib"]


def test_the_digest_depends_on_seed_and_content_alone(few: Path, tmp_path: Path) -> None:
    first = make(few, tmp_path / "a", 6, seed=3)
    moved = shutil.copytree(few, tmp_path / "elsewhere")
    assert make(moved, tmp_path / "b", 6, seed=3).digest == first.digest
    assert (tmp_path / "a" / "inputs.npy").read_bytes() == (tmp_path / "b" / "inputs.npy").read_bytes()
    assert make(few, tmp_path / "c", 6, seed=4).digest != first.digest
    changed = cv2.imread(str(moved / first.images[0].name))
    changed[0, 0] ^= 255
    assert cv2.imwrite(str(moved / first.images[0].name), changed)
    assert make(moved, tmp_path / "b", 6, seed=3).digest != first.digest


def test_annotated_images_are_stratified(coco: Path, tmp_path: Path) -> None:
    record = make(coco, tmp_path / "calib", 4, split="val")
    assert sorted(image.traits.people for image in record.images if image.traits) == [0, 1, 2, 6]
    assert record.source == "coco, val"
    assert {image.name for image in record.images} <= {path.name for path in (coco / "val2017").iterdir()}


def test_crowdpose_and_ochuman_are_stratified_too(tmp_path: Path) -> None:
    write_crowdpose(tmp_path / "crowdpose")
    record = make(tmp_path / "crowdpose", tmp_path / "a", 4, split="test")
    assert {image.name for image in record.images} == {f"{100000 + n}.jpg" for n in range(4)}
    assert all(image.traits is not None and image.traits.people == 2 for image in record.images)
    write_ochuman(tmp_path / "ochuman")
    assert make(tmp_path / "ochuman", tmp_path / "b", 3, split="val").source == "ochuman, val"
    with pytest.raises(CalibrationError, match="got a dataset's, with annotations; name its split"):
        make(tmp_path / "crowdpose", tmp_path / "c", 2)


@pytest.mark.parametrize(("num", "unreadable"), [(100, 1), (119, 1)])
def test_an_unreadable_image_is_skipped_counted_and_replaced(
    frames: Path, tmp_path: Path, num: int, unreadable: int
) -> None:
    data = shutil.copytree(frames, tmp_path / "frames")
    picked = make(data, tmp_path / "calib", num).images[5].name
    (data / picked).write_bytes((data / picked).read_bytes()[:-20])
    record = make(data, tmp_path / "calib", num)
    assert [image.name for image in record.skipped] == [picked] * unreadable
    assert "breaks off" in record.skipped[0].reason
    assert str(tmp_path) not in record.skipped[0].reason
    assert len(record.images) == num
    assert picked not in {image.name for image in record.images}


def test_more_than_one_in_a_hundred_unreadable_is_refused(frames: Path, tmp_path: Path) -> None:
    data = shutil.copytree(frames, tmp_path / "frames")
    for image in make(data, tmp_path / "calib", 100).images[:2]:
        (data / image.name).write_text("no image")
    shutil.rmtree(tmp_path / "calib")
    with pytest.raises(CalibrationError, match=r"at most 1% unreadable images, got 2 for a set of 100, the last \d+"):
        make(data, tmp_path / "calib", 100)
    assert os.listdir(tmp_path) == ["frames"]


def test_an_image_counts_once_however_often_it_is_there(few: Path, tmp_path: Path) -> None:
    for index in range(10):
        shutil.copy(few / f"{index:03d}.png", few / f"again{index}.png")
    record = make(few, tmp_path / "calib", 10)
    assert len({image.pixels_sha256 for image in record.images}) == 10
    assert record.duplicates > 0
    with pytest.raises(CalibrationError, match=r"got 10 \(0 unreadable, 10 the same as another\)"):
        make(few, tmp_path / "calib", 11)
    assert open_calibration_set(tmp_path / "calib").record == record


@pytest.mark.parametrize(
    ("num", "options", "message"),
    [
        (0, {}, "--num: expected at least 1 image, got 0"),
        (99, {"allow_few": False}, "--num: expected at least 100 images, got 99; .*--allow-few"),
        (11, {}, "11 readable, different images, got 10 images; give more images, or pass --num 10 --allow-few"),
    ],
)
def test_too_few_is_refused(few: Path, tmp_path: Path, num: int, options: dict[str, bool], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        make(few, tmp_path / "calib", num, **options)
    assert os.listdir(tmp_path) == ["frames"]


def test_a_folder_that_cannot_be_used_is_refused(few: Path, coco: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for data, split, error, message in (
        (tmp_path / "absent", None, CalibrationError, "a folder of images, got no such folder"),
        (few / "000.png", None, CalibrationError, "a folder of images, got a file"),
        (coco, None, CalibrationError, "a dataset's, with annotations; name its split, for instance --split train"),
        (tmp_path / "empty", None, InputError, "got none"),
        (coco, "train", DataError, "person_keypoints_train2017.json"),
    ):
        with pytest.raises(error, match=message):
            make(data, tmp_path / "calib", 4, split=split)
    assert not (tmp_path / "calib").exists()


def test_an_earlier_set_is_replaced_and_anything_else_kept(few: Path, tmp_path: Path) -> None:
    make(few, tmp_path / "calib", 3)
    assert len(make(few, tmp_path / "calib", 5).images) == len(open_calibration_set(tmp_path / "calib")) == 5
    with pytest.raises(CalibrationError, match="an earlier calibration set, got a directory that is no calibration"):
        make(few, few, 3)
    assert len(os.listdir(few)) == 10


def test_exif_orientation_is_honoured_in_frames_and_not_in_coco(coco: Path, tmp_path: Path) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    for path in (coco / "val2017").iterdir():
        jpeg = path.read_bytes()
        path.write_bytes(jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:])
    make_calibration_set(coco, tmp_path / "a", InputSpec(240, 320), split="val", num=8, allow_few=True)
    make_calibration_set(coco / "val2017", tmp_path / "b", InputSpec(320, 240), num=8, allow_few=True)
    stored = {image.name: row for image, row in zip(*_pairs(tmp_path / "a"), strict=True)}
    for image, row in zip(*_pairs(tmp_path / "b"), strict=True):
        assert np.array_equal(row, cv2.rotate(stored[image.name], cv2.ROTATE_90_CLOCKWISE))


def test_a_full_disk_is_one_sentence(few: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    try:
        with pytest.raises(
            CalibrationError, match="a place to write the inputs, got the system's answer: File too large"
        ):
            make(few, tmp_path / "calib", 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == ["frames"]


def _pairs(path: Path) -> tuple[Any, Any]:
    opened = open_calibration_set(path)
    return opened.record.images, opened.inputs


def test_a_name_that_is_not_utf_8_is_written_as_an_escape(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "frames", 2)
    first = sorted(frames.iterdir())[0]
    first.rename(frames / os.fsdecode(b"caf\xe9.png"))
    record = make_calibration_set(frames, tmp_path / "calib", InputSpec(64, 64), num=2, allow_few=True)
    assert "caf\\udce9.png" in {image.name for image in record.images}
    assert open_calibration_set(tmp_path / "calib").record == record
