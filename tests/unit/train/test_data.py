"""Training batches: a pure function of seed and iteration, whoever computes them."""

from __future__ import annotations

import pickle
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from mdpose_edge.datasets.coco import load_split
from mdpose_edge.datasets.images import read_annotated, read_image
from mdpose_edge.errors import DataError, InputError
from mdpose_edge.families.base import People
from mdpose_edge.families.mdpose.network import make_spec
from mdpose_edge.families.mdpose.training import LossConfig
from mdpose_edge.train.augment import AugmentConfig, Sample, View, random_view, warp_image
from mdpose_edge.train.config import ScheduleConfig, TrainConfig
from mdpose_edge.train.data import Batch, Example, RunSampler, TrainingImages, collate, training_batches
from tests.unit.datasets.oriented import encoded
from tests.unit.tiny_coco import document, person, unlabelled, write_split
from tests.unit.train.crude_people import SMALL_PX, tiny_config

LONG = ScheduleConfig(iterations=10)
PLAIN = AugmentConfig(rotation_prob=0, expand_prob=0, crop_prob=0, flip_prob=0)


def batches(config: TrainConfig, data: Path, start: int = 0, count: int = 4) -> list[Batch]:
    spec = make_spec(config.network, config.input.spec())
    with closing(training_batches(config, spec, data, "train")(start)) as stream:
        return list(islice(stream, count))


