"""Merging: candidates that show the same person become one pose, where non-maximum suppression would drop all but one.

Where scores are expected numbers of people (`loss.count_weight`), a person's one is spread over neighbouring
components, and each of them knows some keypoints better than the others. Their scores then add up to how sure the
person is, and the mean of their poses is the mean of the mixture that they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.oks import keypoint_similarity, keypoint_spreads

SMALLEST_AREA = np.finfo(np.float64).tiny
"""Of a pose that is one point: what does not coincide with it is another."""


def owners(
    keypoints_xy: NDArray[np.floating],
    areas: NDArray[np.floating],
    sigmas: NDArray[np.floating],
    kept: NDArray[np.intp],
    threshold: float,
) -> NDArray[np.intp]:
    """Say which kept pose each candidate belongs to: the best of those that suppress it (see `nms.oks_nms`).

    Args:
        keypoints_xy: (N, K, 2), best first.
        areas: (N,), the square of the keypoints' unit.
        sigmas: (K,), COCO's per-keypoint constants.
        kept: (M,) what NMS kept, ascending.
        threshold: the one of NMS.

    Returns:
        (N,) positions in `kept`; -1 for a candidate of none of them, which NMS did not reach.
    """
    points, area = keypoints_xy.astype(np.float64), areas.astype(np.float64)
    spreads = keypoint_spreads(sigmas)
    owner = np.full(len(points), -1, np.intp)
    for position, candidate in enumerate(kept.tolist()):
        free = np.flatnonzero(owner < 0)
        squared = np.square(points[free] - points[candidate]).sum(axis=2)
        both = np.maximum((area[free] + area[candidate]) / 2, SMALLEST_AREA)
        with np.errstate(over="ignore"):
            similarity = keypoint_similarity(squared, spreads, both[:, None]).mean(axis=1)
        owner[free[similarity > threshold]] = position
        owner[candidate] = position
    return owner


def merged(
    keypoints_xy: NDArray[np.float32],
    variances: NDArray[np.float32],
    scores: NDArray[np.float32],
    owner: NDArray[np.intp],
    count: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Merge candidates, weighted by their scores.

    Args:
        keypoints_xy: (N, K, 2).
        variances: (N, K, 2) of each coordinate, the square of the keypoints' unit.
        scores: (N,).
        owner: (N,) which of the poses each belongs to, or -1.
        count: M, of the poses; each has a candidate.

    Returns:
        (M, K, 2) means; (M, K, 2) variances, of the mixture: within the candidates and between them; (M,) sums of the
        scores, at most 1.
    """
    mine = (owner == np.arange(count)[:, None]) * scores.astype(np.float64)
    sums = mine.sum(axis=1)
    weights = mine / sums[:, None]
    means = np.tensordot(weights, keypoints_xy, axes=1)
    apart = np.square(keypoints_xy - means[owner])
    within = np.tensordot(weights, variances + apart, axes=1)
    return means.astype(np.float32), within.astype(np.float32), np.minimum(sums, 1.0).astype(np.float32)
