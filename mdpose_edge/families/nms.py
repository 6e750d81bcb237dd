"""Non-maximum suppression: of candidates that show the same person, keep the best.

Greedy, in order of score, exact. A block of the best candidates is compared with all that are left, then the next
block of what survives, so that duplicates vanish early and the work stops once enough are kept. A comparison has two
steps: a screen in float32, which every overlapping pair passes and few others, then the overlap itself, in float64, of
what passed. The screen is a matrix product, the cheapest thing that numpy can do for all pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.oks import keypoint_similarity, keypoint_spreads

FIRST_BLOCK_PAIRS = 8_192
"""Pairs in the first block; each further block takes twice as many candidates. Where one person fills the frame and all
overlap, a few comparisons with the rest leave nearly nothing; where nothing overlaps, few blocks do."""
BLOCK_PAIRS = 131_072
"""Bound on the pairs in a block, that is on memory."""
PRODUCT_PAIRS = 40_000
"""Pairs in one matrix product: 160 kB stay in the L2 cache, and the work (up to six multiply-adds each) is below the
2^18 from which OpenBLAS wakes its threads: they bring nothing here and take cores from the engine."""
ROUNDING = 2e-6
"""Relative error granted to a screen: 30 units of float32 roundoff, for at most six products, their factors and sum."""
SMALLEST_SIDE = 1e-4
"""A side below this part of the largest extent is screened as if so long, which only lets more pairs pass."""

FARTHEST = 8.0
"""Largest squared distance of two points whose coordinates lie in [-1, 1]."""


@dataclass(frozen=True)
class _Screen:
    """Pairs (i, j) can overlap only where (left[s, i] @ right[s, :, j]) <= bound for some s."""

    left: NDArray[np.float32]
    """(S, N, F)."""
    right: NDArray[np.float32]
    """(S, F, N)."""
    bound: float

    def passing(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """List positions (i, j), sorted by i, where candidates rows[i] and columns[j] pass."""
        passed = np.zeros((len(rows), len(columns)), np.bool_)
        step = min(len(rows), max(1, PRODUCT_PAIRS // len(columns)))
        products = np.empty((step, len(columns)), np.float32)
        for left, right in zip(self.left.take(rows, axis=1), self.right.take(columns, axis=2), strict=True):
            for start in range(0, len(rows), step):
                block = left[start : start + step]
                np.matmul(block, right, out=products[: len(block)])
                passed[start : start + step] |= products[: len(block)] <= self.bound
        flat = np.flatnonzero(passed)  # np.nonzero takes ten times as long on two axes
        i = flat // len(columns)
        return i, flat - i * len(columns)


def box_nms(boxes_xyxy: NDArray[np.floating], iou_threshold: float, max_keep: int) -> NDArray[np.intp]:
    """Suppress boxes whose intersection over union with a better, kept box is above a threshold.

    A box without area overlaps nothing.

    Args:
        boxes_xyxy: (N, 4), finite, any unit, best first. Not modified.
        iou_threshold: in [0, 1]; a box is dropped when its IoU is strictly greater.
        max_keep: stop once this many are kept.

    Returns:
        Indices of the kept boxes, ascending, at most `max_keep`.
    """
    if not len(boxes_xyxy):
        return np.zeros(0, np.intp)
    x1, y1, x2, y2 = boxes_xyxy.T.astype(np.float64)
    boxes = np.stack([x1, y1, x2, y2, (x2 - x1) * (y2 - y1)])

    def overlapping(i: NDArray[np.intp], j: NDArray[np.intp]) -> NDArray[np.bool_]:
        a, b = boxes.take(i, axis=1), boxes.take(j, axis=1)
        sides = np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2])
        np.maximum(sides, 0.0, out=sides)
        intersection = sides[0] * sides[1]
        result: NDArray[np.bool_] = intersection > iou_threshold * (a[4] + b[4] - intersection)
        return result

    return _greedy(len(boxes_xyxy), _box_screen(boxes[:4], iou_threshold), overlapping, max_keep)


def oks_nms(
    keypoints_xy: NDArray[np.floating],
    areas: NDArray[np.floating],
    sigmas: NDArray[np.floating],
    threshold: float,
    max_keep: int,
) -> NDArray[np.intp]:
    """Suppress poses whose object keypoint similarity with a better, kept pose is above a threshold.

    The similarity is COCO's, with the mean area of the two for the object's and every keypoint counted:
    OKS = mean_k exp(-d_k^2 / (2 (2 sigma_k)^2 area)). Where both areas are 0, only coinciding keypoints count.

    Args:
        keypoints_xy: (N, K, 2), finite, any unit, best first. Not modified.
        areas: (N,), the square of that unit.
        sigmas: (K,), COCO's per-keypoint constants.
        threshold: in [0, 1]; a pose is dropped when its OKS is strictly greater.
        max_keep: stop once this many are kept.

    Returns:
        Indices of the kept poses, ascending, at most `max_keep`.
    """
    if not len(keypoints_xy):
        return np.zeros(0, np.intp)
    points = keypoints_xy.transpose(2, 1, 0).astype(np.float64, order="C")  # (2, K, N)
    spreads = keypoint_spreads(sigmas)[:, None]
    half_areas = np.maximum(0.5 * areas.astype(np.float64), np.finfo(np.float64).tiny / spreads.min())

    def overlapping(i: NDArray[np.intp], j: NDArray[np.intp]) -> NDArray[np.bool_]:
        squared = np.square(points.take(i, axis=2) - points.take(j, axis=2)).sum(axis=0)
        with np.errstate(over="ignore"):  # areas of almost 0: infinitely far apart, as they should be
            similarity = keypoint_similarity(squared, spreads, half_areas.take(i) + half_areas.take(j))
        result: NDArray[np.bool_] = similarity.mean(axis=0) > threshold
        return result

    return _greedy(len(keypoints_xy), _oks_screen(points, half_areas, spreads, threshold), overlapping, max_keep)


def _greedy(
    count: int,
    screen: _Screen,
    overlapping: Callable[[NDArray[np.intp], NDArray[np.intp]], NDArray[np.bool_]],
    max_keep: int,
) -> NDArray[np.intp]:
    """Keep candidates 0, 1, ... in order, each unless a kept one before it overlaps it."""
    kept: list[NDArray[np.intp]] = []
    num_kept = 0
    alive = np.arange(count)
    size = FIRST_BLOCK_PAIRS // count
    while len(alive) and num_kept < max_keep:
        size = max(1, min(size, BLOCK_PAIRS // len(alive)))
        i, j = screen.passing(alive[:size], alive)
        over = np.flatnonzero(overlapping(alive.take(i), alive.take(j)) & (i < j))
        free = _resolve(len(alive), i.take(over), j.take(over))
        kept.append(alive[:size][free[:size]])
        num_kept += len(kept[-1])
        alive = alive[size:][free[size:]]
        size *= 2
    return np.concatenate(kept)[:max_keep]


def _resolve(count: int, i: NDArray[np.intp], j: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Mark which of `count` candidates no kept one drops, given the overlapping pairs, i < j, sorted by i."""
    free = np.ones(count, np.bool_)
    if not len(i):
        return free
    starts = np.concatenate(([0], np.flatnonzero(i[1:] != i[:-1]) + 1))
    ends = [*starts[1:].tolist(), len(i)]
    for candidate, start, end in zip(i.take(starts).tolist(), starts.tolist(), ends, strict=True):
        if free[candidate]:
            free[j[start:end]] = False
    return free


