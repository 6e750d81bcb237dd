"""What readers take as it stands, though it is most likely wrong: counted, so that an evaluation and a training tell.

`mdpose-edge data check` lists each one, under the same name, and keypoints outside their box besides: drawn people have
some, and no figure rests on it. All arrays at once: a training set has many people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGE_MARGIN_PX = 1.0
"""How far outside the image a keypoint or box may lie: COCO's own files round to whole pixels and halves."""
AREA_SHARES = 0.01, 1.1
"""Of its box, what the area of what is in it can be: in a sample of COCO it is 0.12 to 0.95."""
FEW_KEYPOINTS = 3
"""Below so many, two people may share all that are labelled; their boxes tell."""


def doubts_of(
    keypoints: NDArray[np.float64],
    boxes_xywh: NDArray[np.float64],
    areas: NDArray[np.float64],
    num_keypoints: NDArray[np.int64],
    iscrowd: NDArray[np.bool_],
    wh: NDArray[np.float64],
    owners: NDArray[np.int64],
) -> dict[str, int]:
    """Count people by what is doubtful about them.

    Args:
        keypoints: (P, K, 3) x and y in px, and v, as the file has them.
        boxes_xywh: (P, 4) px.
        areas: (P,) px².
        num_keypoints: (P,), as the file says.
        iscrowd: (P,).
        wh: (P, 2) px: width and height of each one's image.
        owners: (P,): which image that is.

    Returns:
        How many by kind; a kind that nobody shows is not in it.
    """
    labelled = keypoints[:, :, 2] > 0
    alone = ~iscrowd
    found: Mapping[str, Any] = {
        "shares for pixels": are_shares(keypoints, wh),
        "bad visibility": ~np.isin(keypoints[:, :, 2], (0, 1, 2)).all(axis=1),
        "num_keypoints disagrees": labelled.sum(axis=1) != num_keypoints,
        "person twice": _are_twice(keypoints, boxes_xywh, owners) & alone,
        "non-positive box": boxes_xywh[:, 2:].min(axis=1) <= 0,
        "area unlike its box": are_unlike(areas, boxes_xywh) & alone,
        "keypoint outside image": keypoints_outside(keypoints, wh) & alone,
        "box outside image": boxes_outside(boxes_xywh, wh) & alone,
    }
    return {kind: int(rows.sum()) for kind, rows in found.items() if rows.any()}


def doubts_in_words(doubts: Mapping[str, int], data: object) -> str:
    """Tell what is taken as it stands."""
    kinds = ", ".join(f"{kind} ({count})" for kind, count in doubts.items())
    return f"{data}: annotations that seem wrong are taken as they stand: {kinds}; mdpose-edge data check lists them."


def are_shares(keypoints: NDArray[np.float64], wh: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say of whom all labelled keypoints, and several, are within a pixel of the corner: shares of width and height.

    Args:
        keypoints: (P, K, 3) x, y and v.
        wh: (P, 2) px, of the image of each.

    Returns:
        (P,).
    """
    labelled = keypoints[:, :, 2] > 0
    beyond = (keypoints[:, :, :2] < 0) | (keypoints[:, :, :2] > 1)
    placed = (keypoints[:, :, :2] > 0).any(axis=2) & labelled
    several = placed.sum(axis=1) > 1
    shares: NDArray[np.bool_] = np.logical_and.reduce(
        [several, ~(beyond.any(axis=2) & labelled).any(axis=1), wh.min(axis=1) > 2]
    )
    return shares


def are_unlike(areas: NDArray[np.float64], boxes_xywh: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say which areas (P,) cannot be of what a box (P, 4) encloses; what is 0 or less is another fault."""
    sides = boxes_xywh[:, 2:]
    low, high = AREA_SHARES
    least, most = low * sides.prod(axis=1), high * (sides + 2 * IMAGE_MARGIN_PX).prod(axis=1)
    has_both = (areas > 0) & np.all(sides > 0, axis=1)
    unlike: NDArray[np.bool_] = np.logical_and(has_both, (areas < least) | (areas > most))
    return unlike


def keypoints_outside(keypoints: NDArray[np.float64], wh: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say who (P,) has a labelled keypoint (P, K, 3) outside the image, whose sides are (P, 2) px."""
    beyond = _beyond(keypoints[:, :, :2], np.zeros_like(wh)[:, None], wh[:, None]) > IMAGE_MARGIN_PX
    return np.asarray((beyond & (keypoints[:, :, 2] > 0)).any(axis=1), np.bool_)


def boxes_outside(boxes_xywh: NDArray[np.float64], wh: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say which boxes (P, 4) reach out of their image, whose sides are (P, 2) px."""
    corners = np.stack([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)
    outside: NDArray[np.bool_] = _beyond(corners, np.zeros_like(wh)[:, None], wh[:, None]).max(axis=1) > IMAGE_MARGIN_PX
    return outside


def identity(keypoints: NDArray[np.float64], box_xywh: NDArray[np.float64], image: object) -> bytes:
    """Return what two annotations of one person share: the labelled keypoints to a pixel, of a few also the box.

    Args:
        keypoints: (K, 3) x and y in px, and v.
        box_xywh: (4,) px.
        image: which one.
    """
    labelled = keypoints[:, 2] > 0
    places = np.where(labelled[:, None], np.round(keypoints[:, :2]), -1).astype(np.int64)
    box = np.round(box_xywh).astype(np.int64) if labelled.sum() < FEW_KEYPOINTS else np.zeros(0, np.int64)
    return places.tobytes() + box.tobytes() + repr(image).encode()


def _are_twice(
    keypoints: NDArray[np.float64], boxes_xywh: NDArray[np.float64], owners: NDArray[np.int64]
) -> NDArray[np.bool_]:
    seen: set[bytes] = set()
    twice = np.zeros(len(owners), np.bool_)
    for row, (points, box, owner) in enumerate(zip(keypoints, boxes_xywh, owners.tolist(), strict=True)):
        key = identity(points, box, owner)
        twice[row] = key in seen
        seen.add(key)
    return twice


def _beyond(points: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each point (P, N, 2) lies outside its rectangle (P, 1, 2), px."""
    distance: NDArray[np.float64] = np.maximum(np.maximum(low - points, points - high), 0.0).max(axis=2)
    return distance
