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
    for _ in range(updates if len(cells) else 0):
        places, weights = _corners(offsets + centers, rows, columns)
        read = np.stack([_read(uv, axis, places, weights) for axis in (0, 1)], axis=1)
        depths = _read(dz, 0, places, weights) + (np.float32(1.0) - weights.sum(axis=0)) * depths
        offsets = offsets + read
    return offsets, depths


def _corners(points: Maps, rows: int, columns: int) -> tuple[NDArray[np.intp], Maps]:
    """Return the four cells around points (K, 2, n) and their bilinear weights, (4, K, n); 0 for cells outside."""
    # Centres of cells are at i + 1/2. Points far outside have no cells, wherever exactly they are.
    ends = np.array([[columns], [rows]], np.float32)
    corner = np.clip(points - np.float32(0.5), -2.0, ends + 1.0)
    low = np.floor(corner)
    share = corner - low
    first = low.astype(np.intp)
    inside = [((first + step >= 0) & (first + step < ends)) for step in (0, 1)]
    # A cell outside has no weight, and any place.
    parts = [np.where(inside[0], 1 - share, np.float32(0.0)), np.where(inside[1], share, np.float32(0.0))]
    cells = [np.where(inside[step], first + step, 0) for step in (0, 1)]
    places = np.empty((4, *first[:, 0].shape), np.intp)
    weights = np.empty(places.shape, np.float32)
    for corner_index, (down, along) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        np.add(cells[down][:, 1] * columns, cells[along][:, 0], out=places[corner_index])
        np.multiply(parts[down][:, 1], parts[along][:, 0], out=weights[corner_index])
    return places, weights


def _read(maps: Maps, axis: int, places: NDArray[np.intp], weights: Maps) -> Maps:
    """Read an axis of each joint's maps, (K, ..., rows, columns), at its places (4, K, n), weighted: to (K, n)."""
    count, cells = len(maps), maps.shape[-2] * maps.shape[-1]
    flat = maps.reshape(-1)
    starts = np.arange(count) * (flat.size // count) + axis * cells
    with np.errstate(invalid="ignore"):  # whoever reads an infinity is refused by its result
        values: Maps = (flat.take(places + starts[:, None]) * weights).sum(axis=0)
    return values
