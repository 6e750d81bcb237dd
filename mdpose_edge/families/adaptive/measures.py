"""What the gate measures of this family beside what any model has: how far its peaks move, and whose they become.

A person of the reference is compared with the candidate's nearest, if the two are likely one: OKS shows how far off a
keypoint is beside a person's size, while a shift of every peak by a fraction of a cell is what INT8 does first.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.families.adaptive.decode import EVALUATION, AdaptiveDecoder, Grouped
from mdpose_edge.families.measure import Finding, Measure, Measured, Observation, ObservedImage, same_cells
from mdpose_edge.oks import oks_matrix
from mdpose_edge.spec import ModelSpec

GROUP = "Peaks"
SAME = 0.5
"""OKS from which on a person of one side is taken for that of the other."""
SEEN = 0.1
"""Of the centre map: people whom the reference hardly sees are not compared."""
PEAK_SHIFT_LIMIT = 1.0
"""px of the network input, a quarter of a cell: the mean over keypoints that both sides take from a peak."""
ABSORB_FLIPS_LIMIT = 5.0
"""Percent of the keypoints that one side alone takes from a peak."""


class PeakMeasure:
    """How far the peaks of two artifacts of the same cells are apart, and how often but one of them has any.

    Args:
        candidate: its spec.
        reference: its spec, or None where only its results are known.
    """

    def __init__(self, candidate: ModelSpec, reference: ModelSpec | None) -> None:
        comparable = reference is not None and same_cells(candidate, reference)
        self._note = "" if comparable else "different cells"
        self._sides = tuple(None if spec is None else _bare(spec) for spec in (candidate, reference))
        self._sigmas = candidate.keypoints.sigmas
        self._shifts: list[NDArray[np.float64]] = []
        self._flips: list[NDArray[np.bool_]] = []

    def add(self, image: ObservedImage) -> None:
        """Count one image: see `Measure`."""
        if self._note:
            return
        pairs = zip(self._sides, (image.candidate, image.reference), strict=True)
        candidate, reference = (_people(decoder, seen) for decoder, seen in pairs)
        for row in np.flatnonzero(reference.centre > SEEN):
            match = _nearest(candidate, reference, int(row), self._sigmas)
            if match is None:
                continue
            both = candidate.absorbed[match] & reference.absorbed[row]
            apart = candidate.keypoints_xy[match].astype(np.float64) - reference.keypoints_xy[row]
            self._shifts.append(np.hypot(*apart[both].T))
            self._flips.append(candidate.absorbed[match] != reference.absorbed[row])

    def result(self) -> Measured:
        """Return what was found: see `Measure`."""
        shifts = np.concatenate([*self._shifts, np.zeros(0)])
        flips = np.concatenate([*self._flips, np.zeros(0, np.bool_)])
        note = self._note or ("" if len(shifts) else "nobody is found by both")
        shift = float(shifts.mean()) if len(shifts) else None
        flipped = 100.0 * float(flips.mean()) if len(flips) else None
        rows = (
            ("peak_shift_px", "keypoints from peaks apart", "px of the input", shift, PEAK_SHIFT_LIMIT),
            ("absorb_flips", "keypoints from a peak of one side alone", "%", flipped, ABSORB_FLIPS_LIMIT),
        )
        return Measured(tuple(_finding(*row, note) for row in rows))


def measures(candidate: ModelSpec, reference: ModelSpec | None) -> tuple[Measure, ...]:
    """Return the family's measures for a check: see registry.make_measures."""
    return (PeakMeasure(candidate, reference),)


def _finding(key: str, label: str, unit: str, apart: float | None, limit: float, note: str) -> Finding:
    return Finding(key, GROUP, label, unit, None, None, apart, apart, limit, note)


def _bare(spec: ModelSpec) -> AdaptiveDecoder:
    """Return a decoder without the scoring net, which moves nothing."""
    return AdaptiveDecoder(
        replace(spec, constants={**spec.constants, "scorer": None}), replace(EVALUATION, score_threshold=0.0)
    )


def _people(decoder: AdaptiveDecoder | None, seen: Observation) -> Grouped:
    assert decoder is not None and seen.heads is not None
    return decoder.group(seen.heads)


def _nearest(candidate: Grouped, reference: Grouped, row: int, sigmas: tuple[float, ...]) -> int | None:
    """Return which of the candidate's people is the reference's, or None."""
    if not len(candidate.centre):
        return None
    person = reference.keypoints_xy[row : row + 1]
    area = np.prod(person.max(axis=1) - person.min(axis=1), axis=1)
    oks = oks_matrix(candidate.keypoints_xy, person, np.ones(person.shape[:2], np.bool_), area, sigmas)[:, 0]
    best = int(oks.argmax())
    return best if oks[best] >= SAME else None
