"""A frame becomes network input, and coordinates find their way back.

Coordinates are continuous pixels: an image of width W spans [0, W), pixel i covers [i, i + 1) and has its centre at
i + 0.5. Resizing is then a pure scale, the same that cv2.resize applies, and a mirror is W - x.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.errors import InputError
from mdpose_edge.spec import InputSpec

MIN_SIDE = 16
"""Shortest side of a usable frame, in pixels: below it a person is smaller than one cell of the finest level."""
MAX_ASPECT = 20.0
"""Longest over shortest side of a usable frame; beyond it no resize policy leaves a person recognisable."""


@dataclass(frozen=True)
class FrameGeometry:
    """Where a frame lies in the network input; made by `preprocess`, used by its inverse."""

    scale_xy: tuple[float, float]
    """Input pixels per frame pixel."""
    offset_xy: tuple[float, float]
    """Where the frame's corner lies in the input, in input pixels."""

    def to_network(self, points_xy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map points (..., 2) from frame pixels to input pixels."""
        return points_xy * _float32(self.scale_xy) + _float32(self.offset_xy)

    def to_frame(self, points_xy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map points (..., 2) from input pixels to frame pixels; points outside the frame are kept."""
        return (points_xy - _float32(self.offset_xy)) / _float32(self.scale_xy)

    def lengths_to_frame(self, lengths_xy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map lengths along the axes (..., 2) from input pixels to frame pixels."""
        return lengths_xy / _float32(self.scale_xy)


def check_frame(frame: NDArray[np.uint8], where: str = "frame") -> None:
    """Refuse what is not a BGR image of usable size.

    Raises:
        InputError: not a uint8 array (H, W, 3), a side below MIN_SIDE, or an aspect ratio above MAX_ASPECT.
    """
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        got = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise InputError(where, expected="a uint8 array (height, width, 3), BGR", got=got, do="convert it first")
    height, width = frame.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise InputError(
            where, expected=f"sides of at least {MIN_SIDE} px", got=f"{width}x{height}", do="give a larger image"
        )
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise InputError(
            where, expected=f"sides within 1:{MAX_ASPECT:g}", got=f"{width}x{height}", do="crop the part with people"
        )


def frame_geometry(frame_wh: tuple[int, int], spec: InputSpec) -> FrameGeometry:
    """Work out where a frame of this size lies in the network input."""
    (width, height), (net_w, net_h) = frame_wh, (spec.width, spec.height)
    if spec.resize == "stretch":
        return FrameGeometry((net_w / width, net_h / height), (0.0, 0.0))
    new_w, new_h = _letterbox_wh(frame_wh, spec)
    return FrameGeometry((new_w / width, new_h / height), (float((net_w - new_w) // 2), float((net_h - new_h) // 2)))


def preprocess(
    frame: NDArray[np.uint8], spec: InputSpec, out: NDArray[np.uint8] | None = None
) -> tuple[NDArray[np.uint8], FrameGeometry]:
    """Resize a frame to the network input.

    Args:
        frame: (H, W, 3) uint8, BGR. Not modified.
        spec: size and resize policy.
        out: (spec.height, spec.width, 3) uint8 to write into, or None to allocate.

    Returns:
        The input image (spec.height, spec.width, 3) uint8 BGR, and the geometry that maps coordinates back.

    Raises:
        InputError: see `check_frame`.
    """
    check_frame(frame)
    frame_wh = (frame.shape[1], frame.shape[0])
    geometry = frame_geometry(frame_wh, spec)
    if out is None:
        out = np.empty((spec.height, spec.width, 3), np.uint8)
    if spec.resize == "stretch":
        cv2.resize(frame, (spec.width, spec.height), dst=out, interpolation=cv2.INTER_LINEAR)
        return out, geometry
    new_w, new_h = _letterbox_wh(frame_wh, spec)
    x, y = int(geometry.offset_xy[0]), int(geometry.offset_xy[1])
    out[:] = np.round(spec.mean)
    out[y : y + new_h, x : x + new_w] = cv2.resize(frame, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    return out, geometry


def _letterbox_wh(frame_wh: tuple[int, int], spec: InputSpec) -> tuple[int, int]:
    scale = min(spec.width / frame_wh[0], spec.height / frame_wh[1])
    return max(1, round(frame_wh[0] * scale)), max(1, round(frame_wh[1] * scale))


def _float32(pair: tuple[float, float]) -> NDArray[np.float32]:
    return np.asarray(pair, np.float32)
