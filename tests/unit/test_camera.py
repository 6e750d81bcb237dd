"""The camera of a frame."""

from __future__ import annotations

import pytest

from mdpose_edge.camera import Camera, centred_camera
from mdpose_edge.errors import ConfigError


def test_a_centred_camera_looks_at_the_middle() -> None:
    assert centred_camera(900.0, (640, 480)) == Camera(900.0, 900.0, 320.0, 240.0)
    assert Camera(4.0, 9.0, 0.0, 0.0).focal == 6.0


@pytest.mark.parametrize("values", [(0.0, 1.0, 0.0, 0.0), (1.0, -1.0, 0.0, 0.0), (1.0, 1.0, float("nan"), 0.0)])
def test_what_is_no_camera_is_refused(values: tuple[float, float, float, float]) -> None:
    with pytest.raises(ConfigError, match="camera: expected finite numbers fx, fy, cx, cy"):
        Camera(*values)
