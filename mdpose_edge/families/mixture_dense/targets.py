"""What mixture dense regression is to learn of an image: maps of centres and keypoints, and values at people's centres.

Positions and lengths are in cells of stride 4; offsets are from the centre of a cell.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.families.base import People
from mdpose_edge.families.mixture_dense.heads import STRIDE, constants_of
from mdpose_edge.spec import ModelSpec

Radius = Literal["published", "exact"]
LEAST_IOU = 0.7
"""Of a box and the same shifted by the radius."""


def encode_people(people: People, spec: ModelSpec, radius: Radius) -> dict[str, NDArray[Any]]:
    """Return the targets of one image of P people whose box has an area in it.

    `centre` (rows, columns): 1 at the cells that hold a box's centre, around it a Gaussian; `cell` (P,): the flat index
    of that cell; `offset`, `size` (P, 2): of the box; `keypoints` (P, K, 2) and `labelled` (P, K); `person_mask` (P,),
    false where a row is padding. With heat maps `heat` (K, rows, columns), `heat_cell` (P, K), `heat_offset` (P, K, 2).
    """
    targets, cells, radii, shown = _boxes(people, spec, radius, 1)
    labelled = people.labelled[shown]
    points = np.where(labelled[..., None], people.keypoints_xy[shown] / np.float32(STRIDE), 0.0).astype(np.float32)
    targets |= {
        "centre": targets["centre"][0],
        "keypoints": np.where(labelled[..., None], points - _centers(cells)[:, None], np.float32(0.0)),
        "labelled": labelled,
    }
    if constants_of(spec).heatmaps:
        targets |= _heat_targets(points, labelled, radii, spec.cells(STRIDE))
    return targets


def encode_boxes(people: People, spec: ModelSpec, radius: Radius) -> dict[str, NDArray[Any]]:
    """Return the targets of one image of P boxes that have an area in it.

    `centre` (C, rows, columns): a map for each class; `cell`, `offset`, `size` and `person_mask` as of `encode_people`.
    """
    return _boxes(people, spec, radius, len(spec.classes))[0]


def _boxes(
    people: People, spec: ModelSpec, radius: Radius, num_classes: int
) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64], list[int], NDArray[np.bool_]]:
    """Return what boxes are to be learned of, their cells (P, 2), the radii of their blobs, and who has an area."""
    rows, columns = spec.cells(STRIDE)
    boxes = people.boxes_xyxy / np.float32(STRIDE)
    shown = np.asarray((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    boxes = boxes[shown]
    classes = np.zeros(len(boxes), np.int64) if people.classes is None else people.classes[shown]
    size = boxes[:, 2:] - boxes[:, :2]
    middle: NDArray[np.float32] = boxes.reshape(-1, 2, 2).mean(axis=1)
    cells = _cells(middle, rows, columns)
    radii = [int(gaussian_radius(math.ceil(h), math.ceil(w), radius)) for w, h in size.tolist()]
    targets: dict[str, NDArray[Any]] = {
        "centre": np.zeros((num_classes, rows, columns), np.float32),
        "cell": cells[:, 1] * columns + cells[:, 0],
        "offset": middle - _centers(cells),
        "size": size,
        "person_mask": np.ones(len(boxes), np.bool_),
    }
    for number, (column, row), reach in zip(classes.tolist(), cells.tolist(), radii, strict=True):
        splat(targets["centre"][number], column, row, reach)
    return targets, cells, radii, shown


def gaussian_radius(height: float, width: float, kind: Radius) -> float:
    """Return how far a box may be shifted for an IoU of at least 0.7 with itself, in the unit of its sides.

    It is the least of three roots: of the box shifted, grown and shrunk.

    Args:
        height: of the box.
        width: likewise.
        kind: "exact", or "published": CornerNet's code and all that descends from it take other roots of the same
            equations, 0.27 of a square's side in place of 0.08, and published figures were got with these.
    """
    o, total, area = LEAST_IOU, height + width, height * width
    equations = (
        (1.0, total, area * (1 - o) / (1 + o)),
        (4.0, 2 * total, area * (1 - o)),
        (4 * o, -2 * o * total, (o - 1) * area),
    )
    if kind == "published":
        return min((b + math.sqrt(b * b - 4 * a * c)) / 2 for a, b, c in equations)
    shifted, inside, outside = ((b, math.sqrt(b * b - 4 * a * c)) for a, b, c in equations)
    return min((shifted[0] - shifted[1]) / 2, (inside[0] - inside[1]) / 8, (outside[0] + outside[1]) / (8 * o))


def splat(heat: NDArray[np.float32], column: int, row: int, radius: int) -> None:
    """Raise a map to a Gaussian around a cell, where it is below; the cell becomes 1, and beyond the radius is nothing.

    Args:
        heat: (rows, columns), changed in place.
        column: of the cell.
        row: likewise.
        radius: cells; the standard deviation is a sixth of the diameter 2 radius + 1.
    """
    top, bottom = max(0, row - radius), min(len(heat), row + radius + 1)
    left, right = max(0, column - radius), min(heat.shape[1], column + radius + 1)
    y = np.arange(top, bottom, dtype=np.float32) - row
    x = np.arange(left, right, dtype=np.float32) - column
    twice_variance = 2.0 * ((2 * radius + 1) / 6) ** 2
    kernel = np.exp(-(y * y)[:, None] / twice_variance - x * x / twice_variance).astype(np.float32)
    np.maximum(heat[top:bottom, left:right], kernel, out=heat[top:bottom, left:right])


def _heat_targets(
    points: NDArray[np.float32], labelled: NDArray[np.bool_], radii: list[int], shape: tuple[int, int]
) -> dict[str, NDArray[Any]]:
    heat = np.zeros((points.shape[1], *shape), np.float32)
    cells = _cells(points, *shape)
    for person, keypoint in np.argwhere(labelled).tolist():
        column, row = cells[person, keypoint].tolist()
        splat(heat[keypoint], column, row, radii[person])
    return {
        "heat": heat,
        "heat_cell": cells[..., 1] * shape[1] + cells[..., 0],
        "heat_offset": points - _centers(cells),
    }


def _cells(points: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.int64]:
    """Return the cells (..., column and row) that hold points; one on the far edge is in the last."""
    return np.clip(np.floor(points).astype(np.int64), 0, (columns - 1, rows - 1))


def _centers(cells: NDArray[np.int64]) -> NDArray[np.float32]:
    return cells.astype(np.float32) + np.float32(0.5)
