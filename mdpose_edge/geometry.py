"""Where a frame lies in the network input, and the way back to its pixels: numpy alone, no image is touched.

Coordinates are continuous pixels: an image of width W spans [0, W), pixel i covers [i, i + 1) and has its centre at
i + 0.5. Resizing is then a pure scale, the same that cv2.resize applies, and a mirror is W - x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.camera import Camera
from mdpose_edge.spec import InputSpec


@dataclass(frozen=True)
class FrameGeometry:
    """Where a frame lies in the network input; made by `preprocess`, used by its inverse."""

    scale_xy: tuple[float, float]
    """Input pixels per frame pixel."""
    offset_xy: tuple[float, float]
    """Where the frame's corner lies in the input, in input pixels."""
    camera: Camera | None = None
    """What the frame was taken with, in frame pixels, where that is known: decoders of the third dimension ask."""

    def to_network(self, points_xy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map points (..., 2) from frame pixels to input pixels."""
        return points_xy * _float32(self.scale_xy) + _float32(self.offset_xy)

    def to_frame(self, points_xy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map points (..., 2) from input pixels to frame pixels; points outside the frame are kept."""
        return (points_xy - _float32(self.offset_xy)) / _float32(self.scale_xy)

    def lengths_to_frame(self, lengths_xy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map lengths along the axes (..., 2) from input pixels to frame pixels."""
        return lengths_xy / _float32(self.scale_xy)


def frame_geometry(frame_wh: tuple[int, int], spec: InputSpec) -> FrameGeometry:
    """Work out where a frame of this size lies in the network input."""
    (width, height), (net_w, net_h) = frame_wh, (spec.width, spec.height)
    if spec.resize == "stretch":
        return FrameGeometry((net_w / width, net_h / height), (0.0, 0.0))
    new_w, new_h = letterbox_wh(frame_wh, spec)
    return FrameGeometry((new_w / width, new_h / height), (float((net_w - new_w) // 2), float((net_h - new_h) // 2)))


def letterbox_wh(frame_wh: tuple[int, int], spec: InputSpec) -> tuple[int, int]:
    """Return the size (width, height) that a frame takes inside the network input when its aspect ratio is kept."""
    scale = min(spec.width / frame_wh[0], spec.height / frame_wh[1])
    return max(1, round(frame_wh[0] * scale)), max(1, round(frame_wh[1] * scale))


def _float32(pair: tuple[float, float]) -> NDArray[np.float32]:
    return np.asarray(pair, np.float32)
