"""Poses: what an estimator returns for one frame."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Poses:
    """N people in one frame, best score first.

    Coordinates are continuous pixels of the frame: pixel i covers [i, i + 1). They are never zeroed for low confidence,
    and may lie outside the frame where a person does.

        poses: Poses = estimator(frame_bgr)
        for keypoints_xy, score in zip(poses.keypoints_xy, poses.scores):
            print(f"{score:.2f}", keypoints_xy[0])

    Raises:
        ValueError: an array is not of the shape that its line below says.
    """

    keypoints_xy: NDArray[np.float32]
    """(N, K, 2) px; K is 0 where the model finds boxes alone."""
    scores: NDArray[np.float32]
    """(N,) in [0, 1]."""
    sigma_xy: NDArray[np.float32]
    """(N, K, 2) px: the standard deviation of each coordinate."""
    model_boxes_xyxy: NDArray[np.float32] | None = None
    """(N, 4) px, where the model itself gives boxes; see `boxes_xyxy`."""
    classes: NDArray[np.int64] | None = None
    """(N,) indices into `ModelSpec.classes`, or None where a model knows one class."""
    keypoints_3d: NDArray[np.float32] | None = None
    """(N, K, 3) m in the camera's axes (x right, y down, z forward), or None for a model of two dimensions."""
    metric: bool = False
    """Whether `keypoints_3d` are metres; False where the camera was guessed, so that their scale is too."""

    def __post_init__(self) -> None:
        keypoints, count = self.keypoints_xy, len(self.keypoints_xy)
        if keypoints.ndim != 3 or keypoints.shape[2] != 2:
            raise ValueError(f"keypoints_xy: expected shape (N, K, 2), got {keypoints.shape}")
        shapes = {
            "scores": (count,),
            "sigma_xy": keypoints.shape,
            "model_boxes_xyxy": (count, 4),
            "classes": (count,),
            "keypoints_3d": (*keypoints.shape[:2], 3),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
        if not keypoints.shape[1] and self.model_boxes_xyxy is None:
            raise ValueError("model_boxes_xyxy: expected boxes where there are no keypoints, got none")

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def boxes_xyxy(self) -> NDArray[np.float32]:
        """(N, 4) px: the model's own boxes, or the smallest box around each person's keypoints."""
        if self.model_boxes_xyxy is not None:
            return self.model_boxes_xyxy
        return np.concatenate([self.keypoints_xy.min(axis=1), self.keypoints_xy.max(axis=1)], axis=1)

    def take(self, indices: NDArray[np.intp] | NDArray[np.bool_]) -> Poses:
        """Return some of the poses, chosen as numpy chooses rows."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        chosen: dict[str, Any] = {
            name: array[indices] for name, array in arrays.items() if isinstance(array, np.ndarray)
        }
        return replace(self, **chosen)

    def scaled(self, factor: float) -> Poses:
        """Return the poses in a frame that is enlarged by a factor; what is in metres stays."""
        by = np.float32(factor)
        boxes = None if self.model_boxes_xyxy is None else self.model_boxes_xyxy * by
        return replace(self, keypoints_xy=self.keypoints_xy * by, sigma_xy=self.sigma_xy * by, model_boxes_xyxy=boxes)

    @classmethod
    def empty(cls, num_keypoints: int) -> Poses:
        """Return the result of a frame without people."""
        nothing = np.zeros((0, num_keypoints, 2), np.float32)
        boxes = None if num_keypoints else np.zeros((0, 4), np.float32)
        return cls(nothing, np.zeros(0, np.float32), nothing.copy(), boxes)
