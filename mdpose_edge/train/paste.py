"""People cut out of other pictures and pasted into a view: poses, sizes and neighbours that its own does not have."""

from __future__ import annotations

from dataclasses import fields

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.datasets.cutouts import CutOut
from mdpose_edge.families.base import People
from mdpose_edge.spec import InputSpec
from mdpose_edge.train.augment import Sample, View
from mdpose_edge.train.config import AugmentConfig

MOST_PASTED = 3
HEIGHT = (0.15, 1.1)
"""Of the person's box, shares of the view's height, uniform in the logarithm."""
ASPECT = (0.75, 1.3)
"""Factor on the width, as stretched inputs have it."""
LARGEST_SCALE = 2.5
"""A cut-out is magnified by no more: it would be a blur."""
HIDDEN_SHARE = 0.75
"""Of whose box so much is covered is not counted as in the view."""
SUBPIXEL_BITS = 4
"""Of cv2.fillPoly's coordinates."""


def paste_view(
    rng: np.random.Generator, box_xywh: NDArray[np.floating], spec: InputSpec, config: AugmentConfig, *, at_bottom: bool
) -> View:
    """Draw where a cut-out comes to lie: its size, place, mirror image and rotation.

    Args:
        rng: the only source of chance.
        box_xywh: (4,) around the person, px of the picture.
        spec: the network input.
        config: the range of rotation, and the chance of a mirror image.
        at_bottom: the person goes on below the box, and so stands at the view's lower edge, upright.
    """
    x, y, width, height = np.asarray(box_xywh, np.float64)
    share, aspect = np.exp(rng.uniform(*np.log(HEIGHT))), np.exp(rng.uniform(*np.log(ASPECT)))
    scale = min(share * spec.height / height, LARGEST_SCALE)
    flipped = bool(rng.random() < config.flip_prob)
    angle = rng.uniform(-config.rotation_deg, config.rotation_deg) * (rng.random() < config.rotation_prob)
    to_x, to_y = rng.random(2) * (spec.width, spec.height)
    if at_bottom:
        angle, to_y = 0.0, spec.height - scale * height / 2
    grow = np.diag([scale * aspect * (-1 if flipped else 1), scale, 1.0])
    turn = np.eye(3)
    turn[:2] = cv2.getRotationMatrix2D((0.0, 0.0), angle, 1.0)
    matrix = _moved(to_x, to_y) @ turn @ grow @ _moved(-x - width / 2, -y - height / 2)
    return View(matrix, flipped)


def cover(cut_out: CutOut, view: View, spec: InputSpec) -> NDArray[np.float32]:
    """Return how much a cut-out covers each pixel of the view, (height, width) in [0, 1], soft at its edge."""
    mask = np.zeros((spec.height, spec.width), np.uint8)
    for polygon in cut_out.polygons:
        points = polygon @ view.matrix[:2, :2].T + view.matrix[:2, 2] - 0.5  # fillPoly counts from pixel centres
        fixed = np.clip(points * 2**SUBPIXEL_BITS, -(2**24), 2**24).round().astype(np.int32)
        cv2.fillPoly(mask, [fixed], 255, shift=SUBPIXEL_BITS)
    return cv2.GaussianBlur(mask, (3, 3), 0).astype(np.float32) / 255.0


def pasted(below: Sample, above: Sample, covered: NDArray[np.float32]) -> Sample:
    """Paste a view onto another.

    Args:
        below: what is partly covered.
        above: the view of the cut-out's picture, with the cut-out alone as its people.
        covered: (H, W) in [0, 1], see `cover`.

    Returns:
        Both views' people; of those below, what is covered is not labelled, and whoever hardly shows is left out.
    """
    share = covered[..., None]
    image = (below.image * (1 - share) + above.image * share).round().astype(np.uint8)
    people = below.people
    shown = np.array([_share(covered, box) < HIDDEN_SHARE for box in people.boxes_xyxy], np.bool_)
    rows, columns = (people.keypoints_xy[..., axis].astype(int) for axis in (1, 0))
    limits = covered.shape[0] - 1, covered.shape[1] - 1
    hidden = covered[np.clip(rows, 0, limits[0]), np.clip(columns, 0, limits[1])] > 0.5
    given = {field.name: getattr(people, field.name) for field in fields(People)}
    values = {name: value for name, value in given.items() if value is not None}
    values["labelled"] = people.labelled & ~hidden
    regions = values.pop("ignored_xyxy")  # not of those people
    kept = {name: np.concatenate([value[shown], getattr(above.people, name)]) for name, value in values.items()}
    return Sample(image, People(**kept, ignored_xyxy=np.concatenate([regions, above.people.ignored_xyxy])))


def _share(covered: NDArray[np.float32], box_xyxy: NDArray[np.float32]) -> float:
    left, top, right, bottom = box_xyxy.round().astype(int)
    part = covered[top : max(bottom, top + 1), left : max(right, left + 1)]
    return float(part.mean()) if part.size else 0.0


def _moved(x: float, y: float) -> NDArray[np.float64]:
    matrix = np.eye(3)
    matrix[:2, 2] = x, y
    return matrix
