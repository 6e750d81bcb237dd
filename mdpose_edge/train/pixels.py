"""What training does to a view's pixels: light, colour, focus, hidden parts.

Chance is drawn only for what the configuration asks for, so that a recipe without it keeps its curve.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.families.base import People
from mdpose_edge.train.config import AugmentConfig

BRIGHTNESS, CONTRAST, SATURATION, HUE_DEG = 0.25, 0.35, 0.5, 12.0
"""Largest change of colour: shares of the range, of the contrast, of the saturation; degrees of hue."""
DARK_GAIN, DARK_NOISE = (0.12, 0.5), 10.0
"""Low light: what remains of it, and the largest standard deviation of the noise."""
BLUR_PX = (3, 9)
"""Side of the kernel, of an input of `BLUR_SIDE` px."""
BLUR_SIDE = 224
HIDDEN = (0.15, 0.5)
"""Sides of a hidden rectangle, shares of the person's."""


def change_pixels(
    rng: np.random.Generator,
    image: NDArray[np.uint8],
    people: People,
    config: AugmentConfig,
) -> NDArray[np.uint8]:
    """Change the pixels of a view as chance decides.

    Args:
        rng: the only source of chance.
        image: (H, W, 3), BGR.
        people: in it.
        config: the probabilities.
    """
    if _drawn(rng, config.erase_prob) and len(people.centers_xy):
        image = _hide(rng, image, people)
    if _drawn(rng, config.colour_prob):
        image = _recolour(rng, image)
    if _drawn(rng, config.grey_prob):
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None], 3, axis=2).astype(np.uint8)
    if _drawn(rng, config.blur_prob):
        image = _blur(rng, image)
    if _drawn(rng, config.dark_prob):
        image = _darken(rng, image)
    return image


def _drawn(rng: np.random.Generator, probability: float) -> bool:
    return probability > 0 and rng.random() < probability


def _recolour(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    hue, saturation, contrast, brightness = rng.uniform(-1, 1, 4)
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    levels = np.arange(256, dtype=np.float32)
    turned = (np.arange(256) + round(hue * HUE_DEG / 2)) % 180  # OpenCV's hue is in steps of two degrees
    scaled = np.clip(levels * (1 + saturation * SATURATION), 0, 255)
    light = np.clip((levels - 128) * (1 + contrast * CONTRAST) + 128 + brightness * BRIGHTNESS * 255, 0, 255)
    table = np.stack([turned, scaled, levels], axis=1).astype(np.uint8)[None]
    coloured = cv2.cvtColor(cv2.LUT(hsv, table), cv2.COLOR_HSV2BGR)
    return np.asarray(cv2.LUT(coloured, light.astype(np.uint8)), np.uint8)


def _blur(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = image.shape[1] / BLUR_SIDE
    side = max(3, round(rng.uniform(*BLUR_PX) * scale) | 1)
    if rng.random() < 0.5:
        return np.asarray(cv2.GaussianBlur(image, (side, side), 0), np.uint8)
    kernel = np.zeros((side, side), np.float32)
    angle = rng.uniform(0, np.pi)
    reach = (side // 2) * np.array([np.cos(angle), np.sin(angle)])
    ends = [tuple(int(v) for v in np.round(side // 2 + sign * reach)) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)


def _darken(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    dark = image * np.float32(rng.uniform(*DARK_GAIN))
    noise = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(0, DARK_NOISE))
    return np.clip(dark + noise, 0, 255).astype(np.uint8)


def _hide(rng: np.random.Generator, image: NDArray[np.uint8], people: People) -> NDArray[np.uint8]:
    """Cover part of one person, or of one box, with a piece of the picture from elsewhere, or with one colour."""
    person = int(rng.integers(len(people.centers_xy)))
    seen = people.keypoints_xy[person][people.labelled[person]]
    points = np.concatenate([seen, people.centers_xy[person, None]])
    if not people.keypoints_xy.shape[1]:
        points = people.boxes_xyxy[person].reshape(2, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    size = np.maximum((high - low) * rng.uniform(*HIDDEN, 2), 4)
    corner = low + rng.random(2) * (high - low - size)
    (x0, y0), (x1, y1) = (np.clip(edge, 0, image.shape[1::-1]).astype(int) for edge in (corner, corner + size))
    if x1 <= x0 or y1 <= y0:
        return image
    hidden = image.copy()
    source_x = int(rng.integers(image.shape[1] - (x1 - x0) + 1))
    source_y = int(rng.integers(image.shape[0] - (y1 - y0) + 1))
    patch = image[source_y : source_y + y1 - y0, source_x : source_x + x1 - x0]
    hidden[y0:y1, x0:x1] = patch if rng.random() < 0.5 else rng.integers(0, 256, 3)
    return hidden
