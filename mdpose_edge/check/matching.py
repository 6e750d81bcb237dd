"""Who is who: poses paired with annotated people, and with the poses of another artifact, by OKS; boxes by IoU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.oks import oks_matrix
from mdpose_edge.poses import Poses

SAME_PERSON_OKS = 0.5
"""From here on two poses show the same person: the loosest threshold of COCO's AP."""


def match(oks: NDArray[np.float64], least: float = SAME_PERSON_OKS) -> NDArray[np.intp]:
    """Return for each pose, best first, the free person that it resembles most.

    Args:
        oks: (A, B), poses in order of score.
        least: a pair below this is none.

    Returns:
        (A,): indices of people, -1 for none.
    """
    chosen = np.full(len(oks), -1)
    free = np.ones(oks.shape[1], np.bool_)
    for pose, row in enumerate(oks):
        if not free.any():
            break
        person = int(np.where(free, row, -1.0).argmax())
        if row[person] >= least:
            chosen[pose], free[person] = person, False
    return chosen


def pose_oks(a: Poses, b: Poses, sigmas: Sequence[float]) -> NDArray[np.float64]:
    """Compute the (A, B) similarity of two artifacts' poses, the box around the second's standing for the area."""
    boxes = b.boxes_xyxy if len(b) else np.zeros((0, 4), np.float32)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    everything = np.ones(b.keypoints_xy.shape[:2], np.bool_)
    return oks_matrix(a.keypoints_xy, b.keypoints_xy, everything, areas, sigmas)


def likeness(a: Poses, b: Poses, sigmas: Sequence[float]) -> NDArray[np.float64]:
    """Compute the (A, B) similarity of two artifacts' poses: OKS; or of boxes, IoU, and 0 between classes."""
    return pose_oks(a, b, sigmas) if sigmas else class_iou(a, b)


def class_iou(a: Poses, b: Poses) -> NDArray[np.float64]:
    """Compute the (A, B) intersections over union of two artifacts' boxes, 0 where the classes differ."""
    return boxes_alike(_xywh(a.boxes_xyxy), classes_of(a), _xywh(b.boxes_xyxy), classes_of(b))


def boxes_alike(
    a_xywh: NDArray[np.float64], a_classes: NDArray[np.int64], b_xywh: NDArray[np.float64], b_classes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Compute the (A, B) intersections over union of boxes, 0 where the classes differ."""
    alike: NDArray[np.float64] = box_iou(a_xywh, b_xywh) * (a_classes[:, None] == b_classes[None])
    return alike


def classes_of(poses: Poses) -> NDArray[np.int64]:
    """Return (N,) the class of each pose; 0 where a model knows one."""
    return np.zeros(len(poses), np.int64) if poses.classes is None else poses.classes


def disagreement(a: Poses, b: Poses, sigmas: Sequence[float]) -> float:
    """Return how far two artifacts' poses of one frame are apart, or boxes alone: 0 the same, 1 nobody in common."""
    if not len(a) + len(b):
        return 0.0
    alike = likeness(a, b, sigmas)
    pairs = match(alike)
    common = float(alike[np.flatnonzero(pairs >= 0), pairs[pairs >= 0]].sum())
    return 1.0 - 2.0 * common / (len(a) + len(b))


def box_iou(a_xywh: NDArray[np.float64], b_xywh: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (A, B) intersections over union; a box without area overlaps nothing."""
    (low_a, sides_a), (low_b, sides_b) = ((boxes[:, :2], boxes[:, 2:]) for boxes in (a_xywh, b_xywh))
    overlap = np.minimum((low_a + sides_a)[:, None], (low_b + sides_b)[None]) - np.maximum(low_a[:, None], low_b[None])
    intersection = np.maximum(overlap, 0.0).prod(axis=2)
    union = sides_a.prod(axis=1)[:, None] + sides_b.prod(axis=1)[None] - intersection
    iou: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0.0)
    return iou


def _xywh(boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float64]:
    corners = boxes_xyxy.astype(np.float64)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def paired_scores(
    a: Poses, b: Poses, threshold: float, sigmas: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scores that two artifacts hand the same people.

    Args:
        a: poses of one artifact, also far below the threshold.
        b: those of the other.
        threshold: people whom neither scores above it are left out.
        sigmas: K constants of the keypoints; none for boxes.

    Returns:
        (N,) scores by `a` and by `b`; 0 where one has no pose of the person at all.
    """
    pairs = match(likeness(a, b, sigmas))
    alone = np.setdiff1d(np.arange(len(b)), pairs)
    of_pairs = np.where(pairs >= 0, np.append(b.scores, 0.0)[pairs], 0.0)  # index -1 meets the appended 0
    scores_a = np.concatenate([a.scores.astype(np.float64), np.zeros(len(alone))])
    scores_b = np.concatenate([of_pairs, b.scores[alone].astype(np.float64)])
    counted = np.maximum(scores_a, scores_b) > threshold
    return scores_a[counted], scores_b[counted]
