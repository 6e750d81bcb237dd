"""Poses on pictures. This module only paints: what is worth painting was decided by the decoder's thresholds.

Cost on one core of a small server, frames of 640x480: 0.35 ms per person 300 px tall, 0.2 ms per person 120 px tall;
the ellipses of `sigma` add 1.5 ms per frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.poses import Poses
from mdpose_edge.spec import KeypointSpec

Color = tuple[int, int, int]

LEFT_BGR: Color = (0, 159, 230)
RIGHT_BGR: Color = (233, 180, 86)
CENTRE_BGR: Color = (235, 235, 235)
"""Orange, sky blue (Okabe & Ito's palette, distinct under every common colour blindness) and near white."""
BOX_BGR: tuple[Color, ...] = ((115, 158, 0), (66, 228, 240), (178, 114, 0), (0, 94, 213), (167, 121, 204))
"""Of boxes, by class: the rest of that palette, over again where there are more classes."""
OUTLINE_BGR: Color = (30, 26, 24)
"""Under every line and dot, so that it shows on light ground as well."""
SHEET_BGR: Color = (30, 26, 24)
CAPTION_BGR: Color = (225, 225, 225)

LIMB_WIDTH = 0.011
"""Of a limb, as a share of the diagonal of the person's box."""
MAX_LIMB_WIDTH = 0.008
"""Of a limb, as a share of the frame's diagonal."""
SIGMA_ALPHA = 0.4
"""Opacity of the ellipses."""

_SHIFT = 4
"""cv2 takes coordinates as integers with this many fractional bits."""
_FAR = 1e6
"""Coordinates are clipped to this many pixels, which fit cv2's integers after the shift."""
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Palette:
    """Colours of one KeypointSpec, BGR."""

    dots: tuple[Color, ...]
    """By keypoint: its side's."""
    limbs: tuple[Color, ...]
    """By pair of the skeleton."""


def draw_poses(
    frame: NDArray[np.uint8],
    poses: Poses,
    keypoints: KeypointSpec,
    *,
    sigma: bool = False,
    labels: Sequence[str] | None = None,
    classes: Sequence[str] = (),
) -> NDArray[np.uint8]:
    """Paint skeletons: the person's left orange, right blue, what joins the two white, and a label above.

        cv2.imwrite("painted.jpg", draw_poses(frame, estimator(frame), estimator.spec.keypoints, sigma=True))

    Args:
        frame: (H, W, 3) uint8, BGR. Not modified.
        poses: in pixels of the frame. A keypoint with a coordinate that is NaN is left out, and its limbs with it;
            boxes are drawn where the model itself gives them.
        keypoints: which of them are left and right, and the skeleton.
        sigma: True adds an ellipse around each keypoint whose semi-axes are one standard deviation.
        labels: what stands above each person; None: the score, after the class where `poses` have one.
        classes: names of the classes, as in `ModelSpec.classes`; without them a class is a number.

    Returns:
        A new frame of the same size.
    """
    canvas = np.ascontiguousarray(frame).copy()
    palette = palette_of(keypoints)
    if sigma and len(poses):
        _draw_sigmas(canvas, poses, palette)
    for person in reversed(range(len(poses))):  # the best score comes first, and so ends on top
        _draw_person(canvas, poses.keypoints_xy[person], keypoints, palette)
        if poses.model_boxes_xyxy is not None:
            _draw_box(
                canvas, poses.model_boxes_xyxy[person], 0 if poses.classes is None else int(poses.classes[person])
            )
    for person in reversed(range(len(poses))):
        label = _label(poses, person, classes) if labels is None else labels[person]
        seen = poses.keypoints_xy[person]
        if len(seen):
            _draw_label(canvas, seen, label)
        else:
            _draw_label(canvas, poses.boxes_xyxy[person].reshape(2, 2), label, raised=1)
    return canvas


def _label(poses: Poses, person: int, classes: Sequence[str]) -> str:
    score = f"{poses.scores[person]:.2f}"
    if poses.classes is None:
        return score
    number = int(poses.classes[person])
    return f"{classes[number] if classes else number} {score}"


def contact_sheet(
    images: Sequence[NDArray[np.uint8]],
    columns: int,
    cell_wh: tuple[int, int],
    titles: Sequence[str] | None = None,
) -> NDArray[np.uint8]:
    """Lay images out in a grid on a dark ground, each fitted into its cell with its proportions kept.

    Args:
        images: (H, W, 3) uint8, BGR, of any sizes; at least one.
        columns: cells per row.
        cell_wh: (width, height) px of a cell, without margins and caption.
        titles: a caption for each image, or None for no captions.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        ValueError: no images, or another number of titles than of images.
    """
    if not images or (titles is not None and len(titles) != len(images)):
        raise ValueError(f"expected images and one title each, got {len(images)} and {len(titles or ())}")
    cell_w, cell_h = cell_wh
    gap = max(8, cell_w // 32)
    caption_h = max(20, cell_w // 14) if titles is not None else 0
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height, width = gap + rows * (cell_h + caption_h + gap), gap + columns * (cell_w + gap)
    sheet = np.full((height, width, 3), SHEET_BGR, np.uint8)
    for index, image in enumerate(images):
        x = gap + index % columns * (cell_w + gap)
        y = gap + index // columns * (cell_h + caption_h + gap)
        _paste_fitted(sheet[y : y + cell_h, x : x + cell_w], image)
        if titles is not None:
            _draw_caption(sheet, titles[index], (x, y + cell_h), (cell_w, caption_h))
    return sheet


def palette_of(keypoints: KeypointSpec) -> Palette:
    """Return the colours of keypoints and limbs: each its side's."""
    sides = [CENTRE_BGR] * len(keypoints.names)
    for left, right in keypoints.flip_pairs:
        sides[left], sides[right] = LEFT_BGR, RIGHT_BGR
    limbs = tuple(_limb_color(sides[start], sides[end]) for start, end in keypoints.skeleton)
    return Palette(tuple(sides), limbs)


def box_color(class_index: int) -> Color:
    """Return the colour of a class's boxes, BGR."""
    return BOX_BGR[class_index % len(BOX_BGR)]


def _limb_color(start: Color, end: Color) -> Color:
    """Return the colour of a limb: its side's, where it leads to one; from left to right it is the centre's."""
    if start == CENTRE_BGR:
        return end
    return start if end in (start, CENTRE_BGR) else CENTRE_BGR


def _draw_person(
    canvas: NDArray[np.uint8], keypoints_xy: NDArray[np.float32], spec: KeypointSpec, palette: Palette
) -> None:
    seen = np.atleast_1d(np.isfinite(keypoints_xy).all(axis=1))
    if not seen.any():
        return
    width = _limb_width(keypoints_xy[seen], canvas)
    points = _fixed_point(keypoints_xy)
    limbs = [
        (points[start], points[end], color)
        for (start, end), color in zip(spec.skeleton, palette.limbs, strict=True)
        if seen[start] and seen[end]
    ]
    outline = width + max(1, width // 2)
    for start, end, _ in limbs:
        cv2.line(canvas, start, end, OUTLINE_BGR, outline, cv2.LINE_AA, _SHIFT)
    for start, end, color in limbs:
        cv2.line(canvas, start, end, color, width, cv2.LINE_AA, _SHIFT)
    radius = round(0.85 * width * 2**_SHIFT) + 2 ** (_SHIFT - 1)
    for index in np.flatnonzero(seen):
        cv2.circle(canvas, points[index], radius + 2**_SHIFT, OUTLINE_BGR, cv2.FILLED, cv2.LINE_AA, _SHIFT)
        cv2.circle(canvas, points[index], radius, palette.dots[index], cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _draw_box(canvas: NDArray[np.uint8], box_xyxy: NDArray[np.float32], class_index: int) -> None:
    if not np.isfinite(box_xyxy).all():
        return
    low, high = _fixed_point(box_xyxy.reshape(2, 2))
    width = _limb_width(box_xyxy.reshape(2, 2), canvas)
    for color, line in ((OUTLINE_BGR, 2 * width), (box_color(class_index), width)):
        cv2.rectangle(canvas, low, high, color, line, cv2.LINE_AA, _SHIFT)


def _limb_width(keypoints_xy: NDArray[np.float32], canvas: NDArray[np.uint8]) -> int:
    person = float(np.hypot(*np.ptp(keypoints_xy, axis=0)))
    frame = float(np.hypot(*canvas.shape[:2]))
    return max(1, round(min(LIMB_WIDTH * person, MAX_LIMB_WIDTH * frame)))


def _draw_sigmas(canvas: NDArray[np.uint8], poses: Poses, palette: Palette) -> None:
    overlay = canvas.copy()
    longest = float(max(canvas.shape))
    rims: list[tuple[list[int], list[int], Color]] = []
    for keypoints_xy, sigma_xy in zip(poses.keypoints_xy, poses.sigma_xy, strict=True):
        seen = np.isfinite(keypoints_xy).all(axis=1) & np.isfinite(sigma_xy).all(axis=1)
        points = _fixed_point(keypoints_xy)
        axes = (np.nan_to_num(np.clip(sigma_xy, 0, longest)) * 2**_SHIFT).round().astype(int).tolist()
        for index in np.flatnonzero(seen):
            color = palette.dots[index]
            cv2.ellipse(overlay, points[index], axes[index], 0, 0, 360, color, cv2.FILLED, cv2.LINE_AA, _SHIFT)
            rims.append((points[index], axes[index], color))
    cv2.addWeighted(overlay, SIGMA_ALPHA, canvas, 1 - SIGMA_ALPHA, 0, dst=canvas)
    for centre, axis, color in rims:  # a small ellipse lies almost wholly under its dot
        cv2.ellipse(canvas, centre, axis, 0, 0, 360, color, 1, cv2.LINE_AA, _SHIFT)


def _draw_label(canvas: NDArray[np.uint8], keypoints_xy: NDArray[np.float32], text: str, raised: float = 3) -> None:
    """Write above the uppermost keypoint, raised by so many heights of the text."""
    seen = keypoints_xy[np.isfinite(keypoints_xy).all(axis=1)]
    if not len(seen):
        return
    scale = min(0.9, max(0.35, float(np.hypot(*canvas.shape[:2])) / 2100))
    (text_w, text_h), below = cv2.getTextSize(text, _FONT, scale, 1)
    head_x, head_y = np.clip(seen[seen[:, 1].argmin()], -_FAR, _FAR)
    pad = max(2, text_h // 3)
    x = int(np.clip(head_x - text_w / 2, pad, max(pad, canvas.shape[1] - text_w - pad)))
    y = int(np.clip(head_y - raised * text_h, text_h + pad, max(text_h + pad, canvas.shape[0] - below - pad)))
    cv2.rectangle(canvas, (x - pad, y - text_h - pad), (x + text_w + pad, y + pad), OUTLINE_BGR, cv2.FILLED)
    cv2.putText(canvas, text, (x, y), _FONT, scale, CAPTION_BGR, 1, cv2.LINE_AA)


def _fixed_point(points_xy: NDArray[np.float32]) -> list[list[int]]:
    """Turn continuous pixels into cv2's fixed point, whose integers are pixel centres; NaN becomes 0."""
    centres = np.nan_to_num(np.clip(points_xy.astype(np.float64) - 0.5, -_FAR, _FAR))
    fixed: list[list[int]] = (centres * 2**_SHIFT).round().astype(int).tolist()
    return fixed


def _paste_fitted(cell: NDArray[np.uint8], image: NDArray[np.uint8]) -> None:
    scale = min(cell.shape[1] / image.shape[1], cell.shape[0] / image.shape[0])
    width, height = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    x, y = (cell.shape[1] - width) // 2, (cell.shape[0] - height) // 2
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    cell[y : y + height, x : x + width] = cv2.resize(image, (width, height), interpolation=interpolation)


def _draw_caption(sheet: NDArray[np.uint8], title: str, corner_xy: tuple[int, int], size_wh: tuple[int, int]) -> None:
    """Write a caption into a strip, smaller where it would not fit."""
    (x, y), (width, height) = corner_xy, size_wh
    scale = 0.5 * height / 20
    (text_w, _), _ = cv2.getTextSize(title, _FONT, scale, 1)
    scale *= min(1.0, width / max(1, text_w))
    cv2.putText(sheet, title, (x, y + round(0.75 * height)), _FONT, scale, CAPTION_BGR, 1, cv2.LINE_AA)
