"""A training input made of views of several images: people of small size, with the surroundings of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.families.base import People
from mdpose_edge.spec import InputSpec
from mdpose_edge.train.augment import Sample


@dataclass(frozen=True)
class Tile:
    """A part of the input."""

    left: int
    top: int
    spec: InputSpec
    """The tile as an input of its own."""


def mosaic_tiles(spec: InputSpec, side: int) -> list[Tile]:
    """Cut an input into side x side tiles, as equal as whole pixels allow, row by row."""
    xs, ys = (np.linspace(0, length, side + 1).astype(int).tolist() for length in (spec.width, spec.height))
    return [
        Tile(xs[i], ys[j], replace(spec, width=xs[i + 1] - xs[i], height=ys[j + 1] - ys[j]))
        for j, i in product(range(side), repeat=2)
    ]


def joined(views: Sequence[Sample], tiles: Sequence[Tile]) -> Sample:
    """Put views of the tiles' sizes together; keypoints are in pixels of the tile before, of the input after."""
    size = max(t.top + t.spec.height for t in tiles), max(t.left + t.spec.width for t in tiles)
    image = np.empty((*size, 3), np.uint8)
    for view, tile in zip(views, tiles, strict=True):
        image[tile.top : tile.top + tile.spec.height, tile.left : tile.left + tile.spec.width] = view.image
    moved = [_moved(view.people, np.array([t.left, t.top], np.float32)) for view, t in zip(views, tiles, strict=True)]
    names = [field.name for field in fields(People) if getattr(moved[0], field.name) is not None]
    together = {name: np.concatenate([getattr(people, name) for people in moved]) for name in names}
    return Sample(image, People(**together))


def _moved(people: People, by_xy: NDArray[np.float32]) -> People:
    shift = np.eye(3)
    shift[:2, 2] = by_xy
    return replace(
        people,
        keypoints_xy=people.keypoints_xy + by_xy,
        centers_xy=people.centers_xy + by_xy,
        boxes_xyxy=people.boxes_xyxy + np.tile(by_xy, 2),
        ignored_xyxy=people.ignored_xyxy + np.tile(by_xy, 2),
        cameras=None if people.cameras is None else shift @ people.cameras,
    )
