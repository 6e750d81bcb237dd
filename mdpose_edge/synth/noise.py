"""Noise that repeats seamlessly, made once: clouds for surfaces and backdrops, grain for the sensor."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

CLOUD_SIDE = 256
GRAIN_SIDE = 512


@lru_cache(maxsize=1)
def clouds() -> F32:
    """Return CLOUD_SIDE x CLOUD_SIDE of soft noise, mean 0, standard deviation 1."""
    rng = np.random.default_rng(20231)
    fy, fx = np.meshgrid(np.fft.fftfreq(CLOUD_SIDE), np.fft.fftfreq(CLOUD_SIDE), indexing="ij")
    radius = np.hypot(fy, fx)
    radius[0, 0] = np.inf
    spectrum = np.fft.fft2(rng.standard_normal((CLOUD_SIDE, CLOUD_SIDE))) / radius**1.1
    tile = np.real(np.fft.ifft2(spectrum))
    return np.asarray((tile - tile.mean()) / tile.std(), np.float32)


@lru_cache(maxsize=1)
def grain() -> F32:
    """Return GRAIN_SIDE x GRAIN_SIDE of white noise, mean 0, standard deviation 1."""
    return np.random.default_rng(20233).standard_normal((GRAIN_SIDE, GRAIN_SIDE)).astype(np.float32)


def window(tile: F32, x: int, y: int, size_wh: tuple[int, int]) -> F32:
    """Cut (H, W) out of the plane that copies of a tile cover."""
    width, height = size_wh
    rows, columns = range(y, y + height), range(x, x + width)
    if rows.stop <= tile.shape[0] and columns.stop <= tile.shape[1]:
        return tile[y : rows.stop, x : columns.stop]
    return tile.take(rows, axis=0, mode="wrap").take(columns, axis=1, mode="wrap")
