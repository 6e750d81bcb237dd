"""Folders of tiny real images to calibrate on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mdpose_edge.calib.dataset import CalibrationSet, open_calibration_set
from mdpose_edge.calib.make import make_calibration_set
from mdpose_edge.spec import InputSpec

SPEC = InputSpec(32, 64)


def write_frames(folder: Path, count: int) -> Path:
    """Write PNGs of noise, 40x30 px, no two alike."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(count):
        assert cv2.imwrite(str(folder / f"{index:03d}.png"), rng.integers(0, 256, (30, 40, 3), np.uint8))
    return folder


def make_small_set(folder: Path, count: int = 4, spec: InputSpec = SPEC) -> CalibrationSet:
    """Make a set of all frames of a new folder beside it."""
    make_calibration_set(write_frames(folder / "frames", count), folder / "calib", spec, num=count, allow_few=True)
    return open_calibration_set(folder / "calib")
