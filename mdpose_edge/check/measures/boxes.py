"""Boxes: COCO's figures of both sides by its protocol for detection, and how far the same boxes moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.check.matching import class_iou, match
from mdpose_edge.check.measures.accuracy import AccuracyLimits, judge_drop
from mdpose_edge.check.measures.slices import LARGE_AREA, SMALL_AREA
from mdpose_edge.datasets.coco import CocoSplit, results_of
from mdpose_edge.evaluate import BOX_FIGURES, box_figures
from mdpose_edge.families.measure import Finding, Measured, ObservedImage, Pair
from mdpose_edge.poses import Poses

GROUP, UNIT = "Boxes of the same things", "% of IoU"
HEADLINE_FIGURES = ("AP50", "AP75", "AR100")
"""Beside AP itself."""
SIZES = {"APS": (0.0, SMALL_AREA), "APM": (SMALL_AREA, LARGE_AREA), "APL": (LARGE_AREA, np.inf)}
"""px²: the ranges of area of COCO's figures by size."""


@dataclass(frozen=True)
class BoxLimits:
    """How far boxes may move. Where it comes from is measured in docs/gate.md."""

    iou: float = 8.0
    """% by which the mean IoU of boxes that both sides find may fall below 1."""
    min_boxes: int = 20
    """For a mean that is judged."""


class BoxAccuracyMeasure:
    """COCO's figures for boxes at the threshold of an evaluation, and AP at that of use.

    Args:
        split: the annotations.
        num_images: the check is on the first so many.
        limits: on the loss.
    """

    def __init__(self, split: CocoSplit, num_images: int, limits: AccuracyLimits) -> None:
        self._split, self._num_images, self._limits = split, num_images, limits
        self._evaluated: tuple[list[Any], list[Any]] = ([], [])
        self._deployed: tuple[list[Any], list[Any]] = ([], [])

    def add(self, image: ObservedImage) -> None:
        """Count one image: see `Measure`."""
        assert image.truth is not None
        for side, seen in enumerate((image.candidate, image.reference)):
            ids = self._split.result_ids
            self._evaluated[side].extend(results_of(image.truth.image_id, seen.poses, ids))
            self._deployed[side].extend(results_of(image.truth.image_id, seen.deployed, ids))

    def result(self) -> Measured:
        """Return what was found: see `Measure`."""
        both, deployed = ([self._figures(rows) for rows in sides] for sides in (self._evaluated, self._deployed))
        pairs = {name: Pair(*(side[name] for side in both)) for name in BOX_FIGURES}
        counted = self._split.measured
        counted[self._split.first_person[self._num_images] :] = False
        areas = self._split.areas[counted]
        counts = {name: int(((low <= areas) & (areas < high)).sum()) for name, (low, high) in SIZES.items()}
        used = Pair(*(side["AP"] for side in deployed))
        return Measured(tuple(judge_box_accuracy(pairs, used, counts, self._limits)))

    def _figures(self, rows: list[Any]) -> dict[str, float | None]:
        return box_figures(self._split, rows, num_images=self._num_images)


def judge_box_accuracy(
    figures: Mapping[str, Pair], deployed: Pair, counts: Mapping[str, int], limits: AccuracyLimits
) -> Iterator[Finding]:
    """Judge the headline figures, AP at the threshold of use, and that of each range of sizes.

    Args:
        figures: BOX_FIGURES, in [0, 1].
        deployed: AP as each artifact's own spec decodes.
        counts: the annotated boxes of each range of SIZES.
        limits: on the loss.
    """
    part = limits.part_factor * limits.max_drop
    yield judge_drop("AP", "AP", figures["AP"], limits.max_drop)
    for name in HEADLINE_FIGURES:
        yield judge_drop(name, name, figures[name], part)
    yield judge_drop("AP_deployed", "AP at the threshold of use", deployed, part)
    for name, count in counts.items():
        few = f"{count} boxes, fewer than {limits.min_people}" if count < limits.min_people else ""
        yield judge_drop(name, name, figures[name], part, few)


class BoxShiftMeasure:
    """The IoU of the boxes that both sides find, at the threshold of use.

    Args:
        limits: on the mean.
    """

    def __init__(self, limits: BoxLimits) -> None:
        self._limits = limits
        self._overlaps: list[NDArray[np.float64]] = []

    def add(self, image: ObservedImage) -> None:
        """Count one image: see `Measure`."""
        self._overlaps.append(paired_iou(image.candidate.deployed, image.reference.deployed))

    def result(self) -> Measured:
        """Return what was found: see `Measure`."""
        return Measured((judge_box_shift(np.concatenate(self._overlaps), self._limits),))


def judge_box_shift(overlaps: NDArray[np.float64], limits: BoxLimits) -> Finding:
    """Judge how well boxes that both sides find overlap, each as an IoU in [0, 1]."""
    count = len(overlaps)
    note = f"{count} boxes, fewer than {limits.min_boxes}" if count < limits.min_boxes else ""
    lost = 100.0 * (1.0 - float(overlaps.mean())) if count else None
    return Finding("box_iou", GROUP, "mean IoU below 1", UNIT, None, None, lost, lost, limits.iou, note)


def paired_iou(a: Poses, b: Poses) -> NDArray[np.float64]:
    """Return the IoU of each box that both artifacts find, as of one class and the same thing."""
    alike = class_iou(a, b)
    pairs = match(alike)
    found = np.flatnonzero(pairs >= 0)
    return alike[found, pairs[found]]
