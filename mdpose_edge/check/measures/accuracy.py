"""Accuracy: COCO's figures of both sides, and AP on the hard parts of the split."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mdpose_edge.check.measures.slices import SLICES, labelled_people, restrict
from mdpose_edge.datasets.coco import CocoSplit, results_of
from mdpose_edge.errors import ConfigError
from mdpose_edge.evaluate import FIGURES, coco_figures
from mdpose_edge.families.measure import Finding, Measured, ObservedImage, Pair

GROUP, UNIT = "Accuracy", "AP points"
HEADLINE_FIGURES = ("AP50", "AP75", "APM", "APL", "AR")
"""Beside AP itself."""


@dataclass(frozen=True)
class AccuracyLimits:
    """How much accuracy may be lost."""

    max_drop: float = 1.0
    """AP points, of COCO's AP."""
    part_factor: float = 2.0
    """Times `max_drop` for figures that rest on one threshold or on a part of the people: they scatter more than AP,
    which is a mean over ten thresholds and everybody."""
    min_people: int = 30
    """In a slice that is judged: with fewer, one person is worth more than the limit."""

    def __post_init__(self) -> None:
        """Refuse a budget that nothing or everything would hold."""
        if not 0 <= self.max_drop < math.inf:
            got, do = f"{self.max_drop}", "correct it"
            raise ConfigError("--max-drop", expected="AP points, 0 or more", got=got, do=do)


@dataclass(frozen=True)
class SliceAccuracy:
    """AP on a part of the annotated people."""

    name: str
    people: int
    ap: Pair


@dataclass(frozen=True)
class Accuracy:
    """COCO's figures, in [0, 1]."""

    figures: Mapping[str, Pair]
    """FIGURES, at the threshold of an evaluation."""
    deployed: Pair
    """AP as each artifact's own spec decodes."""
    slices: tuple[SliceAccuracy, ...]


class AccuracyMeasure:
    """COCO's figures at the threshold of an evaluation, AP at that of use, and AP of each slice.

    Args:
        split: the annotations.
        num_images: the check is on the first so many.
        sigmas: the keypoints' OKS constants.
        limits: on the loss.
    """

    def __init__(self, split: CocoSplit, num_images: int, sigmas: Sequence[float], limits: AccuracyLimits) -> None:
        self._split, self._num_images, self._sigmas, self._limits = split, num_images, sigmas, limits
        self._evaluated: tuple[list[Any], list[Any]] = ([], [])
        self._deployed: tuple[list[Any], list[Any]] = ([], [])

    def add(self, image: ObservedImage) -> None:
        """Count one image: see `Measure`."""
        assert image.truth is not None
        for side, seen in enumerate((image.candidate, image.reference)):
            self._evaluated[side].extend(results_of(image.truth.image_id, seen.poses, self._split.result_ids))
            self._deployed[side].extend(results_of(image.truth.image_id, seen.deployed, self._split.result_ids))

    def result(self) -> Measured:
        """Return what was found: see `Measure`."""
        definitions = "; ".join(f"{one.name}: {one.definition}" for one in SLICES)
        return Measured(tuple(judge_accuracy(self.accuracy(), self._limits)), remark=f"Slices: {definitions}.")

    def accuracy(self) -> Accuracy:
        """Return the figures of the images that were counted."""
        both = [self._figures(rows, self._split) for rows in self._evaluated]
        counted = labelled_people(self._split)
        counted[self._split.first_person[self._num_images] :] = False
        slices = []
        for one in SLICES:
            members = one.members(self._split) & counted
            ap = self._ap(self._evaluated, restrict(self._split, members))
            slices.append(SliceAccuracy(one.name, int(members.sum()), ap))
        pairs = {name: Pair(*(side[name] for side in both)) for name in FIGURES}
        return Accuracy(pairs, self._ap(self._deployed, self._split), tuple(slices))

    def _ap(self, results: tuple[Sequence[Any], Sequence[Any]], part: CocoSplit) -> Pair:
        return Pair(*(self._figures(rows, part)["AP"] for rows in results))

    def _figures(self, rows: Sequence[Any], part: CocoSplit) -> dict[str, float | None]:
        return coco_figures(part, rows, sigmas=self._sigmas, num_images=self._num_images)


def judge_accuracy(accuracy: Accuracy, limits: AccuracyLimits) -> Iterator[Finding]:
    """Judge the headline figures, AP at the threshold of use, and that of each slice."""
    part = limits.part_factor * limits.max_drop
    yield judge_drop("AP", "AP", accuracy.figures["AP"], limits.max_drop)
    for name in HEADLINE_FIGURES:
        yield judge_drop(name, name, accuracy.figures[name], part)
    yield judge_drop("AP_deployed", "AP at the threshold of use", accuracy.deployed, part)
    for one in accuracy.slices:
        few = f"{one.people} people, fewer than {limits.min_people}" if one.people < limits.min_people else ""
        yield judge_drop(f"AP_{one.name}", f"AP, {one.name}", one.ap, part, few)


def judge_drop(key: str, label: str, pair: Pair, limit: float, note: str = "") -> Finding:
    """Judge a figure in [0, 1] that should not fall."""
    points = pair.percent()
    change = points.change
    if change is None:
        return Finding(key, GROUP, label, UNIT, *points, None, None, limit, "no such people")
    if not points.reference:
        note = note or "the reference is at 0"
    return Finding(key, GROUP, label, UNIT, *points, change, -change, limit, note)
