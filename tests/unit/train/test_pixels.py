"""What training does to pixels: each kind of change is the one it is called, and none draws chance unasked."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge.families.base import People
from mdpose_edge.train.config import AugmentConfig
from mdpose_edge.train.pixels import change_pixels

POINTS = np.array([[[40.0, 30.0], [80.0, 90.0]]], np.float32)


def people_at(points: NDArray[np.float32]) -> People:
    """People of two keypoints, whose boxes are around these."""
    boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    return People(points, np.ones(points.shape[:2], bool), points.mean(axis=1), boxes)


PEOPLE = people_at(POINTS)


def picture() -> NDArray[np.uint8]:
    clouds = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    return np.asarray(cv2.resize(clouds, (128, 128), interpolation=cv2.INTER_CUBIC), np.uint8)


def changed(seed: int = 0, points: NDArray[np.float32] = POINTS, **probabilities: Any) -> NDArray[np.uint8]:
    return change_pixels(np.random.default_rng(seed), picture(), people_at(points), AugmentConfig(**probabilities))


def sharpness(image: NDArray[np.uint8]) -> float:
    return float(
        np.abs(np.diff(image.astype(float), axis=0)).mean() + np.abs(np.diff(image.astype(float), axis=1)).mean()
    )


def test_nothing_is_changed_and_no_chance_drawn_unasked() -> None:
    rng = np.random.default_rng(5)
    assert np.array_equal(change_pixels(rng, picture(), PEOPLE, AugmentConfig()), picture())
    assert rng.random() == np.random.default_rng(5).random()


@pytest.mark.parametrize("key", ["colour_prob", "dark_prob", "grey_prob", "blur_prob", "erase_prob"])
def test_same_chance_same_change_and_the_input_is_left_alone(key: str) -> None:
    image = picture()
    one, two = (change_pixels(np.random.default_rng(1), image, PEOPLE, AugmentConfig(**{key: 1.0})) for _ in range(2))
    assert np.array_equal(one, two) and one.dtype == np.uint8 and one.shape == image.shape
    assert not np.array_equal(one, image) and np.array_equal(image, picture())


@pytest.mark.parametrize("seed", range(4))
def test_each_change_is_the_one_it_is_called(seed: int) -> None:
    grey = changed(seed, grey_prob=1.0)
    assert (grey == grey[..., :1]).all()
    assert changed(seed, dark_prob=1.0).mean() < 0.6 * picture().mean()
    assert sharpness(changed(seed, blur_prob=1.0)) < sharpness(picture())


@pytest.mark.parametrize("seed", range(8))
def test_a_rectangle_hides_part_of_a_person_and_nothing_else(seed: int) -> None:
    differs = (changed(seed, erase_prob=1.0) != picture()).any(axis=2)
    outside = differs.copy()
    outside[30:90, 40:80] = False
    assert differs.any() and not outside.any()
    assert differs.sum() <= 0.25 * 60 * 40


def test_nobody_is_hidden_where_nobody_is() -> None:
    assert np.array_equal(changed(points=np.empty((0, 2, 2), np.float32), erase_prob=1.0), picture())
