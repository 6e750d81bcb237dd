"""Random views of a training image, as one affine map and one warp.

Rotation, expansion, crop, flip and resize (in the paper's order) are composed into a single matrix, so that each image
is resampled once, from no more pixels than the view can show. Coordinates are continuous pixels throughout (see
geometry.py). Measured in docs/measurements.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.camera import Camera
from mdpose_edge.families.base import People
from mdpose_edge.preprocess import frame_geometry
from mdpose_edge.spec import InputSpec, KeypointSpec
from mdpose_edge.train.config import AugmentConfig

Matrix = NDArray[np.float64]

CROP_TRIES = 20
"""Random crops drawn before the whole canvas is taken instead."""
MIN_CROP_ASPECT = 0.5
"""Least height over width of a crop, as in the paper's code."""
LEAST_SHOWN = 0.05
"""Share of a box that a view must show for the person to count as in it, where people may be cut off."""
REDUCTIONS = (8, 4, 2)
"""What a JPEG can be shrunk by while it is decoded, coarsest first."""
LEAST_REDUCED_SIDE = 64
"""px: a picture that is small already is decoded whole."""


@dataclass(frozen=True)
class Steps:
    """What chance decided, step by step in the paper's order; the resize to the input follows."""

    rotation: Matrix
    """(3, 3), image pixels to image pixels."""
    canvas: tuple[float, float, float, float]
    """The expanded image: left, top (at most 0), width and height, image pixels."""
    crop: tuple[float, float, float, float]
    """Likewise, within the canvas."""
    flipped: bool


@dataclass(frozen=True)
class View:
    """Where the network looks in an image."""

    matrix: Matrix
    """(3, 3), image pixels to input pixels."""
    flipped: bool


@dataclass(frozen=True)
class Sample:
    """One augmented image; see data.Batch."""

    image: NDArray[np.uint8]
    people: People


def random_view(
    rng: np.random.Generator,
    image_wh: tuple[int, int],
    anchors_xy: NDArray[np.floating],
    input_spec: InputSpec,
    config: AugmentConfig,
) -> View:
    """Draw a view of an image; arguments as of `random_steps`, and the network input to fill."""
    return compose(random_steps(rng, image_wh, anchors_xy, config), input_spec)


def random_steps(
    rng: np.random.Generator, image_wh: tuple[int, int], anchors_xy: NDArray[np.floating], config: AugmentConfig
) -> Steps:
    """Draw the steps of a view.

    Args:
        rng: the only source of chance.
        image_wh: size of the image, px.
        anchors_xy: (P, 2) a point of each person, as a rule the box's centre; a crop shows one of them at least, if
            there are any.
        config: ranges and probabilities.
    """
    width, height = image_wh
    rotation = _rotation(rng, width, height, config)
    canvas = _expansion(rng, width, height, config)
    crop = _crop(rng, canvas, _apply(rotation, anchors_xy), config)
    return Steps(rotation, canvas, crop, bool(rng.random() < config.flip_prob))


def compose(steps: Steps, input_spec: InputSpec) -> View:
    """Fuse the steps and the resize to the input into one map."""
    x, y, crop_w, crop_h = steps.crop
    geometry = frame_geometry((max(1, round(crop_w)), max(1, round(crop_h))), input_spec)
    to_input = _translation(*geometry.offset_xy) @ np.diag([*geometry.scale_xy, 1.0]) @ _translation(-x, -y)
    matrix = to_input @ steps.rotation
    if steps.flipped:
        mirror = np.diag([-1.0, 1.0, 1.0])
        mirror[0, 2] = input_spec.width
        matrix = mirror @ matrix
    return View(matrix, steps.flipped)


def reduction(view: View, image_wh: tuple[int, int]) -> int:
    """Say by how much an image may be shrunk before a view is taken: 1, 2, 4 or 8.

    No direction of the view is magnified by it, so that nothing the view could show is lost.
    """
    largest_scale = float(np.linalg.norm(view.matrix[:2, :2], 2))
    fits = (r for r in REDUCTIONS if largest_scale * r <= 1 and min(image_wh) >= r * LEAST_REDUCED_SIDE)
    return next(fits, 1)


