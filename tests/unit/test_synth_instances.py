"""The boxes of drawn scenes: people and things, as far as they are seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mdpose_edge.datasets.readers import open_split
from mdpose_edge.synth import render_scene, write_dataset
from mdpose_edge.synth.instances import CATEGORIES, MIN_AREA, Thing, annotate_things
from mdpose_edge.synth.raster import rasterize
from mdpose_edge.synth.solids import NOBODY, Camera, Material, Solids

PLAIN = Material((0.5, 0.5, 0.5))
CAMERA = Camera(np.diag((-1.0, -1.0, 1.0)), np.array((0.0, 0.0, 4.0)), 200.0, (200, 200))
"""Looks along the world's z at its origin, 4 m ahead: x to the left, y up, 50 px a metre there."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("instances") / "data"
    write_dataset(out, train_images=16, val_images=4, size=(128, 128), seed=6, occlusion=0.6)
    return out


def scene_of(*things: tuple[str, Solids]) -> tuple[list[Thing], Solids]:
    whole, found = Solids(), list[Thing]()
    for name, part in things:
        first = len(whole)
        for field in ("kinds", "owners", "frames", "centres", "radii", "tapers", "texture", "materials"):
            getattr(whole, field).extend(getattr(part, field))
        whole.corners |= {first + index: corners for index, corners in part.corners.items()}
        found.append(Thing(name, range(first, len(whole))))
    return found, whole


def ball(x: float, z: float, radius: float) -> Solids:
    solids = Solids()
    solids.ball(NOBODY, np.array((x, 0.0, z)), np.eye(3), radius, PLAIN)
    return solids


def wall(x: float, z: float, half: float) -> Solids:
    solids = Solids()
    solids.box(np.array((x, 0.0, z)), np.eye(3), (half, half, 0.01), PLAIN)
    return solids


def test_a_box_encloses_what_the_depth_buffer_shows() -> None:
    things, solids = scene_of(("ball", ball(0.0, 0.0, 1.0)), ("box", wall(-1.0, -1.5, 1.0)))  # hides the right half
    shown, screen = annotate_things(things, rasterize(solids, CAMERA))
    assert [CATEGORIES[one["category_id"] - 1] for one in (shown, screen)] == ["ball", "box"]
    x, _, width, height = shown["bbox"]
    assert (x + width) == pytest.approx(100, abs=1) and x == pytest.approx(48.4, abs=1)  # 200 / sqrt(15) px in radius
    assert height == pytest.approx(103, abs=2) and shown["area"] == pytest.approx(np.pi * 51.6**2 / 2, rel=0.03)
    assert screen["bbox"] == pytest.approx([100, 20, 100, 160], abs=2)


def test_what_is_hidden_has_no_box_and_order_does_not_matter() -> None:
    things, solids = scene_of(("box", wall(0.0, -1.0, 1.5)), ("ball", ball(0.0, 0.5, 0.5)), ("pole", ball(9, 0, 0.1)))
    assert [one["category_id"] for one in annotate_things(things, rasterize(solids, CAMERA))] == [2]


def test_people_have_the_boxes_of_their_keypoints_file(dataset: Path) -> None:
    for split in ("train", "val"):
        read = {kind: json.loads((dataset / f"annotations/{kind}_{split}2017.json").read_text())
                for kind in ("person_keypoints", "instances")}  # fmt: skip
        people, boxes = (read[kind]["annotations"] for kind in ("person_keypoints", "instances"))
        both = [
            [(one["image_id"], one["bbox"], one["area"]) for one in annotations if one["category_id"] == 1]
            for annotations in (people, boxes)
        ]
        assert both[0] == both[1] and len(boxes) > len(people)
        assert len({one["id"] for one in boxes}) == len(boxes) and min(one["area"] for one in boxes) >= MIN_AREA
        assert [image["id"] for image in read["instances"]["images"]] == [
            i["id"] for i in read["person_keypoints"]["images"]
        ]


def test_it_is_read_as_a_dataset_of_boxes(dataset: Path) -> None:
    from mdpose_edge.datasets.check import check_data

    pytest.importorskip("faster_coco_eval")
    from mdpose_edge.evaluate import box_figures

    found = check_data(dataset, "train", "instances")
    assert not found.faults and found.categories["person"] > 10
    assert sum(count > 0 for name, count in found.categories.items() if name != "person") >= 4, found.categories
    split = open_split(dataset, "train", "instances")
    assert split.categories is not None and split.categories.names == CATEGORIES
    truth = split.ground_truth()["annotations"]
    rows = [{key: one[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9} for one in truth]
    assert box_figures(split, rows)["AP"] == pytest.approx(1.0)


def test_a_scene_depends_on_its_seed_alone() -> None:
    first, again = (render_scene(11, (96, 96), (2, 4), 0.8) for _ in range(2))
    assert first.instances == again.instances
    assert any(one["category_id"] > 1 for one in first.instances)