def _box_screen(corners: NDArray[np.float64], iou_threshold: float) -> _Screen:
    """Screen boxes, corners (4, N), by the distance of their centres.

    The IoU along either axis is no less than that of the boxes. Intervals of lengths u <= v with an IoU above t have
    v < u / t, and centres closer than (v - u) / 2 if nested, else than (u + v) / 2 * (1 - t) / (1 + t): either way
    distance^2 / (u v) < (1 - t)^2 / (4 t). The sum of that ratio over both axes is a product of six terms of one box
    with six of the other.
    """
    sides = corners[2:] - corners[:2]
    centers = 0.5 * (corners[2:] + corners[:2])
    centers -= centers.mean(axis=1, keepdims=True)
    unit = max(np.abs(centers).max(), sides.max()) or 1.0
    centers /= unit
    inverse = 1.0 / np.maximum(sides / unit, SMALLEST_SIDE)
    ratio = centers * inverse
    squared = (1.0 - ROUNDING) * centers * ratio
    left = np.concatenate([squared, inverse, -2.0 * ratio]).T.astype(np.float32, order="C")
    right = np.concatenate([inverse, squared, ratio]).astype(np.float32)
    t = iou_threshold
    return _Screen(left[None], right[None], (1.0 + ROUNDING) * (1.0 - t) ** 2 / (2.0 * t) if t else np.inf)


def _oks_screen(
    points: NDArray[np.float64], half_areas: NDArray[np.float64], spreads: NDArray[np.float64], threshold: float
) -> _Screen:
    """Screen poses, points (2, K, N), by the distance of a few keypoints.

    Where the OKS is above t, any s > K (1 - t) of the K keypoints have a mean similarity above 1 - K (1 - t) / s, even
    if all others coincide, and so at least one of them has. Those of least sigma tell poses apart best.
    """
    num_keypoints = points.shape[1]
    lost = num_keypoints * (1.0 - threshold)
    num_probes = min(num_keypoints, int(lost) + 1)
    share = (1.0 - lost / num_probes) * (1.0 - ROUNDING)
    probes = np.argsort(spreads[:, 0], kind="stable")[:num_probes]
    centered = points.take(probes, axis=1)
    centered -= centered.mean(axis=(1, 2), keepdims=True)
    unit = np.abs(centered).max() or 1.0
    x, y = centered / unit
    reach = -np.log(max(share, ROUNDING)) * spreads.take(probes, axis=0) * half_areas / unit**2
    near = (1.0 - ROUNDING) * (x * x + y * y) - (1.0 + ROUNDING) * np.minimum(reach, FARTHEST)
    ones = np.ones_like(x)
    left = np.stack([near, ones, -2.0 * x, -2.0 * y], axis=2).astype(np.float32)
    right = np.stack([ones, near, x, y], axis=1).astype(np.float32)
    return _Screen(left, right, 0.0 if share > 0.0 else np.inf)