def warp_image(image: NDArray[np.uint8], view: View, input_spec: InputSpec, shrunk: int = 1) -> NDArray[np.uint8]:
    """Resample an image into the network input; the outside takes its mean colour.

    Args:
        image: (H, W, 3).
        view: of the image in its full size.
        input_spec: the network input.
        shrunk: by how much the image was shrunk when it was decoded.

    Returns:
        (height, width, 3).
    """
    # warpAffine counts from pixel centres, we from pixel corners: shift by half a pixel on both sides.
    matrix = _translation(-0.5, -0.5) @ view.matrix @ np.diag([shrunk, shrunk, 1.0]) @ _translation(0.5, 0.5)
    fill = (*cv2.mean(image)[:3], 255.0)
    # OpenCV warps four channels in a little over half of the time that it takes for three, padding included.
    padded = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
    size = (input_spec.width, input_spec.height)
    warped = cv2.warpAffine(padded, matrix[:2], size, flags=cv2.INTER_LINEAR, borderValue=fill)
    return np.asarray(cv2.cvtColor(warped, cv2.COLOR_BGRA2BGR), np.uint8)


def warp_people(
    keypoints: NDArray[np.float32],
    boxes_xywh: NDArray[np.floating],
    view: View,
    input_spec: InputSpec,
    spec: KeypointSpec,
    *,
    centers_xy: NDArray[np.floating] | None = None,
    box_suffices: bool = False,
    classes: NDArray[np.int64] | None = None,
    keypoints_3d: NDArray[np.floating] | None = None,
    camera: Camera | None = None,
    ignored_xywh: NDArray[np.floating] | None = None,
) -> People:
    """Map persons into the view.

    Args:
        keypoints: (P, K, 3) x, y in image pixels, and COCO's v.
        boxes_xywh: (P, 4) image pixels.
        view: where the network looks.
        input_spec: the network input.
        spec: which keypoints trade places in a mirror.
        centers_xy: (P, 2) image pixels, or None for the middles of the boxes.
        box_suffices: keep people of whom the view shows the centre, but no labelled keypoint.
        classes: (P,) what the boxes are of, where they are not all people.
        keypoints_3d: (P, K, 3) metres, where they are known.
        camera: of the image, where it is known.
        ignored_xywh: (R, 4) image pixels, boxes around whom nothing is known; or None.

    Returns:
        The persons whose centre and, as a rule, at least one labelled keypoint the view shows.
    """
    size = np.array((input_spec.width, input_spec.height))
    centers = boxes_xywh[:, :2] + boxes_xywh[:, 2:] / 2 if centers_xy is None else centers_xy
    points = _apply(view.matrix, np.concatenate([keypoints[:, :, :2], centers[:, None]], axis=1))
    inside = np.asarray(((points >= 0) & (points < size)).all(axis=2))
    points, centers, labelled = points[:, :-1], points[:, -1], (keypoints[:, :, 2] > 0) & inside[:, :-1]
    order = np.arange(points.shape[1])
    if view.flipped:
        for left, right in spec.flip_pairs:
            order[[left, right]] = right, left
        points, labelled = points[:, order], labelled[:, order]
    boxes = _cut_boxes(boxes_xywh, view, size)
    ignored = _cut_boxes(np.zeros((0, 4)) if ignored_xywh is None else ignored_xywh, view, size).astype(np.float32)
    shown = inside[:, -1] & (labelled.any(axis=1) | box_suffices)
    points_shown, centers_shown, boxes_shown = (v[shown].astype(np.float32) for v in (points, centers, boxes))
    classes_shown = None if classes is None else classes[shown]
    people = People(points_shown, labelled[shown], centers_shown, boxes_shown, classes_shown, ignored_xyxy=ignored)
    if keypoints_3d is None:
        return people
    joints = keypoints_3d[shown][:, order].astype(np.float32)
    return replace(people, keypoints_3d=joints, cameras=np.tile(_warped_camera(camera, view), (len(joints), 1, 1)))


