"""The recursive update: where a joint is said to be, the cell there says it better."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.families.peaks import cell_centers

Maps = NDArray[np.float32]


def updated(uv: Maps, dz: Maps, cells: NDArray[np.intp], updates: int) -> tuple[Maps, Maps]:
    """Read the joints' offsets and depths at cells, then again where these lead, so many times.

    The offset read there is added, the depth replaces the one before (the authors' code): every cell says how far the
    joint is from itself, and how deep it is from the root. Beyond the map nothing is read, and what was said stays.

    Args:
        uv: (K, 2, rows, columns) cells, from a cell's centre to the joint.
        dz: (K, rows, columns).
        cells: (n,) flat.
        updates: 0 for what the cells say themselves.

    Returns:
        Offsets from the cells' centres (K, 2, n), and depths (K, n).
    """
    count, _, rows, columns = uv.shape
    offsets = uv.reshape(2 * count, -1).take(cells, axis=1).reshape(count, 2, -1)
    depths = dz.reshape(count, -1).take(cells, axis=1)
    centers = cell_centers(cells, columns)
    for _ in range(updates):
        places, weights = _corners(offsets + centers, rows, columns)
        read = np.stack([_read(uv, axis, places, weights) for axis in (0, 1)], axis=1)
        depths = _read(dz, 0, places, weights) + (np.float32(1.0) - weights.sum(axis=0)) * depths
        offsets = offsets + read
    return offsets, depths


def _corners(points: Maps, rows: int, columns: int) -> tuple[NDArray[np.intp], Maps]:
    """Return the four cells around points (K, 2, n) and their bilinear weights, (4, K, n); 0 for cells outside."""
    # Centres of cells are at i + 1/2. Points far outside have no cells, wherever exactly they are.
    x = np.clip(points[:, 0] - np.float32(0.5), -2.0, columns + 1.0)
    y = np.clip(points[:, 1] - np.float32(0.5), -2.0, rows + 1.0)
    left, top = np.floor(x), np.floor(y)
    right_share, bottom_share = x - left, y - top
    places, weights = [], []
    for down, share_y in ((0, 1 - bottom_share), (1, bottom_share)):
        for along, share_x in ((0, 1 - right_share), (1, right_share)):
            column, row = left.astype(np.intp) + along, top.astype(np.intp) + down
            inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
            places.append(np.where(inside, row * columns + column, 0))
            weights.append(np.where(inside, share_x * share_y, np.float32(0.0)))
    return np.stack(places), np.stack(weights)


def _read(maps: Maps, axis: int, places: NDArray[np.intp], weights: Maps) -> Maps:
    """Read an axis of each joint's maps, (K, ..., rows, columns), at its places (4, K, n), weighted: to (K, n)."""
    count, cells = len(maps), maps.shape[-2] * maps.shape[-1]
    flat = maps.reshape(-1)
    starts = np.arange(count) * (flat.size // count) + axis * cells
    with np.errstate(invalid="ignore"):  # whoever reads an infinity is refused by its result
        values: Maps = (flat.take(places + starts[:, None]) * weights).sum(axis=0)
    return values
