"""How far joints in metres are from where they should be: root-aligned and as they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MM = 1000.0
CORRECT_MM = 150.0
"""3DPCK: a joint nearer than this is correct (Mehta et al., 3DV 2017)."""


@dataclass(frozen=True)
class JointErrors:
    """Of N pairs of poses of K joints."""

    relative_mm: NDArray[np.float64]
    """(N, K): with both roots in one place; its mean is the MPJPE."""
    absolute_mm: NDArray[np.float64]
    """(N, K): in the camera's axes."""
    root_depth_mm: NDArray[np.float64]
    """(N,): predicted less true depth of the root."""
    root_depth_true_mm: NDArray[np.float64]
    """(N,)"""


def joint_errors(predicted: NDArray[np.floating], true: NDArray[np.floating], root: Sequence[int]) -> JointErrors:
    """Compare poses one by one.

    Args:
        predicted: (N, K, 3) metres in the camera's axes.
        true: likewise.
        root: the joints whose middle is the root.
    """
    ours, theirs = MM * predicted.astype(np.float64), MM * true.astype(np.float64)
    our_root, their_root = (points[:, list(root)].mean(axis=1, keepdims=True) for points in (ours, theirs))
    relative = np.linalg.norm((ours - our_root) - (theirs - their_root), axis=2)
    depth, true_depth = our_root[:, 0, 2], their_root[:, 0, 2]
    return JointErrors(relative, np.linalg.norm(ours - theirs, axis=2), depth - true_depth, true_depth)


def share_correct(errors_mm: NDArray[np.float64], undetected: int = 0) -> float | None:
    """Return the 3DPCK of joints (N, K), with so many people more of whom no joint is right; None of nobody."""
    people, joints = errors_mm.shape
    if not (people + undetected) * joints:
        return None
    correct = int(np.count_nonzero(errors_mm < CORRECT_MM))
    return float(correct / ((people + undetected) * joints))