def assert_equal(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        for name in ("images", "keypoints_xy", "labelled"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert a.targets.keys() == b.targets.keys()
        for name, target in a.targets.items():
            assert torch.equal(target, b.targets[name]), name


def training_images(data: Path, **changes: Any) -> TrainingImages:
    config = tiny_config(**changes)
    return TrainingImages(load_split(data, "train"), make_spec(config.network, config.input.spec()), config)


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (7, 7), (3, 8), (1, 2)])
def test_every_image_comes_once_per_epoch(count: int, batch_size: int) -> None:
    iterations = 3 * count
    keys = [key for batch in RunSampler(count, batch_size, 5, 0, iterations) for key in batch]
    assert [position for position, _ in keys] == list(range(iterations * batch_size))
    epochs = [[index for _, index in keys[i : i + count]] for i in range(0, len(keys) - count + 1, count)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert count < 3 or len({tuple(epoch) for epoch in epochs}) > 1  # reshuffled


@pytest.mark.parametrize("start", [1, 5, 19])
def test_sampler_that_starts_late_goes_on_where_another_was(start: int) -> None:
    whole = list(RunSampler(10, 4, 5, 0, 20))
    late = RunSampler(10, 4, 5, start, 20)
    assert list(late) == whole[start:] and len(late) == 20 - start
    assert list(RunSampler(10, 4, 6, 0, 20)) != whole


def test_batches_hold_what_they_say(crude_people: Path) -> None:
    for batch in batches(tiny_config(schedule=LONG), crude_people):
        targets = batch.targets
        persons = targets["person_mask"].shape[1]
        assert batch.images.shape == (4, SMALL_PX, SMALL_PX, 3) and batch.images.dtype == torch.uint8
        assert targets["keypoints_xy"].shape == (4, persons, 18, 2) and targets["keypoints_xy"].dtype == torch.float32
        assert targets["labelled"].shape == (4, persons, 18) and targets["labelled"].dtype == torch.bool
        seen = targets["keypoints_xy"][targets["labelled"]]
        assert len(seen) and (seen >= 0).all() and (seen < 5).all()
        assert not targets["labelled"][~targets["person_mask"]].any()
        assert torch.allclose(batch.keypoints_xy * 5 / SMALL_PX, targets["keypoints_xy"][:, :, :17])
        assert torch.equal(batch.labelled, targets["labelled"][:, :, :17])


def test_coordinates_span_the_extent_on_both_axes(crude_people: Path) -> None:
    images = training_images(crude_people, augment=PLAIN)
    sample = images[0, 3]
    assert isinstance(sample, Example)
    truth = images.data.persons(3).keypoints[:, :, :2] * (5 / 160, 5 / 120)
    np.testing.assert_allclose(sample.targets["keypoints_xy"][:, :17], truth, rtol=1e-5)


def test_late_start_gives_the_same_batches(crude_people: Path) -> None:
    config = tiny_config(schedule=LONG)
    assert_equal(batches(config, crude_people, start=3, count=4), batches(config, crude_people, count=7)[3:])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with a single core
def test_workers_change_nothing(crude_people: Path) -> None:
    alone, helped = (tiny_config(schedule=LONG, workers=workers) for workers in (0, 2))
    assert_equal(batches(alone, crude_people, count=10), batches(helped, crude_people, count=10))


def test_another_seed_gives_other_views_of_the_same_image(crude_people: Path) -> None:
    one, two = (training_images(crude_people, seed=seed)[0, 3] for seed in (1, 2))
    assert isinstance(one, Example) and isinstance(two, Example)
    assert not np.array_equal(one.sample.image, two.sample.image)


def test_run_ends_after_its_iterations(crude_people: Path) -> None:
    config = tiny_config(schedule=ScheduleConfig(iterations=3))
    assert len(batches(config, crude_people, start=1, count=99)) == 2
    assert batches(config, crude_people, start=3, count=99) == []


def test_collate_pads_persons() -> None:
    def example(persons: int) -> Example:
        points = np.full((persons, 17, 2), persons, np.float32)
        people = People(points, np.ones((persons, 17), bool), points[:, 0], np.zeros((persons, 4), np.float32))
        targets = {"person_mask": np.ones(persons, bool), "map": np.full((4, 4), persons, np.float32)}
        return Example(Sample(np.full((4, 4, 3), persons, np.uint8), people), targets)

    batch = collate([example(2), example(0), example(3)])
    assert isinstance(batch, Batch)
    assert batch.targets["person_mask"].tolist() == [[True, True, False], [False] * 3, [True] * 3]
    assert torch.equal(batch.labelled, batch.targets["person_mask"][:, :, None].expand(3, 3, 17))
    assert torch.equal(batch.keypoints_xy[0, :, 0, 0], torch.tensor([2.0, 2.0, 0.0]))
    assert batch.targets["map"].shape == (3, 4, 4)
    empty = collate([example(0), example(0)])
    assert isinstance(empty, Batch) and empty.targets["person_mask"].tolist() == [[False], [False]]


def test_only_images_with_trainable_people_are_drawn(tmp_path: Path) -> None:
    people = [person(1), unlabelled(2), person(3, iscrowd=1), unlabelled(4), person(4, x=20, side=90)]
    write_split(tmp_path, document(people, image_ids=(1, 2, 3, 4, 5)), split="train")
    images = training_images(tmp_path, augment=PLAIN)
    assert [images.data.images[row].id for row in images.indices] == [1, 4]
    sample = images[0, 1]
    assert isinstance(sample, Example)
    assert sample.targets["keypoints_xy"].shape == (1, 18, 2)
    center = sample.targets["keypoints_xy"][0, 17]
    np.testing.assert_allclose(center, [(20 + 45) * 5 / 320, (40 + 45) * 5 / 240], rtol=1e-5)


def test_mosaic_shows_several_images_at_a_part_of_their_size(crude_people: Path) -> None:
    augment = replace(PLAIN, mosaic=2, mosaic_prob=1.0)
    sample, again = (training_images(crude_people, augment=augment)[5, 3] for _ in range(2))
    assert isinstance(sample, Example) and isinstance(again, Example)
    assert np.array_equal(sample.sample.image, again.sample.image)
    plain = training_images(crude_people, augment=PLAIN)[5, 3]
    assert isinstance(plain, Example)
    points, plain_points = sample.targets["keypoints_xy"], plain.targets["keypoints_xy"]
    assert len(points) >= len(plain_points) + 3
    np.testing.assert_allclose(points[: len(plain_points)], plain_points / 2, rtol=1e-4)
    halves = points > 2.5
    assert (halves == halves[:, :1]).all()  # nobody reaches into another tile


def test_person_cut_off_is_told_of_where_asked(tmp_path: Path) -> None:
    write_split(tmp_path, document([person(7, x=100, y=40, side=120)], image_ids=(7,)), split="train")
    view = View(np.diag([64 / 320, 64 / 240, 1]) @ np.array([[1, 0, -190], [0, 1, 0], [0, 0, 1.0]]), False)
    shown = []
    for clip in (False, True):
        images = training_images(tmp_path, augment=replace(PLAIN, clip_boxes=clip))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mdpose_edge.train.data.random_view", lambda *_: view)
            sample = images[0, 0]
        assert isinstance(sample, Example)
        shown.append(sample.targets["keypoints_xy"])
    assert len(shown[0]) == 0 and len(shown[1]) == 1
    np.testing.assert_allclose(shown[1][0, 17], [15 * 5 / 320, (40 + 60) * 5 / 240], rtol=1e-4)


def test_crops_show_any_part_of_somebody_where_people_may_be_cut_off(tmp_path: Path) -> None:
    write_split(tmp_path, document([person(7, x=60, y=20, side=200)], image_ids=(7,)), split="train")
    views: list[View] = []

    def spy(*arguments: Any) -> View:
        views.append(random_view(*arguments))
        return views[-1]

    augment = replace(PLAIN, crop_prob=1.0, crop_min=0.2, crop_max=0.7)
    parts = []
    for clip in (False, True):
        images = training_images(tmp_path, augment=replace(augment, clip_boxes=clip))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mdpose_edge.train.data.random_view", spy)
            samples = [images[position, 0] for position in range(30)]
        centres = [view.matrix @ (160, 120, 1) for view in views[-30:]]
        outside = [not ((centre[:2] > 0) & (centre[:2] < 64)).all() for centre in centres]
        told = [isinstance(sample, Example) and len(sample.sample.people.labelled) == 1 for sample in samples]
        parts.append(sum(np.logical_and(outside, told)))
    assert parts[0] == 0 and parts[1] >= 5, parts


def test_images_without_people_take_part_where_asked(tmp_path: Path) -> None:
    people = [person(1), unlabelled(2), person(3, iscrowd=1)]
    write_split(tmp_path, document(people, image_ids=(1, 2, 3, 4)), split="train")
    images = training_images(tmp_path, negatives=True)
    assert [images.data.images[row].id for row in images.indices] == [1, 4]
    sample = images[0, 1]
    assert isinstance(sample, Example) and sample.targets["keypoints_xy"].shape == (0, 18, 2)


def test_where_people_are_counted_a_box_is_one_and_a_crowd_is_left_out(tmp_path: Path) -> None:
    people = [person(1), unlabelled(1, x=20, y=90, side=90), unlabelled(2), person(3), person(3, iscrowd=1)]
    write_split(tmp_path, document(people, image_ids=(1, 2, 3, 4)), split="train")
    images = training_images(tmp_path, augment=PLAIN, loss=LossConfig(count_weight=1.0))
    assert [images.data.images[row].id for row in images.indices] == [1, 2]
    sample = images[0, 0]
    assert isinstance(sample, Example) and sample.targets["labelled"].sum(axis=1).tolist() == [18, 1]
    np.testing.assert_allclose(
        sample.targets["keypoints_xy"][1, 17], [(20 + 45) * 5 / 320, (90 + 45) * 5 / 240], rtol=1e-5
    )


@pytest.mark.parametrize("people", [[], [unlabelled(7)], [person(7, iscrowd=1)]], ids=["none", "unlabelled", "crowd"])
def test_data_without_trainable_people_is_refused(tmp_path: Path, people: list[dict[str, Any]]) -> None:
    write_split(tmp_path, document(people), split="train")
    with pytest.raises(DataError, match="expected images with annotated keypoints, got none"):
        training_images(tmp_path)


def test_other_keypoints_are_refused(tmp_path: Path) -> None:
    data = document([person(7)])
    data["categories"] = [{**data["categories"][0], "keypoints": [f"point_{i}" for i in range(17)]}]
    write_split(tmp_path, data, split="train")
    with pytest.raises(DataError, match=r"expected the keypoints nose, .*got point_0"):
        training_images(tmp_path)


def test_file_without_keypoints_is_refused(tmp_path: Path) -> None:
    data = document([person(7)])
    data["categories"] = [{"id": 1, "name": "person"}]
    write_split(tmp_path, data, split="train")
    with pytest.raises(DataError, match="one category with keypoint names"):
        training_images(tmp_path)


def test_image_of_another_size_than_annotated_is_refused(tmp_path: Path) -> None:
    data = document([person(7)], image_ids=(7,))
    data["images"][0]["width"] = 640
    write_split(tmp_path, data, split="train")
    with pytest.raises(DataError, match="expected 640x240 px, as the annotation file says, got 320x240"):
        batches(tiny_config(), tmp_path)


def test_a_png_of_any_name_is_read_whole(tmp_path: Path) -> None:
    write_split(tmp_path, document([person(7)], image_ids=(7,)), split="train")
    path = tmp_path / "train2017" / "000000000007.jpg"
    path.write_bytes(cv2.imencode(".png", np.full((240, 320, 3), 90, np.uint8))[1].tobytes())
    assert isinstance(training_images(tmp_path, augment=PLAIN)[0, 0], Example)


def test_an_image_is_turned_where_its_annotations_are_upright(tmp_path: Path) -> None:
    data = document([person(7, x=20, y=20, side=60)], image_ids=(7,))
    data["images"][0].update(width=240, height=320)
    write_split(tmp_path, data, split="train")
    picture = np.zeros((240, 320, 3), np.uint8)
    picture[:120, :160] = 255
    (tmp_path / "train2017" / "000000000007.jpg").write_bytes(encoded(picture, ".jpg", 6))
    sample = training_images(tmp_path, augment=PLAIN)[0, 0]
    assert isinstance(sample, Example)
    quarters = [[part.mean() > 128 for part in np.split(half, 2, axis=1)] for half in np.split(sample.sample.image, 2)]
    assert quarters == [[False, True], [False, False]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": [900, 900, 40, 40]}, "expected people inside their images to train on, got 1, all of them outside"),
        ({"num_keypoints": 0}, "expected images with annotated keypoints, got none"),
    ],
)
def test_data_that_show_nobody_are_refused_before_the_first_batch(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_split(tmp_path, document([person(7, **changes)], image_ids=(7,)), split="train")
    config = tiny_config()
    with pytest.raises(DataError, match=message):
        training_batches(config, make_spec(config.network, config.input.spec()), tmp_path, "train")


def test_large_pictures_are_decoded_at_reduced_size_and_show_the_same(tmp_path: Path) -> None:
    write_split(tmp_path, document([person(7)], image_ids=(7,)), split="train")
    path = tmp_path / "train2017" / "000000000007.jpg"
    clouds = np.random.default_rng(0).integers(0, 256, (8, 10, 3), np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(clouds, (320, 240), interpolation=cv2.INTER_CUBIC))
    sizes: list[tuple[int, ...]] = []

    def spy(path: Path, stated_wh: tuple[int, int], shrink: int) -> Any:
        image, shrunk = read_annotated(path, stated_wh, shrink)
        sizes.append(image.shape)
        return image, shrunk

    images = training_images(tmp_path, augment=PLAIN)  # 320x240 into 64x64
    whole = warp_image(read_image(path, orient=False), View(np.diag([64 / 320, 64 / 240, 1]), False), images.spec.input)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mdpose_edge.train.data.read_annotated", spy)
        sample = images[0, 0]
    assert isinstance(sample, Example) and sizes == [(120, 160, 3)]
    assert np.abs(sample.sample.image.astype(int) - whole).mean() < 4
    np.testing.assert_allclose(sample.targets["keypoints_xy"][0, 0], [100 * 5 / 320, 40 * 5 / 240], rtol=1e-5)


def test_errors_survive_the_way_from_a_worker() -> None:
    error = InputError("a.jpg", expected="a whole image", got="half of one", do="copy it again")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is InputError and str(copy) == str(error) and copy.where == "a.jpg"
