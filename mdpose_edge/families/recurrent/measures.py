"""What the gate measures of this family beside what any model has: the count of people, and errors step by step.

A step's state goes into the next one, so that an error may grow. Maps after the stop mean nothing, and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mdpose_edge.families.measure import (
    Finding,
    Measure,
    Measured,
    Observation,
    ObservedImage,
    Pair,
    same_cells,
)
from mdpose_edge.families.recurrent.decode import RecurrentDecoder
from mdpose_edge.families.recurrent.heads import constants_of, heat_names
from mdpose_edge.spec import ModelSpec

GROUP = "Steps"


@dataclass(frozen=True)
class StepLimits:
    """How far a candidate's steps may be from the reference's."""

    flips: float = 10.0
    """% of the images in which the two stop after another number of people."""
    count: float = 0.1
    """People per image, by which the mean error of the count may rise."""
    error: float = 20.0
    """% of the spread of a step's maps, root mean square, as any head tensor's."""


LIMITS = StepLimits()


def measures(candidate: ModelSpec, reference: ModelSpec | None) -> tuple[Measure, ...]:
    """Return the family's measures for a check: see registry.make_measures."""
    return (StepMeasure(candidate, reference),)


class StepMeasure:
    """How many people both sides count, and how far their maps are apart, step by step.

    Args:
        candidate: its spec.
        reference: its spec, or None where only its results are known.
    """

    def __init__(self, candidate: ModelSpec, reference: ModelSpec | None) -> None:
        self._decoders = tuple(_decoder(spec) for spec in (candidate, reference))
        self._note = "one side has no steps" if None in self._decoders else ""
        comparable = reference is not None and same_cells(candidate, reference)
        self._incomparable = self._note or ("" if comparable else "different cells")
        people = constants_of(candidate).people
        self._names = heat_names(people)
        self._sums = np.zeros((people, 4))
        """Per step: values, their sum, their squares, the squares of the differences."""
        self._counts: list[tuple[int, int]] = []
        self._errors: list[tuple[int, int]] = []

    def add(self, image: ObservedImage) -> None:
        """Count one image: see `Measure`."""
        sides = (image.candidate, image.reference)
        counts = [_count(decoder, seen) for decoder, seen in zip(self._decoders, sides, strict=True)]
        candidate, reference = counts
        if candidate is None or reference is None:
            return
        self._counts.append((candidate, reference))
        if image.truth is not None:
            people = int(image.truth.labelled.any(axis=1).sum())
            self._errors.append((abs(candidate - people), abs(reference - people)))
        if not self._incomparable:
            self._add_maps(image.candidate, image.reference, reference)

    def _add_maps(self, candidate: Observation, reference: Observation, count: int) -> None:
        assert candidate.heads is not None and reference.heads is not None
        for sums, name in zip(self._sums[:count], self._names, strict=False):
            expected = reference.heads[name].astype(np.float64)
            apart = np.square(candidate.heads[name] - expected).sum()
            sums += (expected.size, expected.sum(), np.square(expected).sum(), apart)

    def result(self) -> Measured:
        """Return what was found: see `Measure`."""
        errors = step_errors(self._sums)
        seen = errors[np.isfinite(errors)]
        listed = ", ".join(f"{error:.1f}" for error in seen)
        remark = f"Error of the maps of each step, % of their spread: {listed}." if len(seen) else ""
        return Measured(tuple(self._findings(errors)), remark=remark)

    def _findings(self, errors: np.ndarray) -> Iterator[Finding]:
        counts = np.array(self._counts).reshape(-1, 2)
        flips = 100.0 * float((counts[:, 0] != counts[:, 1]).mean()) if len(counts) else None
        note = self._note or ("" if len(counts) else "no head tensors")
        label = "images with another number of people"
        yield Finding("stop_flips", GROUP, label, "% of images", None, None, flips, flips, LIMITS.flips, note)
        worst = float(np.nanmax(errors)) if np.isfinite(errors).any() else None
        label = (
            "largest error of a step's maps"
            if worst is None
            else f"error of the maps of step {np.nanargmax(errors) + 1}"
        )
        note = self._incomparable or ("" if worst is not None else "nobody was found")
        yield Finding("step_error", GROUP, label, "% of the spread", None, None, worst, worst, LIMITS.error, note)
        if self._errors:
            pair = Pair(*np.array(self._errors).mean(axis=0).tolist())
            label, rise = "error of the count of people", pair.change
            yield Finding("count_error", GROUP, label, "people per image", *pair, rise, rise, LIMITS.count)


def step_errors(sums: np.ndarray) -> np.ndarray:
    """Return each step's error as % of the spread of its maps, NaN where nobody was found.

    Args:
        sums: (T, 4) the number of values, their sum, their squares, and the squares of the differences.
    """
    found = np.full(len(sums), np.nan)
    for step, (size, total, squares, apart) in enumerate(sums):
        variance = squares / size - (total / size) ** 2 if size else 0.0
        if variance > 0:
            found[step] = 100.0 * (apart / size / variance) ** 0.5
    return found


def _decoder(spec: ModelSpec | None) -> RecurrentDecoder | None:
    if spec is None or spec.family != "recurrent":
        return None
    return RecurrentDecoder(spec, spec.decode)


def _count(decoder: RecurrentDecoder | None, seen: Observation) -> int | None:
    return None if decoder is None or seen.heads is None else decoder.count(seen.heads)