def _warped_camera(camera: Camera | None, view: View) -> Matrix:
    """Return what maps metres in the camera's axes to homogeneous pixels of the network input, (3, 3)."""
    if camera is None:
        return np.full((3, 3), np.nan)
    intrinsic = np.array([[camera.fx, 0.0, camera.cx], [0.0, camera.fy, camera.cy], [0.0, 0.0, 1.0]])
    to_view: Matrix = view.matrix @ intrinsic
    return to_view


def clipped_centers(boxes_xywh: NDArray[np.floating], view: View, input_spec: InputSpec) -> NDArray[np.float64]:
    """Return the centre of what a view shows of each box, in image pixels.

    Where it shows less than `LEAST_SHOWN`, the centre of the whole box.

    Args:
        boxes_xywh: (P, 4) image pixels.
        view: where the network looks.
        input_spec: the network input.

    Returns:
        (P, 2) image pixels.
    """
    low, high = _warped_boxes(boxes_xywh, view)
    low_cut, high_cut = (np.clip(edge, 0, (input_spec.width, input_spec.height)) for edge in (low, high))
    area, area_cut = (np.prod(b - a, axis=1) for a, b in ((low, high), (low_cut, high_cut)))
    shown = (area_cut >= LEAST_SHOWN * area)[:, None]
    middle = np.where(shown, low_cut + high_cut, low + high) / 2
    return _apply(np.linalg.inv(view.matrix).astype(np.float64), middle)


def _cut_boxes(boxes_xywh: NDArray[np.floating], view: View, size: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the upright boxes (P, 4) around mapped ones, cut at the view's edge."""
    low, high = _warped_boxes(boxes_xywh, view)
    return np.concatenate([np.clip(low, 0, size), np.clip(high, 0, size)], axis=1)


def _warped_boxes(boxes_xywh: NDArray[np.floating], view: View) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the corners (P, 2) of the upright boxes around mapped ones, input pixels."""
    low, high = boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]
    corners = np.stack([low, np.stack([high[:, 0], low[:, 1]], 1), high, np.stack([low[:, 0], high[:, 1]], 1)], 1)
    seen = _apply(view.matrix, corners.astype(np.float64))
    return seen.min(axis=1), seen.max(axis=1)


def _rotation(rng: np.random.Generator, width: int, height: int, config: AugmentConfig) -> Matrix:
    angle = rng.uniform(-config.rotation_deg, config.rotation_deg)
    if rng.random() >= config.rotation_prob:
        return np.eye(3)
    rotation = np.eye(3)
    rotation[:2] = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    return rotation


def _expansion(
    rng: np.random.Generator, width: int, height: int, config: AugmentConfig
) -> tuple[float, float, float, float]:
    ratio = rng.uniform(1.0, config.expand)
    left, top = rng.random(2)
    if rng.random() >= config.expand_prob:
        return 0.0, 0.0, float(width), float(height)
    grown_w, grown_h = width * ratio, height * ratio
    return -left * (grown_w - width), -top * (grown_h - height), grown_w, grown_h


def _crop(
    rng: np.random.Generator,
    canvas: tuple[float, float, float, float],
    centers: NDArray[np.float64],
    config: AugmentConfig,
) -> tuple[float, float, float, float]:
    left, top, width, height = canvas
    if rng.random() >= config.crop_prob:
        return canvas
    for _ in range(CROP_TRIES):
        crop_w, crop_h = rng.uniform(config.crop_min, config.crop_max, 2) * (width, height)
        x, y = (left, top) + rng.random(2) * (width - crop_w, height - crop_h)
        if crop_h < MIN_CROP_ASPECT * crop_w:
            continue
        seen = ((centers > (x, y)) & (centers < (x + crop_w, y + crop_h))).all(axis=1)
        if seen.any() or not len(centers):
            return x, y, crop_w, crop_h
    return canvas


def _translation(x: float, y: float) -> Matrix:
    matrix = np.eye(3)
    matrix[:2, 2] = x, y
    return matrix


def _apply(matrix: Matrix, points: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(points @ matrix[:2, :2].T + matrix[:2, 2])
