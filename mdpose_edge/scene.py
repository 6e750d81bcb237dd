"""People in three dimensions as seen from elsewhere: a panel beside the picture, for models that know metres."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.draw import CAPTION_BGR, SHEET_BGR, palette_of
from mdpose_edge.poses import Poses
from mdpose_edge.spec import KeypointSpec

PANEL_ASPECT = 0.8
"""Width of the panel over its height."""
YAW_DEG, PITCH_DEG = 35.0, 25.0
"""From where people are seen: turned about the vertical, then from above; 0, 0 is the camera's own view, 90 of pitch a
plan."""
MARGIN = 0.1
"""Of the panel, around what is shown."""
GRID_BGR = (70, 64, 60)
LEAST_EXTENT_M = 2.0
"""What the panel shows at least, so that a single person does not fill it."""
MOST_LINES = 40
"""Of the floor's grid, along each axis; lines are 1 m apart, or more where there would be more."""
FARTHEST_M = 1e4
"""Joints beyond it are not drawn."""
_SHIFT = 4


def beside(painted: NDArray[np.uint8], poses: Poses, keypoints: KeypointSpec) -> NDArray[np.uint8]:
    """Return a painted picture with the panel to its right; as it is where the poses have no third dimension."""
    if poses.keypoints_3d is None:
        return painted
    height = painted.shape[0]
    return np.hstack([painted, draw_scene(poses, keypoints, (panel_width(height), height))])


def panel_width(height: int) -> int:
    """Return the width of the panel beside a picture; even, as video codecs want it."""
    return max(2, 2 * round(PANEL_ASPECT * height / 2))


def draw_scene(
    poses: Poses,
    keypoints: KeypointSpec,
    size_wh: tuple[int, int],
    *,
    yaw_deg: float = YAW_DEG,
    pitch_deg: float = PITCH_DEG,
) -> NDArray[np.uint8]:
    """Paint people from the side or from above, over a floor with lines a metre apart.

    Args:
        poses: with `keypoints_3d`.
        keypoints: which of them are left and right, and the skeleton.
        size_wh: of the panel, px.
        yaw_deg: see YAW_DEG.
        pitch_deg: likewise.

    Returns:
        (H, W, 3) uint8, BGR.
    """
    assert poses.keypoints_3d is not None
    panel = np.full((size_wh[1], size_wh[0], 3), SHEET_BGR, np.uint8)
    joints = poses.keypoints_3d.astype(np.float64)
    joints = joints[(np.abs(joints) < FARTHEST_M).all(axis=(1, 2))]
    if not len(joints):
        return panel
    turn = _rotation(yaw_deg, pitch_deg)
    middle = (joints.reshape(-1, 3).min(axis=0) + joints.reshape(-1, 3).max(axis=0)) / 2
    seen = (joints - middle) @ turn.T
    extent = np.maximum(2 * np.abs(seen[..., :2]).reshape(-1, 2).max(axis=0), LEAST_EXTENT_M)
    scale = float(((1 - 2 * MARGIN) * np.array(size_wh) / extent).min())
    _draw_floor(panel, joints, middle, turn, scale)
    width = max(1, round(0.03 * scale))
    palette = palette_of(keypoints)
    for person in np.argsort(-seen[..., 2].mean(axis=1)):  # the nearest last, and so on top
        points = _pixels(seen[person], scale, size_wh)
        for (start, end), color in zip(keypoints.skeleton, palette.limbs, strict=True):
            cv2.line(panel, points[start], points[end], color, width, cv2.LINE_AA, _SHIFT)
        for point, color in zip(points, palette.dots, strict=True):
            cv2.circle(panel, point, width << _SHIFT, color, cv2.FILLED, cv2.LINE_AA, _SHIFT)
    if not poses.metric:
        text_scale = max(0.35, size_wh[1] / 1000)
        at = (round(0.03 * size_wh[0]), size_wh[1] - round(0.03 * size_wh[1]))
        cv2.putText(panel, "camera guessed: not to scale", at, cv2.FONT_HERSHEY_SIMPLEX, text_scale, CAPTION_BGR, 1)
    return panel


def _rotation(yaw_deg: float, pitch_deg: float) -> NDArray[np.float64]:
    """Return the rotation from the camera's axes to the panel's: to the right, down, away."""
    yaw, pitch = math.radians(yaw_deg), math.radians(pitch_deg)
    about_y = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]])
    return np.asarray(about_x @ about_y)


def _draw_floor(
    panel: NDArray[np.uint8],
    joints: NDArray[np.float64],
    middle: NDArray[np.float64],
    turn: NDArray[np.float64],
    scale: float,
) -> None:
    """Draw lines a metre apart at the height of the lowest joint."""
    size_wh = (panel.shape[1], panel.shape[0])
    low, high = joints.reshape(-1, 3).min(axis=0), joints.reshape(-1, 3).max(axis=0)
    floor = high[1]
    step = max(1, math.ceil((high - low).max() / MOST_LINES))
    x0, z0 = (math.floor(value / step) * step for value in (low[0], low[2]))
    x1, z1 = (math.ceil(value / step) * step for value in (high[0], high[2]))
    lines = [((x, floor, z0), (x, floor, z1)) for x in range(x0, x1 + 1, step)]
    lines += [((x0, floor, z), (x1, floor, z)) for z in range(z0, z1 + 1, step)]
    for line in lines:
        start, end = _pixels((np.array(line) - middle) @ turn.T, scale, size_wh)
        cv2.line(panel, start, end, GRID_BGR, 1, cv2.LINE_AA, _SHIFT)


def _pixels(points: NDArray[np.float64], scale: float, size_wh: tuple[int, int]) -> list[list[int]]:
    """Return points (N, 3) of the panel's axes in its pixels, as cv2's fixed point."""
    placed = points[:, :2] * scale + np.array(size_wh) / 2 - 0.5
    fixed: list[list[int]] = (np.clip(placed, -1e6, 1e6) * 2**_SHIFT).round().astype(int).tolist()
    return fixed
