from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mdpose_edge.calib.dataset import open_calibration_set
from mdpose_edge.calib.make import make_calibration_set
from mdpose_edge.calib.show import SHEET_IMAGES, calibration_sheet, calibration_statistics
from mdpose_edge.spec import InputSpec
from tests.unit.calib.frames import make_small_set
from tests.unit.tiny_coco import document, person, write_split


def test_light_is_measured_on_every_input(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for grey in (10, 20, 40):
        image = np.full((32, 64, 3), grey, np.uint8)
        image[:, ::2] += 2 * grey
        assert cv2.imwrite(str(folder / f"{grey}.png"), image)
    make_calibration_set(folder, tmp_path / "calib", InputSpec(32, 64), num=3, allow_few=True)
    told: list[tuple[int, int]] = []
    found = calibration_statistics(open_calibration_set(tmp_path / "calib"), lambda *step: told.append(step))
    assert found["brightness"] == {"lowest": 20.0, "p10": 24.0, "median": 40.0, "p90": 72.0, "highest": 80.0}
    assert found["contrast"] == {"lowest": 10.0, "p10": 12.0, "median": 20.0, "p90": 36.0, "highest": 40.0}
    assert (found["people"], found["scale"], found["occlusion"]) == (None, None, None)
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert json.loads(json.dumps(found))["images"] == 3


def test_images_are_counted_by_stratum(tmp_path: Path) -> None:
    hidden = person(1)
    hidden["keypoints"][2::3] = [1] * 17
    write_split(tmp_path / "coco", document([hidden, *(person(2, side=10) for _ in range(5))], image_ids=range(3)))
    for index, path in enumerate(sorted((tmp_path / "coco" / "val2017").iterdir())):
        assert cv2.imwrite(str(path), np.full((240, 320, 3), 40 * index, np.uint8))
    make_calibration_set(tmp_path / "coco", tmp_path / "c", InputSpec(32, 64), split="val", num=3, allow_few=True)
    found = calibration_statistics(open_calibration_set(tmp_path / "c"))
    assert found["people"] == {"0": 1, "1": 1, "2 to 4": 0, "5 and more": 1}
    assert found["scale"] == {"below 0.1": 1, "0.1 to 0.25": 0, "0.25 and more": 1}
    assert found["occlusion"] == {"below 0.1": 1, "0.1 to 0.3": 0, "0.3 and more": 1}


@pytest.mark.parametrize(("count", "rows"), [(4, 1), (SHEET_IMAGES + 1, 6)])
def test_the_sheet_shows_a_sample(tmp_path: Path, count: int, rows: int) -> None:
    opened = make_small_set(tmp_path, count)
    sheet = calibration_sheet(opened)
    gap, caption, cell = 8, 20, 184
    assert sheet.shape[:2] == (gap + rows * (cell + caption + gap), gap + min(count, 8) * (cell + gap))
    first = cv2.resize(opened.inputs[0], (184, 92), interpolation=cv2.INTER_CUBIC)
    assert np.array_equal(sheet[gap + 46 : gap + 138, gap : gap + 184], first)
