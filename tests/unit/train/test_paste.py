"""People cut out of other pictures: on the pixels that they bring along, in front of whom they cover."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge.datasets.coco import load_split
from mdpose_edge.datasets.cutouts import CutOut, read_cut_outs
from mdpose_edge.errors import DataError
from mdpose_edge.families.base import People
from mdpose_edge.families.mdpose.training import FAMILY
from mdpose_edge.spec import COCO_KEYPOINTS, InputSpec
from mdpose_edge.synth import write_dataset
from mdpose_edge.train.augment import Sample
from mdpose_edge.train.config import AugmentConfig, InputConfig, TrainConfig
from mdpose_edge.train.data import Example, TrainingImages
from mdpose_edge.train.paste import cover, paste_view, pasted

SPEC = InputSpec(96, 64)
SQUARE = np.array([[20, 20], [60, 20], [60, 100], [20, 100]], np.float32)
BOX = np.array([20, 20, 40, 80], np.float32)


def person(*points: tuple[float, float]) -> People:
    keypoints = np.array([points], np.float32)
    low, high = keypoints[0].min(axis=0), keypoints[0].max(axis=0)
    return People(
        keypoints, np.ones((1, len(points)), np.bool_), (low + high)[None] / 2, np.concatenate([low, high])[None]
    )


def grey(level: int) -> NDArray[np.uint8]:
    return np.full((SPEC.height, SPEC.width, 3), level, np.uint8)


@pytest.mark.parametrize("seed", range(20))
def test_a_cut_out_covers_what_its_outline_does(seed: int) -> None:
    view = paste_view(np.random.default_rng(seed), BOX, SPEC, AugmentConfig(), at_bottom=False)
    covered = cover(CutOut(0, 0, (SQUARE,), False), view, SPEC)
    inverse = np.linalg.inv(view.matrix)
    rows, columns = np.indices(covered.shape)
    there = np.stack([columns + 0.5, rows + 0.5], axis=-1) @ inverse[:2, :2].T + inverse[:2, 2]
    scale = np.sqrt(abs(np.linalg.det(view.matrix[:2, :2])))
    depth = np.minimum(there - BOX[:2], BOX[:2] + BOX[2:] - there).min(axis=-1) * scale  # px of the view, inwards
    assert (covered[depth > 3] == 1).all()
    assert (covered[depth < -3] == 0).all()


def test_whoever_is_cut_off_at_the_bottom_stands_at_the_bottom() -> None:
    for seed in range(20):
        view = paste_view(np.random.default_rng(seed), BOX, SPEC, AugmentConfig(), at_bottom=True)
        feet = view.matrix @ (40.0, 100.0, 1.0)
        assert feet[1] == pytest.approx(SPEC.height)


def test_what_is_covered_is_neither_seen_nor_labelled() -> None:
    covered = np.zeros((SPEC.height, SPEC.width), np.float32)
    covered[:, :32] = 1
    half, whole = person((16.0, 20.0), (50.0, 40.0)), person((4.0, 4.0), (20.0, 60.0))
    below = People(
        np.concatenate([half.keypoints_xy, whole.keypoints_xy]),
        np.concatenate([half.labelled, whole.labelled]),
        np.concatenate([half.centers_xy, whole.centers_xy]),
        np.concatenate([half.boxes_xyxy, whole.boxes_xyxy]),
    )
    above = person((8.0, 8.0), (24.0, 70.0))
    result = pasted(Sample(grey(50), below), Sample(grey(200), above), covered)
    assert (result.image[:, :32] == 200).all() and (result.image[:, 32:] == 50).all()
    assert len(result.people.centers_xy) == 2  # the second of those below is wholly covered
    assert result.people.labelled.tolist() == [[False, True], [True, True]]
    np.testing.assert_array_equal(result.people.keypoints_xy[1], above.keypoints_xy[0])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_dataset(folder, train_images=4, val_images=1, size=128, seed=3, people=(2, 3), occlusion=0.0)
    return folder


def test_training_pastes_people_with_outlines(drawn: Path) -> None:
    split = load_split(drawn, "train")
    config = TrainConfig(input=InputConfig(96, 96), augment=AugmentConfig(paste_prob=1.0), seed=1)
    spec = FAMILY.make_spec(config.network, config.input.spec(), COCO_KEYPOINTS)
    with_more = TrainingImages(split, spec, config)
    without = TrainingImages(split, spec, replace(config, augment=AugmentConfig()))
    more, fewer = (
        [len(taken(images, position).people.centers_xy) for position in range(12)] for images in (with_more, without)
    )
    assert np.mean(more) > np.mean(fewer) + 0.5


def taken(images: TrainingImages, position: int) -> Sample:
    example = images[(position, position % 4)]
    assert isinstance(example, Example)
    return example.sample


def test_cut_outs_have_the_keypoints_of_their_outlines(drawn: Path) -> None:
    split = load_split(drawn, "train")
    for cut_out in read_cut_outs(split):
        seen = split.keypoints[cut_out.person, split.keypoints[cut_out.person, :, 2] == 2, :2]
        outline = np.concatenate(cut_out.polygons)
        assert (seen >= outline.min(axis=0) - 3).all() and (seen <= outline.max(axis=0) + 3).all()


def test_without_outlines_there_is_nothing_to_paste(drawn: Path, tmp_path: Path) -> None:
    content = json.loads((drawn / "annotations" / "person_keypoints_train2017.json").read_text())
    for record in content["annotations"]:
        del record["segmentation"]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train2017").symlink_to(drawn / "train2017")
    (tmp_path / "annotations" / "person_keypoints_train2017.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="expected people with polygons under segmentation"):
        read_cut_outs(load_split(tmp_path, "train"))
