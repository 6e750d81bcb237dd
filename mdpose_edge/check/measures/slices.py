"""The hard parts of a split, each with an accuracy of its own: a mean hides what happens to few."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.check.matching import box_iou
from mdpose_edge.datasets.coco import CocoSplit

SMALL_AREA, LARGE_AREA = 32.0**2, 96.0**2
"""px²: COCO's bounds. Its own figures for keypoints leave small people out, where fine detail is lost first."""
CROWDED_IOU = 0.3
"""Of a person's box with a neighbour's. OCHuman's 0.5 leaves too few people of an ordinary split to measure."""
OCCLUDED_SHARE = 0.3
"""Of a person's labelled keypoints that are hidden (v = 1)."""


@dataclass(frozen=True)
class Slice:
    """A part of the annotated people."""

    name: str
    definition: str
    members: Callable[[CocoSplit], NDArray[np.bool_]]
    """Maps a split to (people,): who belongs to it."""


def restrict(split: CocoSplit, members: NDArray[np.bool_]) -> CocoSplit:
    """Make a split in which only the members count.

    The others stay where they are, but as COCO treats people without labels: a pose on one of them is neither right nor
    wrong.
    """
    return dataclasses.replace(split, num_keypoints=np.where(members, split.num_keypoints, 0))


def labelled_people(split: CocoSplit) -> NDArray[np.bool_]:
    """Return (people,): those that COCO's protocol counts."""
    return (split.num_keypoints > 0) & ~split.iscrowd


def neighbour_iou(split: CocoSplit) -> NDArray[np.float64]:
    """Return (people,): the largest IoU of each person's box with that of another person in the image."""
    result = np.zeros(len(split.areas), np.float64)
    for first, stop in zip(split.first_person[:-1], split.first_person[1:], strict=True):
        boxes = split.boxes_xywh[first:stop]
        overlaps = box_iou(boxes, boxes)
        np.fill_diagonal(overlaps, 0.0)
        result[first:stop] = overlaps.max(axis=1, initial=0.0)
    return result


def crowded(split: CocoSplit) -> NDArray[np.bool_]:
    """Return (people,): those whose box overlaps that of another person in the image."""
    return neighbour_iou(split) > CROWDED_IOU


def occluded(split: CocoSplit) -> NDArray[np.bool_]:
    """Return (people,): those of whose labelled keypoints many are hidden."""
    visibility = split.keypoints[:, :, 2]
    labelled = (visibility > 0).sum(axis=1)
    hidden: NDArray[np.bool_] = (visibility == 1).sum(axis=1) > OCCLUDED_SHARE * np.maximum(labelled, 1)
    return hidden


SLICES = (
    Slice("small", "area under 32² px", lambda split: split.areas < SMALL_AREA),
    Slice("medium", "area 32² to 96² px", lambda split: (split.areas >= SMALL_AREA) & (split.areas < LARGE_AREA)),
    Slice("large", "area from 96² px", lambda split: split.areas >= LARGE_AREA),
    Slice("crowded", f"box overlaps a neighbour's, IoU over {CROWDED_IOU:g}", crowded),
    Slice("occluded", f"over {OCCLUDED_SHARE:.0%} of the labelled keypoints hidden", occluded),
)
