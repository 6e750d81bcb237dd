"""The pinhole camera that a frame was taken with."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mdpose_edge.errors import ConfigError

GUESSED_FOCAL = 1.2
"""Focal length of a camera that nobody described, over the frame's longer side: a field of view of 45 degrees."""


@dataclass(frozen=True)
class Camera:
    """Focal lengths and principal point, in pixels of the frame: a point (X, Y, Z) is seen at (fx X / Z + cx, ...).

    Raises:
        ConfigError: a value is not finite, or a focal length is not above 0.
    """

    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        values = (self.fx, self.fy, self.cx, self.cy)
        if not all(map(math.isfinite, values)) or min(self.fx, self.fy) <= 0:
            expected = "finite numbers fx, fy, cx, cy, in px, with fx and fy above 0"
            got = ", ".join(f"{value:g}" for value in values)
            raise ConfigError("camera", expected=expected, got=got, do="give the camera's own, from its calibration")

    @property
    def focal(self) -> float:
        """The geometric mean of both focal lengths, px."""
        return math.sqrt(self.fx * self.fy)


def centred_camera(focal: float, frame_wh: tuple[float, float]) -> Camera:
    """Return the camera of a focal length, px, that looks at the middle of frames of a size.

    Raises:
        ConfigError: the focal length is not above 0.
    """
    return Camera(focal, focal, frame_wh[0] / 2, frame_wh[1] / 2)


def asked_camera(camera: str | None, focal: float | None) -> Camera | float | None:
    """Read what --camera and --focal say: a camera, a focal length in px of one that looks at the middle, or nothing.

    Raises:
        ConfigError: both are given, or one is not what it should be.
    """
    if camera is None:
        if focal is not None and not (math.isfinite(focal) and focal > 0):
            do = "give it in px of the frame"
            raise ConfigError("--focal", expected="a focal length above 0", got=f"{focal:g}", do=do)
        return focal
    if focal is not None:
        raise ConfigError("--focal", expected="--camera or --focal", got="both", do="give --camera alone")
    try:
        fx, fy, cx, cy = map(float, camera.split(","))
        return Camera(fx, fy, cx, cy)
    except (ValueError, ConfigError) as error:
        expected = "four numbers fx,fy,cx,cy in px of the frame, fx and fy above 0"
        raise ConfigError("--camera", expected=expected, got=camera, do="give them without spaces") from error
