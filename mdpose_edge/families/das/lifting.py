"""From pixels and depths to metres in the camera's axes: x to the right, y down, z forward."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.camera import GUESSED_FOCAL, Camera, centred_camera
from mdpose_edge.families.scores import LARGEST_RAW
from mdpose_edge.geometry import FrameGeometry
from mdpose_edge.spec import InputSpec


def network_focal(geometry: FrameGeometry, camera: Camera) -> float:
    """Return a camera's focal length in pixels of the network input, the geometric mean of both axes."""
    return camera.focal * math.sqrt(geometry.scale_xy[0] * geometry.scale_xy[1])


def guessed_camera(geometry: FrameGeometry, input_spec: InputSpec) -> Camera:
    """Return a likely camera of a frame that nobody described: the middle of the frame, an ordinary field of view."""
    size = [
        (side - 2 * offset) / scale
        for side, offset, scale in zip(
            (input_spec.width, input_spec.height), geometry.offset_xy, geometry.scale_xy, strict=True
        )
    ]
    return centred_camera(GUESSED_FOCAL * max(size), (size[0], size[1]))


def lifted(keypoints_xy: NDArray[np.float32], depths: NDArray[np.float64], camera: Camera) -> NDArray[np.float32]:
    """Return keypoints in metres.

    Args:
        keypoints_xy: (N, K, 2) px of the frame.
        depths: (N, K) metres.
        camera: of the frame.

    Returns:
        (N, K, 3) in the camera's axes.
    """
    rays = (keypoints_xy.astype(np.float64) - (camera.cx, camera.cy)) / (camera.fx, camera.fy)
    points = np.concatenate([rays * depths[..., None], depths[..., None]], axis=2)
    points_3d: NDArray[np.float32] = np.clip(points, -LARGEST_RAW, LARGEST_RAW).astype(np.float32)
    return points_3d
