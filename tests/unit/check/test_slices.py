from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdpose_edge.check.measures.slices import SLICES, labelled_people, restrict
from mdpose_edge.datasets.coco import CocoSplit, load_split
from mdpose_edge.evaluate import coco_figures
from tests.unit.tiny_coco import document, person, unlabelled, write_split


def split_of(tmp_path: Path, people: list[dict[str, Any]]) -> CocoSplit:
    write_split(tmp_path, document(people))
    return load_split(tmp_path, "val")


def hide(record: dict[str, Any], count: int) -> dict[str, Any]:
    """Mark the first keypoints as hidden."""
    triples = np.array(record["keypoints"]).reshape(17, 3)
    triples[:count, 2] = 1
    return {**record, "keypoints": triples.ravel().tolist()}


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("small", [True, False, False, False, False]),
        ("medium", [False, True, False, False, False]),
        ("large", [False, False, True, True, True]),
        ("crowded", [False, False, True, True, False]),
        ("occluded", [False, False, False, True, False]),
    ],
)
def test_members(name: str, members: list[bool], tmp_path: Path) -> None:
    people = [
        person(7, x=250, side=30),
        person(7, x=250, y=100, side=60),
        person(7, x=10, side=140),
        hide(person(7, x=60, side=140), 6),
        hide(person(3, x=10, side=140), 5),
    ]
    (one,) = (one for one in SLICES if one.name == name)
    assert one.members(split_of(tmp_path, people)).tolist() == members


def test_people_without_labels_and_crowds_are_not_counted(tmp_path: Path) -> None:
    split = split_of(tmp_path, [person(7), unlabelled(7), person(7, iscrowd=1)])
    assert labelled_people(split).tolist() == [True, False, False]


def test_poses_outside_a_slice_are_neither_right_nor_wrong(tmp_path: Path) -> None:
    small, large = person(7, x=250, side=30), person(3, side=140)
    split = split_of(tmp_path, [small, large])
    wrong = [v + 1000 for v in small["keypoints"]]
    results = [
        {"image_id": 3, "category_id": 1, "keypoints": large["keypoints"], "score": 0.9},
        {"image_id": 7, "category_id": 1, "keypoints": wrong, "score": 0.5},
    ]
    assert coco_figures(split, results)["AP"] == pytest.approx(0.5, abs=0.01)
    assert coco_figures(restrict(split, split.areas > 1000), results)["AP"] == pytest.approx(1.0)
    assert coco_figures(restrict(split, split.areas < 1000), results)["AP"] == 0.0
