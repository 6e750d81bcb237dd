"""Poses: what an estimator returns for one frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Poses:
    """N people in one frame, best score first.

    Coordinates are continuous pixels of the frame: pixel i covers [i, i + 1). They are never zeroed for low confidence,
    and may lie outside the frame where a person does.
    """

    keypoints_xy: NDArray[np.float32]
    """(N, K, 2) px."""
    scores: NDArray[np.float32]
    """(N,) in [0, 1]."""
    sigma_xy: NDArray[np.float32]
    """(N, K, 2) px: the Laplace scale (mean absolute deviation) of each coordinate."""

    def __post_init__(self) -> None:
        keypoints, scores, sigma = self.keypoints_xy, self.scores, self.sigma_xy
        if keypoints.ndim != 3 or keypoints.shape[2] != 2:
            raise ValueError(f"keypoints_xy: expected shape (N, K, 2), got {keypoints.shape}")
        if scores.shape != keypoints.shape[:1]:
            raise ValueError(f"scores: expected shape {keypoints.shape[:1]}, got {scores.shape}")
        if sigma.shape != keypoints.shape:
            raise ValueError(f"sigma_xy: expected shape {keypoints.shape}, got {sigma.shape}")

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def boxes_xyxy(self) -> NDArray[np.float32]:
        """(N, 4) px: the smallest box around each person's keypoints."""
        return np.concatenate([self.keypoints_xy.min(axis=1), self.keypoints_xy.max(axis=1)], axis=1)

    @classmethod
    def empty(cls, num_keypoints: int) -> Poses:
        """Make the result of a frame without people."""
        nothing = np.zeros((0, num_keypoints, 2), np.float32)
        return cls(nothing, np.zeros(0, np.float32), nothing.copy())
