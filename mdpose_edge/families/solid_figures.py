"""Figures of the third dimension: MPJPE, 3DPCK, and how deep people are, with the recall beside them.

A person who is not found is not free: the shares count everybody, and the mean errors stand beside the share found.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.families.solid import matched_pairs
from mdpose_edge.pose_errors import MM, joint_errors, share_correct
from mdpose_edge.poses import Poses

SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, np.inf)}
"""By the person's area, px² (COCO's bounds)."""
DISTANCES = {"near": (0.0, 4.0), "middle": (4.0, 8.0), "far": (8.0, np.inf)}
"""By the depth of the root, m."""


class SolidFigures:
    """Keeps what a split's images say.

    Args:
        root: the keypoints whose middle is the root.
        sigmas: the keypoints' OKS constants, by which poses are given to people.
    """

    def __init__(self, root: Sequence[int], sigmas: Sequence[float]) -> None:
        self._root, self._sigmas = tuple(root), tuple(sigmas)
        self._rows: list[tuple[NDArray[np.float64], ...]] = []

    def add(
        self,
        poses: Poses,
        keypoints: NDArray[np.floating],
        areas: NDArray[np.floating],
        joints: NDArray[np.floating],
    ) -> None:
        """Count the people of an image whose joints are known in metres.

        Args:
            poses: of three dimensions.
            keypoints: (P, K, 3) px and COCO's v.
            areas: (P,) px².
            joints: (P, K, 3) m, NaN for people of two dimensions.
        """
        assert poses.keypoints_3d is not None
        found, who = matched_pairs(poses, keypoints[..., :2], keypoints[..., 2] > 0, areas, self._sigmas)
        solid = np.isfinite(joints).all(axis=(1, 2)) & (keypoints[..., 2] > 0).any(axis=1)
        pose_of = np.full(len(joints), -1)
        pose_of[who] = found
        people = np.flatnonzero(solid)
        guessed = poses.keypoints_3d[np.maximum(pose_of[people], 0)] if len(poses) else np.zeros_like(joints[people])
        errors = joint_errors(guessed, joints[people], self._root)
        self._rows.append(
            (
                (pose_of[people] >= 0).astype(np.float64),
                errors.relative_mm,
                errors.absolute_mm,
                errors.root_depth_mm,
                errors.root_depth_true_mm / MM,
                areas[people].astype(np.float64),
            )
        )

    def figures(self) -> dict[str, float | None]:
        """Return the figures of all people, and of those of a size and at a distance; None where there is nobody."""
        if not self._rows:
            return {}
        columns = [np.concatenate(column) for column in zip(*self._rows, strict=True)]
        everybody = np.ones(len(columns[0]), np.bool_)
        depth, area = columns[4], columns[5]
        found = _figures(columns, everybody)
        for values, slices in ((area, SIZES), (depth, DISTANCES)):
            for name, (low, high) in slices.items():
                part = _figures(columns, (values >= low) & (values < high))
                found |= {f"{key}_{name}": part[key] for key in ("people", "recall", "MPJPE_mm", "root_depth_mm")}
        return found


def _figures(columns: Sequence[NDArray[np.float64]], chosen: NDArray[np.bool_]) -> dict[str, float | None]:
    was_seen, relative, absolute, depth_error, depth, _ = (column[chosen] for column in columns)
    seen = was_seen > 0
    missed = int((~seen).sum())
    deep = np.abs(depth_error[seen])
    return {
        "people": float(len(seen)),
        "recall": _mean(seen),
        "MPJPE_mm": _mean(relative[seen]),
        "PCK_rel": share_correct(relative[seen], missed),
        "PCK_abs": share_correct(absolute[seen], missed),
        "PCK_rel_found": share_correct(relative[seen]),
        "PCK_abs_found": share_correct(absolute[seen]),
        "root_depth_mm": _mean(deep),
        "root_depth_share": _mean(deep / (MM * depth[seen])),
    }


def _mean(values: NDArray[np.floating] | NDArray[np.bool_]) -> float | None:
    return float(values.mean()) if values.size else None
