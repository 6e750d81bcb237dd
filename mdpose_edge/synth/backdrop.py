"""What is behind the people: rooms, streets, fields and clutter."""

from __future__ import annotations

import colorsys
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.synth import noise
from mdpose_edge.synth.solids import Array, Camera

Image = NDArray[np.uint8]
F32 = NDArray[np.float32]

SKIES = ((235, 190, 130), (220, 215, 210), (150, 170, 235), (200, 160, 90))
"""Clear, overcast, evening, deep blue; BGR."""
GROUNDS = ((70, 120, 80), (110, 115, 120), (140, 180, 205), (90, 110, 135), (225, 222, 220))
"""Grass, asphalt, sand, earth, snow; BGR."""


def draw_backdrop(rng: np.random.Generator, camera: Camera, reach: float) -> Image:
    """Draw a background, (H, W, 3) uint8 BGR, whose ground ends at the camera's horizon or at a wall.

    Args:
        rng: where the randomness comes from.
        camera: gives the size, the horizon and the perspective.
        reach: distance of the farthest person, m; a wall stands behind it.
    """
    kind = rng.random()
    if kind < 0.43:
        return _room(rng, camera, reach)
    if kind < 0.88:
        return _outdoors(rng, camera)
    return _abstract(rng, camera.size_wh)


def colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> F32:
    """Draw a BGR colour in 0..255."""
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return np.array(rgb[::-1], np.float32) * 255


def clouds(rng: np.random.Generator, size_wh: tuple[int, int], cell: float) -> F32:
    """Return a smooth random field (H, W), mean 0 and standard deviation about 1, with features of `cell` px."""
    width, height = size_wh
    crop = [max(4, min(256, round(side * 16 / cell))) for side in (width, height)]
    x, y = (int(rng.integers(0, 256)) for _ in range(2))
    part = noise.window(noise.clouds(), x, y, (crop[0], crop[1]))
    return np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR))


def ground_to_image(camera: Camera, x: Array, z: Array) -> Array:
    """Project points of the ground, in front of the camera, to pixels (..., 2)."""
    return camera.project(np.stack((x, np.zeros_like(x), z), axis=-1))


def horizon_row(camera: Camera) -> float:
    """Return the image row of the horizon under the middle column."""
    forward = camera.rotation @ np.array((0.0, 0.0, 1.0))
    return float(camera.focal_px * forward[1] / max(forward[2], 1e-3) + camera.centre_xy[1])


def _fill(part: Image, base: F32, field: F32) -> None:
    """Fill part of a canvas with a colour, brightened by a field (H, W) in grey levels between -128 and 127."""
    if part.size:
        level = cv2.convertScaleAbs(np.maximum(field, -128), alpha=1, beta=128)
        ramp = np.clip(base + np.arange(-128, 128, dtype=np.float32)[:, None], 0, 255)
        part[:] = cv2.LUT(cv2.merge((level, level, level)), ramp.astype(np.uint8)[None])


