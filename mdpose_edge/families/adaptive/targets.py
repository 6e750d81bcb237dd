"""What adaptive keypoints are to learn of an image: maps of keypoints and centres, and offsets around the centres.

Positions and lengths are in cells of stride 4; offsets are from the middle of a cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.families.adaptive.heads import STRIDE
from mdpose_edge.families.base import People
from mdpose_edge.spec import ModelSpec


@dataclass(frozen=True)
class TargetOptions:
    """Sizes, the defaults being the authors' at 512 px."""

    heat_sigma: float = 2.0
    """Cells: of the Gaussian around a keypoint."""
    centre_sigma: float = 4.0
    """Cells: of the Gaussian around a person's centre, the mean of the labelled keypoints."""
    offset_radius: float = 4.0
    """Cells: the offsets are learned in the square of cells whose middle is no farther from a centre, along x and y."""
    least_side: float = 32.0
    """px of the input: a person with a box of less than its square has no centre, only keypoints."""


def encode_people(people: People, spec: ModelSpec, options: TargetOptions) -> dict[str, NDArray[Any]]:
    """Return the targets of one image.

    `heat` (K, rows, columns) and `centre` (rows, columns): Gaussians of height 1, the highest where several overlap,
    exactly 0 away from all; `known` (rows, columns): false where people are of whom nothing is known; of each cell and
    keypoint whose offset is learned `place`, flat in (K, rows, columns), `offset` (n, 2) and `weight` (n,), 0 where a
    row is padding.
    """
    rows, columns = spec.cells(STRIDE)
    count = len(spec.keypoints.names)
    heat = np.zeros((count, rows, columns), np.float32)
    centre = np.zeros((rows, columns), np.float32)
    points = people.keypoints_xy.astype(np.float64) / STRIDE
    for person, keypoint in np.argwhere(people.labelled).tolist():
        splat(heat[keypoint], points[person, keypoint], options.heat_sigma)
    offsets = _Offsets(count, rows, columns)
    for person in _smallest_first(people):
        labelled = people.labelled[person]
        middle = points[person, labelled].mean(axis=0)
        if _is_large(people.boxes_xyxy[person], options.least_side):
            splat(centre, middle, options.centre_sigma)
            offsets.add(points[person], labelled, middle, options.offset_radius)
    return {"heat": heat, "centre": centre, "known": _known(people.ignored_xyxy, rows, columns), **offsets.arrays()}


def splat(heat: NDArray[np.float32], point: NDArray[np.float64], sigma: float) -> None:
    """Raise a map to a Gaussian around a point, in a window of three standard deviations and a cell, where it is below.

    Args:
        heat: (rows, columns), changed in place; values lie in the middle of cells.
        point: x, y in cells.
        sigma: cells.
    """
    slices, parts = [], []
    for place, size in zip((point - 0.5)[::-1].tolist(), heat.shape, strict=True):
        low, high = max(0, math.floor(place - 3 * sigma - 1)), min(size, math.ceil(place + 3 * sigma + 2))
        if low >= high:
            return
        slices.append(slice(low, high))
        parts.append(np.exp(-np.square(np.arange(low, high) - place) / (2 * sigma * sigma)))
    window = heat[tuple(slices)]
    np.maximum(window, np.outer(*parts).astype(np.float32), out=window)


def area_of(points: NDArray[np.floating]) -> float:
    """Return the square of the diagonal around labelled keypoints (n, 2), at least 1: what the authors call an area.

    They mean to: DEKR's code measures it from the image's corner.
    """
    sides = points.max(axis=0) - points.min(axis=0)
    return max(1.0, float(np.square(sides).sum()))


class _Offsets:
    """Offsets by cell and keypoint, of the first person that claims each."""

    def __init__(self, count: int, rows: int, columns: int) -> None:
        self._taken = np.zeros((count, rows, columns), np.bool_)
        self._parts: list[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]] = []

    def add(
        self, points: NDArray[np.float64], labelled: NDArray[np.bool_], middle: NDArray[np.float64], radius: float
    ) -> None:
        """Claim the square around a person's centre for the labelled ones of the keypoints (K, 2), cells."""
        _, rows, columns = self._taken.shape
        size = (columns, rows)
        left, top = np.clip(np.ceil(middle - radius - 0.5), 0, size).astype(int).tolist()
        right, bottom = np.clip(np.floor(middle + radius + 0.5), 0, size).astype(int).tolist()
        y, x = np.mgrid[top:bottom, left:right].reshape(2, -1)
        keypoints = np.flatnonzero(labelled)
        free = ~self._taken[keypoints[:, None], y, x]
        self._taken[keypoints[:, None], y, x] = True
        which, cell = np.nonzero(free)
        keypoint = keypoints[which]
        place = keypoint * (rows * columns) + y[cell] * columns + x[cell]
        offset = points[keypoint] - (np.stack([x[cell], y[cell]], axis=1) + 0.5)
        weight = 1.0 / math.sqrt(area_of(points[labelled] * STRIDE))
        self._parts.append((place, offset.astype(np.float32), np.full(len(place), weight, np.float32)))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all that was claimed: see encode_people."""
        parts = [*self._parts, (np.zeros(0, np.int64), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))]
        return {
            name: np.concatenate(arrays)
            for name, arrays in zip(("place", "offset", "weight"), zip(*parts, strict=True), strict=True)
        }


def _smallest_first(people: People) -> list[int]:
    """Return who has labelled keypoints, those of small area first: where two overlap, the smaller one is in front."""
    known = np.flatnonzero(people.labelled.any(axis=1)).tolist()
    return sorted(known, key=lambda person: area_of(people.keypoints_xy[person, people.labelled[person]]))


def _is_large(box_xyxy: NDArray[np.floating], side: float) -> bool:
    return float(np.prod(box_xyxy[2:] - box_xyxy[:2])) >= side * side


def _known(ignored_xyxy: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.bool_]:
    known = np.ones((rows, columns), np.bool_)
    x, y = np.arange(columns) + 0.5, np.arange(rows) + 0.5
    for left, top, right, bottom in (ignored_xyxy / STRIDE).tolist():
        known[np.ix_((top <= y) & (y <= bottom), (left <= x) & (x <= right))] = False
    return known
