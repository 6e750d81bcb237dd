"""A frame becomes network input; how coordinates find their way back is in geometry.py."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.errors import InputError
from mdpose_edge.geometry import FrameGeometry, frame_geometry, letterbox_wh
from mdpose_edge.spec import InputSpec

__all__ = ["MAX_ASPECT", "MIN_SIDE", "FrameGeometry", "check_frame", "frame_geometry", "preprocess"]

MIN_SIDE = 16
"""Shortest side of a usable frame, in pixels: below it a person is smaller than one cell of the finest level."""
MAX_ASPECT = 20.0
"""Longest over shortest side of a usable frame; beyond it no resize policy leaves a person recognisable."""


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
    new_w, new_h = letterbox_wh(frame_wh, spec)
    x, y = int(geometry.offset_xy[0]), int(geometry.offset_xy[1])
    row = np.tile(np.round(spec.mean).astype(np.uint8), (spec.width, 1))  # numpy is slow at three bytes at a time
    for bar in (out[:y], out[y + new_h :], out[y : y + new_h, :x], out[y : y + new_h, x + new_w :]):
        bar[:] = row[: bar.shape[1]]
    picture = out[y : y + new_h, x : x + new_w]
    cv2.resize(frame, (new_w, new_h), dst=picture, interpolation=cv2.INTER_LINEAR)
    return out, geometry
