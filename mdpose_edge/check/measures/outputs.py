"""How far tensors are from those of the reference, value by value: head tensors, and layers inside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.families.base import Heads
from mdpose_edge.families.measure import Distance, Finding, Measured, Observation, ObservedImage, same_cells
from mdpose_edge.spec import ModelSpec

KEY = "output_error"
GROUP, UNIT = "Head tensors", "% of the spread"


@dataclass(frozen=True)
class OutputLimits:
    """How far head tensors may be from the reference's. Where it comes from is measured in docs/gate.md."""

    error: float = 20.0
    """% of the spread of the reference's values, root mean square, of the head tensor that is worst off."""


@dataclass(frozen=True)
class TensorError:
    """How far one tensor is from the reference's, over all images."""

    name: str
    rms: float
    """Root mean square of the difference."""
    spread: float
    """Standard deviation of the reference's values."""
    largest: float
    """Of the differences."""

    @property
    def relative(self) -> float:
        """The error as a part of the spread; infinite where a constant is missed."""
        if not self.rms:
            return 0.0
        return self.rms / self.spread if self.spread else float("inf")


@dataclass
class OutputSums:
    """Sums up what an TensorError says, image by image."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    error_squares: float = 0.0
    largest: float = 0.0

    def add(self, got: NDArray[np.floating], expected: NDArray[np.floating]) -> None:
        """Count the values of one image, both of one shape."""
        difference = got.astype(np.float64) - expected
        self.count += expected.size
        self.total += float(expected.sum(dtype=np.float64))
        self.squares += float(np.square(expected, dtype=np.float64).sum())
        self.error_squares += float(np.square(difference).sum())
        self.largest = max(self.largest, float(np.abs(difference).max()))

    def merge(self, other: OutputSums) -> None:
        """Count the values that another has counted."""
        self.count += other.count
        self.total += other.total
        self.squares += other.squares
        self.error_squares += other.error_squares
        self.largest = max(self.largest, other.largest)

    def error(self, name: str) -> TensorError:
        """Return what was found; at least one image was counted."""
        variance = self.squares / self.count - (self.total / self.count) ** 2
        return TensorError(name, (self.error_squares / self.count) ** 0.5, max(variance, 0.0) ** 0.5, self.largest)


class OutputMeasure:
    """The relative error of each head tensor, of which the largest is judged.

    Args:
        candidate: its spec.
        reference: its spec, or None where only its results are known.
        limits: on the error.
    """

    def __init__(self, candidate: ModelSpec, reference: ModelSpec | None, limits: OutputLimits) -> None:
        self._limits = limits
        self._note = "one side has no head tensors"
        if reference is not None:
            self._note = "" if same_cells(candidate, reference) else "different cells"
        self._sums = {name: OutputSums() for name in candidate.outputs}
        self._per_image: list[float] = []

    @property
    def errors(self) -> tuple[TensorError, ...]:
        """Of each head tensor; none where they cannot be compared."""
        return () if self._note else tuple(sums.error(name) for name, sums in self._sums.items())

    def add(self, image: ObservedImage) -> None:
        """Count one image: see `Measure`."""
        if self._note:
            return
        here = {name: OutputSums() for name in self._sums}
        _count(here, image.candidate.heads, image.reference.heads)
        self._per_image.append(max(sums.error(name).relative for name, sums in here.items()))
        for name, sums in here.items():
            self._sums[name].merge(sums)

    def result(self) -> Measured:
        """Return what was found: see `Measure`."""
        finding = judge_outputs(self.errors, self._note, self._limits)
        return Measured((finding,), per_image=None if self._note else np.array(self._per_image))


def judge_outputs(errors: Iterable[TensorError], note: str, limits: OutputLimits) -> Finding:
    """Judge the head tensor that is worst off; the note says why there is none."""
    worst = max(errors, key=lambda error: error.relative, default=None)
    percent = None if worst is None else 100.0 * worst.relative
    label = "largest error of a head tensor" + ("" if worst is None else f", {worst.name}")
    return Finding(KEY, GROUP, label, UNIT, None, None, percent, percent, limits.error, note)


def output_distance(spec: ModelSpec) -> Distance:
    """Return the distance of head tensors: what accuracy control ranks layers by where a family has none of its own.

    Each counts by its error as a part of its spread, and alike; one that never varies says nothing.
    """

    def between(images: Iterable[tuple[Observation, Observation]]) -> float:
        sums = {name: OutputSums() for name in spec.outputs}
        for one, other in images:
            _count(sums, one.heads, other.heads)
        errors = [one.error(name) for name, one in sums.items()]
        squares = [error.relative**2 for error in errors if error.spread]
        return 100.0 * float(np.sqrt(np.mean(squares))) if squares else 0.0

    return Distance(f"{UNIT} of the outputs", between)


def _count(sums: dict[str, OutputSums], got: Heads | None, expected: Heads | None) -> None:
    assert got is not None and expected is not None
    for name, one in sums.items():
        one.add(got[name], expected[name])
