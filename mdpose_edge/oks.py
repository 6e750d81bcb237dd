"""COCO's object keypoint similarity (OKS): mean_k exp(-d_k^2 / (2 (2 sigma_k)^2 area))."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def keypoint_spreads(sigmas: Sequence[float] | NDArray[np.floating]) -> NDArray[np.float64]:
    """Return 2 (2 sigma_k)^2 of each keypoint (K,): what a squared distance is divided by, as a part of the area."""
    return 8.0 * np.square(sigmas, dtype=np.float64)


def keypoint_similarity(
    squared: NDArray[np.float64], spreads: NDArray[np.float64], areas: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the similarity of each keypoint, in [0, 1]; the OKS is the mean over those that count.

    Args:
        squared: distances, of any shape; px².
        spreads: `keypoint_spreads`, and
        areas: of the objects, px², both of shapes that broadcast to it.
    """
    similarity: NDArray[np.float64] = np.exp(-squared / (spreads * areas))
    return similarity


def oks_matrix(
    poses_xy: NDArray[np.floating],
    people_xy: NDArray[np.floating],
    labelled: NDArray[np.bool_],
    areas: NDArray[np.floating],
    sigmas: Sequence[float],
) -> NDArray[np.float64]:
    """Compute the OKS of poses with people.

    Args:
        poses_xy: (A, K, 2) px.
        people_xy: (B, K, 2) px.
        labelled: (B, K): keypoints that count.
        areas: (B,) px².
        sigmas: K constants of the keypoints.

    Returns:
        (A, B) in [0, 1]; 0 for a person without labels.
    """
    squared = np.square(poses_xy[:, None].astype(np.float64) - people_xy[None]).sum(axis=3)
    sizes = np.maximum(areas, np.spacing(1.0))[:, None]
    similarity = np.where(labelled, keypoint_similarity(squared, keypoint_spreads(sigmas), sizes), 0.0)
    oks: NDArray[np.float64] = similarity.sum(axis=2) / np.maximum(labelled.sum(axis=1), 1)
    return oks