def _room(rng: np.random.Generator, camera: Camera, reach: float) -> Image:
    width, height = camera.size_wh
    canvas = np.empty((height, width, 3), np.uint8)
    foot = ground_to_image(camera, np.zeros(1), np.array([reach * rng.uniform(1.1, 1.7) + 0.5]))
    seam = int(np.clip(foot[0, 1], 0.02 * height, height))
    ramp = np.linspace(-1, 1, width, dtype=np.float32)
    wall = clouds(rng, (width, height), 0.5 * width) * rng.uniform(1, 5) + ramp * rng.uniform(-25, 25)
    _fill(canvas[:seam], colour(rng, (0.02, 0.32), (0.35, 0.95)), wall[:seam])
    if rng.random() < 0.25:
        _stripes(rng, canvas[:seam])
    grain = clouds(rng, (width, height), rng.uniform(0.02, 0.12) * width) * rng.uniform(2, 9)
    _fill(canvas[seam:], colour(rng, (0.05, 0.42), (0.2, 0.75)), grain[seam:])
    if rng.random() < 0.6:
        _tiles(rng, canvas, camera, seam)
    for _ in range(int(rng.integers(1, 7))):
        _wall_thing(rng, canvas, seam)
    cv2.line(canvas, (0, seam), (width, seam), colour(rng, (0, 0.3), (0.1, 0.9)).tolist(), max(1, height // 90))
    return canvas


def _outdoors(rng: np.random.Generator, camera: Camera) -> Image:
    width, height = camera.size_wh
    canvas = np.empty((height, width, 3), np.uint8)
    seam = int(np.clip(horizon_row(camera), 0.0, 0.9 * height))
    sky = np.array(SKIES[int(rng.integers(len(SKIES)))], np.float32)
    field = clouds(rng, (width, height), 0.4 * width) * rng.uniform(4, 22)
    _fill(canvas[:seam], sky * rng.uniform(0.7, 1.05), field[:seam])
    ground = np.array(GROUNDS[int(rng.integers(len(GROUNDS)))], np.float32) * rng.uniform(0.6, 1.1)
    grain = clouds(rng, (width, height), rng.uniform(0.02, 0.08) * width) * rng.uniform(3, 14)
    _fill(canvas[seam:], ground, grain[seam:])
    for _ in range(int(rng.integers(0, 6))):
        _building(rng, canvas, seam)
    for _ in range(int(rng.integers(0, 6))):
        _tree(rng, canvas, seam)
    if rng.random() < 0.4:
        _tiles(rng, canvas, camera, seam)
    return canvas


def _abstract(rng: np.random.Generator, size_wh: tuple[int, int]) -> Image:
    width, height = size_wh
    first, second = colour(rng, (0, 0.8), (0.1, 1.0)), colour(rng, (0, 0.8), (0.1, 1.0))
    mix = 0.5 + 0.3 * clouds(rng, size_wh, rng.uniform(0.05, 0.6) * width)[..., None]
    canvas = np.clip(first * mix + second * (1 - mix), 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(4, 22))):
        centre = rng.uniform(0, 1, 2) * (width, height)
        spread = rng.uniform(0.03, 0.25) * width
        points = centre + rng.normal(0, spread, (int(rng.integers(3, 7)), 2))
        hull = cv2.convexHull(np.round(points * 16).astype(np.int32))
        shade = colour(rng, (0, 0.9), (0.1, 1.0)).tolist()
        if rng.random() < 0.4:
            radii = (int(rng.uniform(0.2, 1) * spread) + 1, int(rng.uniform(0.2, 1) * spread) + 1)
            cv2.ellipse(canvas, centre.astype(int).tolist(), radii, rng.uniform(0, 180), 0, 360, shade, -1, cv2.LINE_AA)
        else:
            cv2.fillConvexPoly(canvas, hull, shade, cv2.LINE_AA, 4)
    return np.asarray(canvas)


def _camera_height(camera: Camera) -> float:
    return float(-(camera.rotation.T @ camera.translation)[1])


def _stripes(rng: np.random.Generator, wall: Image) -> None:
    width = wall.shape[1]
    pitch = rng.uniform(0.02, 0.15) * width
    wave = np.sin(np.arange(width) * (2 * math.pi / pitch)) > rng.uniform(-0.5, 0.8)
    dark = (wall[:, wave] * rng.uniform(0.75, 0.95)).astype(np.uint8)
    wall[:, wave] = dark


def _tiles(rng: np.random.Generator, canvas: Image, camera: Camera, seam: int) -> None:
    """Draw boards or tiles on the ground in perspective."""
    pitch, tint = rng.uniform(0.3, 1.5), (canvas[-1, 0] * rng.uniform(0.6, 1.25)).clip(0, 255).tolist()
    near, far = 0.6 / max(camera.focal_px / camera.size_wh[1], 0.5) * max(_camera_height(camera), 0.5), 40.0
    floor = canvas[seam:]
    if not floor.size:
        return
    across: Array = np.arange(-14.0, 15.0) * pitch
    ends = [ground_to_image(camera, across, np.full(across.shape, z)) - (0, seam) for z in (near, far)]
    lines = [np.stack(pair) for pair in zip(*ends, strict=True)]
    if rng.random() < 0.6:
        along: Array = near + np.arange(18.0) * pitch
        sides = [ground_to_image(camera, np.full(along.shape, x), along) - (0, seam) for x in (-14 * pitch, 14 * pitch)]
        lines += [np.stack(pair) for pair in zip(*sides, strict=True)]
    clipped = [np.clip(line, -8000, 8000).astype(np.int32) for line in lines if np.isfinite(line).all()]
    cv2.polylines(floor, clipped, False, tint, max(1, canvas.shape[0] // 320), cv2.LINE_AA)


def _wall_thing(rng: np.random.Generator, canvas: Image, seam: int) -> None:
    """Draw a window, a picture, a door or a shelf on the wall."""
    height, width = canvas.shape[:2]
    w, h = rng.uniform(0.06, 0.3) * width, rng.uniform(0.08, 0.4) * height
    x = rng.uniform(-0.1, 1.0) * width
    y = seam - h if rng.random() < 0.4 else rng.uniform(-0.1, 0.8) * seam
    x0, y0, x1, y1 = int(x), int(y), int(x + w), int(min(y + h, seam))
    cv2.rectangle(canvas, (x0, y0), (x1, y1), colour(rng, (0, 0.6), (0.1, 0.95)).tolist(), -1)
    inset = max(1, int(0.08 * min(w, h)))
    inner = colour(rng, (0, 0.7), (0.15, 1.0)).tolist()
    cv2.rectangle(canvas, (x0 + inset, y0 + inset), (x1 - inset, y1 - inset), inner, -1)
    for step in range(int(rng.integers(0, 4))):
        cut = int(y0 + (step + 1) * h / 4)
        cv2.line(canvas, (x0, cut), (x1, cut), colour(rng, (0, 0.4), (0.1, 0.9)).tolist(), inset)
    for _ in range(int(rng.integers(0, 8))):
        a = (int(rng.uniform(x0, x1)), int(rng.uniform(y0, y1)))
        b = (a[0] + int(0.2 * w) + 1, a[1] + int(0.2 * h) + 1)
        cv2.rectangle(canvas, a, b, colour(rng, (0.1, 0.9), (0.1, 1.0)).tolist(), -1)


def _building(rng: np.random.Generator, canvas: Image, seam: int) -> None:
    height, width = canvas.shape[:2]
    w, h = rng.uniform(0.1, 0.45) * width, rng.uniform(0.15, 1.0) * max(seam, 1)
    x0, y0 = int(rng.uniform(-0.2, 1.0) * width), int(seam - h)
    x1 = int(x0 + w)
    cv2.rectangle(canvas, (x0, y0), (x1, seam), colour(rng, (0.02, 0.4), (0.25, 0.85)).tolist(), -1)
    pane = colour(rng, (0, 0.4), (0.1, 0.9)).tolist()
    step = max(4, int(rng.uniform(0.03, 0.08) * height))
    gap = rng.uniform(0.3, 0.7)
    for y in range(y0 + step // 2, seam - step // 2, step):
        for x in range(x0 + step // 3, x1 - step // 2, step):
            cv2.rectangle(canvas, (x, y), (x + int(step * gap), y + int(step * gap)), pane, -1)


def _tree(rng: np.random.Generator, canvas: Image, seam: int) -> None:
    height, width = canvas.shape[:2]
    x, size = int(rng.uniform(0, 1) * width), rng.uniform(0.06, 0.22) * height
    foot = int(seam + rng.uniform(0, 0.12) * height)
    trunk = colour(rng, (0.2, 0.5), (0.15, 0.4)).tolist()
    cv2.line(canvas, (x, foot), (x, int(foot - 1.6 * size)), trunk, max(1, int(0.14 * size)))
    for _ in range(14):
        green = (rng.uniform(20, 70), rng.uniform(60, 150), rng.uniform(30, 90))
        spot = (int(x + rng.normal(0, 0.4 * size)), int(foot - 1.9 * size + rng.normal(0, 0.4 * size)))
        cv2.circle(canvas, spot, max(1, int(size * rng.uniform(0.15, 0.45))), green, -1, cv2.LINE_AA)
