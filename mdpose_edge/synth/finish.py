"""What a lens, a sensor and the sun add: shadows, blur, exposure, noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.spec import COCO_KEYPOINTS
from mdpose_edge.synth.noise import GRAIN_SIDE, grain, window
from mdpose_edge.synth.shade import Light
from mdpose_edge.synth.solids import Array, Camera

SHADOW_SCALE = 4
"""Shadows are soft: they are drawn at a quarter of the size."""


def cast_shadows(canvas: NDArray[np.uint8], camera: Camera, light: Light, bodies: list[Array]) -> None:
    """Darken the ground where bodies, (17, 3) world m each, keep the lamp away."""
    height, width = canvas.shape[:2]
    small = np.zeros((height // SHADOW_SCALE + 1, width // SHADOW_SCALE + 1), np.uint8)
    away = light.direction / light.direction[1]
    for body in bodies:
        ground = body - body[:, 1:2] * away
        seen = camera.to_camera(ground)
        if seen[:, 2].min() < 0.3:
            continue
        pixels = camera.focal_px * seen[:, :2] / seen[:, 2:] + camera.centre_xy
        thick = max(1, round(camera.focal_px * 0.14 / float(seen[:, 2].mean()) / SHADOW_SCALE))
        points = np.clip(pixels * (8 / SHADOW_SCALE), -30000, 30000).astype(np.int32)
        for a, b in (*COCO_KEYPOINTS.skeleton[:12], (5, 12), (6, 11)):
            cv2.line(small, points[a].tolist(), points[b].tolist(), 255, thick, cv2.LINE_8, 3)
        cv2.circle(small, points[0].tolist(), thick, 255, -1, cv2.LINE_8, 3)
    soft = cv2.resize(cv2.blur(small, (3, 3)), (width, height), interpolation=cv2.INTER_LINEAR)
    strength = float(np.clip(0.75 * light.lamp.mean(), 0.2, 0.6)) / 255
    shade = (255 - soft * np.float32(strength * 255)).astype(np.uint8)
    cv2.multiply(canvas, cv2.merge((shade, shade, shade)), canvas, 1 / 255)


@dataclass(frozen=True)
class Lens:
    """What a lens and a sensor do to every picture they take."""

    blur_px: float
    """Standard deviation, or 0."""
    table: NDArray[np.uint8]
    """(1, 256, 3): exposure, gamma and white balance."""
    grain: float
    """Standard deviation of the noise, grey levels."""


def sample_lens(rng: np.random.Generator, size_wh: tuple[int, int]) -> Lens:
    """Draw a lens and a sensor."""
    blur = rng.uniform(0.3, 1.0) * max(size_wh) / 480 if rng.random() < 0.35 else 0.0
    gain = rng.uniform(0.75, 1.15) * (1 + rng.normal(0, 0.04, 3))
    gamma = rng.uniform(0.8, 1.25)
    ramp = (np.arange(256)[:, None] / 255.0) ** gamma * gain * 255 + rng.uniform(-4, 10)
    return Lens(blur, np.clip(ramp, 0, 255).astype(np.uint8)[None], rng.uniform(0, 7))


def finish(rng: np.random.Generator, canvas: NDArray[np.uint8], lens: Lens) -> NDArray[np.uint8]:
    """Blur, expose and add noise, as a camera would."""
    blurred = np.asarray(cv2.GaussianBlur(canvas, (0, 0), lens.blur_px), np.uint8) if lens.blur_px else canvas
    return _add_grain(rng, cv2.LUT(blurred, lens.table), sigma=lens.grain)


def _add_grain(rng: np.random.Generator, frame: cv2.typing.MatLike, sigma: float) -> NDArray[np.uint8]:
    """Add colourless noise of standard deviation `sigma` grey levels, in eight bits throughout."""
    height, width = frame.shape[:2]
    x, y = (int(value) for value in rng.integers(0, GRAIN_SIDE, 2))
    field = window(grain(), x, y, (width, height))
    size = cv2.convertScaleAbs(field, alpha=sigma)
    size = cv2.merge((size, size, size))
    out = cv2.subtract(frame, size)
    cv2.copyTo(cv2.add(frame, size), (field > 0).view(np.uint8), out)
    return np.asarray(out, np.uint8)
