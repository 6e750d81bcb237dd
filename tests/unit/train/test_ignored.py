"""Regions of which nothing is known: crowds and people without keypoints, wherever a view puts them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from mdpose_edge.families.base import People
from mdpose_edge.spec import COCO_KEYPOINTS, InputSpec
from mdpose_edge.train.augment import Sample, View, warp_people
from mdpose_edge.train.config import AugmentConfig, InputConfig, TrainConfig
from mdpose_edge.train.data import Example, TrainingImages
from mdpose_edge.train.mosaic import joined, mosaic_tiles
from mdpose_edge.train.paste import pasted
from tests.unit.tiny_coco import document, person, unlabelled, write_split

NOBODY = People(
    np.zeros((0, 2, 2), np.float32), np.zeros((0, 2), np.bool_), np.zeros((0, 2), np.float32),
    np.zeros((0, 4), np.float32), ignored_xyxy=np.array([[4, 5, 20, 30]], np.float32),
)  # fmt: skip


def test_they_are_mapped_and_cut_like_boxes() -> None:
    view = View(np.array([[-2.0, 0.0, 100.0], [0.0, 2.0, 10.0], [0.0, 0.0, 1.0]]), True)
    nobody = np.zeros((0, 17, 3), np.float32), np.zeros((0, 4), np.float32)
    region = np.array([[10.0, 20.0, 60.0, 30.0]])
    found = warp_people(*nobody, view, InputSpec(96, 96), COCO_KEYPOINTS, ignored_xywh=region)
    np.testing.assert_allclose(found.ignored_xyxy, [[0.0, 50.0, 80.0, 96.0]])
    assert warp_people(*nobody, view, InputSpec(96, 96), COCO_KEYPOINTS).ignored_xyxy.shape == (0, 4)


def test_a_mosaic_and_a_pasted_person_keep_them() -> None:
    tiles = mosaic_tiles(InputSpec(64, 64), 2)
    blank = np.zeros((32, 32, 3), np.uint8)
    whole = joined([Sample(blank, NOBODY)] * 4, tiles)
    assert whole.people.ignored_xyxy[3].tolist() == [36, 37, 52, 62]
    somebody = replace(
        NOBODY, keypoints_xy=np.full((1, 2, 2), 9, np.float32), labelled=np.ones((1, 2), np.bool_),
        centers_xy=np.full((1, 2), 9, np.float32), boxes_xyxy=np.array([[8, 8, 10, 10]], np.float32),
    )  # fmt: skip
    result = pasted(Sample(blank, NOBODY), Sample(blank, somebody), np.zeros((32, 32), np.float32))
    assert len(result.people.centers_xy) == 1 and len(result.people.ignored_xyxy) == 2


def test_crowds_and_people_without_keypoints_are_unknown(tmp_path: Path) -> None:
    people = [person(1), unlabelled(1), person(1, iscrowd=1, x=100)]
    write_split(tmp_path, document(people, image_ids=(1,)), split="train")
    none = AugmentConfig(rotation_prob=0.0, expand_prob=0.0, crop_prob=0.0, flip_prob=0.0)
    config = TrainConfig(input=InputConfig(256, 320), augment=none)
    from mdpose_edge.datasets.coco import load_split
    from mdpose_edge.families.registry import training_of

    family = training_of(config.family)
    spec = family.make_spec(config.network, config.input.spec(), COCO_KEYPOINTS)
    example = TrainingImages(load_split(tmp_path, "train"), spec, config)[0, 0]
    assert isinstance(example, Example)
    found = example.sample.people
    assert len(found.centers_xy) == 1
    boxes = [one["bbox"] for one in people[1:]]
    corners = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes]) * (1, 256 / 240, 1, 256 / 240)
    np.testing.assert_allclose(found.ignored_xyxy, corners, rtol=1e-4)
