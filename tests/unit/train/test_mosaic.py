"""A mosaic: tiles without gaps, and keypoints on the pixels that they were on."""

from __future__ import annotations

import numpy as np
import pytest

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
        people = number % 3
        views.append(Sample(image, np.full((people, 2, 2), (7.5, 5.5), np.float32), np.ones((people, 2), bool)))
    whole = joined(views, tiles)
    assert whole.image.shape == (64, 96, 3) and whole.keypoints_xy.shape == (9, 2, 2) and whole.labelled.shape == (9, 2)
    x, y = whole.keypoints_xy[:, 0].astype(int).T
    assert whole.image[y, x, 0].tolist() == [101, 102, 102, 104, 105, 105, 107, 108, 108]
