"""A mosaic: tiles without gaps, and keypoints on the pixels that they were on."""

from __future__ import annotations

import numpy as np
import pytest

from mdpose_edge.families.base import People
from mdpose_edge.spec import InputSpec
from mdpose_edge.train.augment import Sample
from mdpose_edge.train.mosaic import joined, mosaic_tiles


@pytest.mark.parametrize("side", [2, 3, 5])
def test_tiles_cover_the_input_once(side: int) -> None:
    covered = np.zeros((64, 96), int)
    for tile in mosaic_tiles(InputSpec(64, 96), side):
        covered[tile.top : tile.top + tile.spec.height, tile.left : tile.left + tile.spec.width] += 1
    assert (covered == 1).all()


def test_keypoints_stay_on_their_pixels() -> None:
    tiles = mosaic_tiles(InputSpec(64, 96), 3)
    views = []
    for number, tile in enumerate(tiles):
        image = np.zeros((tile.spec.height, tile.spec.width, 3), np.uint8)
        image[5, 7] = 100 + number
        count = number % 3
        points = np.full((count, 2, 2), (7.5, 5.5), np.float32)
        boxes = np.tile(np.float32([7, 5, 8, 6]), (count, 1))
        views.append(Sample(image, People(points, np.ones((count, 2), bool), points[:, 0], boxes)))
    whole = joined(views, tiles)
    people = whole.people
    assert whole.image.shape == (64, 96, 3) and people.keypoints_xy.shape == (9, 2, 2)
    assert people.labelled.shape == (9, 2)
    for x, y in (
        people.keypoints_xy[:, 0].astype(int).T,
        people.centers_xy.astype(int).T,
        people.boxes_xyxy[:, :2].astype(int).T,
    ):
        assert whole.image[y, x, 0].tolist() == [101, 102, 102, 104, 105, 105, 107, 108, 108]
