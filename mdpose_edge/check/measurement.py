"""What a check found, before it is judged. None stands for what could not be measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.check.matching import ks_distance
from mdpose_edge.check.slices import Slice
from mdpose_edge.poses import Poses

CENTRAL_SHARES = (0.5, 0.9)
"""Of a Laplace distribution: the intervals whose coverage is measured."""


class Pair(NamedTuple):
    """A figure of both sides; None where it does not exist."""

    candidate: float | None
    reference: float | None


@dataclass(frozen=True)
class SliceAccuracy:
    """AP on a part of the annotated people."""

    slice: Slice
    people: int
    ap: Pair


@dataclass(frozen=True)
class Accuracy:
    """COCO's figures, in [0, 1]."""

    figures: dict[str, Pair]
    """FIGURES, at the threshold of an evaluation."""
    deployed: Pair
    """AP as each artifact's own spec decodes."""
    slices: tuple[SliceAccuracy, ...]


@dataclass(frozen=True)
class Uncertainty:
    """Whether the mixture gives annotated people the likelihood it should, and its sigmas are true."""

    nll: NDArray[np.float64]
    """(people, 2): nats per labelled keypoint, by candidate and reference; NaN where one has no mixture."""
    coverage: dict[float, Pair]
    """Part of the matched, labelled coordinates within the central interval of each of CENTRAL_SHARES."""
    coordinates: int
    """How many there are, on the side that has fewer."""


@dataclass(frozen=True)
class Scores:
    """The scores that both sides hand the same people."""

    candidate: NDArray[np.float64]
    reference: NDArray[np.float64]
    """(N,) each; 0 where the side has no such pose."""

    @property
    def distance(self) -> float | None:
        """Kolmogorov-Smirnov, or None without scores."""
        return ks_distance(self.candidate, self.reference) if len(self.candidate) else None

    @property
    def shift(self) -> float | None:
        """The median of candidate less reference, or None without scores."""
        return float(np.median(self.candidate - self.reference)) if len(self.candidate) else None


@dataclass(frozen=True)
class OutputError:
    """How far one head tensor is from the reference's, over all images."""

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
    """Sums up what an OutputError says, image by image."""

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

    def error(self, name: str) -> OutputError:
        """Say what was found; at least one image was counted."""
        variance = self.squares / self.count - (self.total / self.count) ** 2
        return OutputError(name, (self.error_squares / self.count) ** 0.5, max(variance, 0.0) ** 0.5, self.largest)


@dataclass(frozen=True)
class Divergence:
    """How far the mixtures are apart, image by image: see likelihood.mixture_divergence."""

    weights: NDArray[np.float64]
    """(images,) nats."""
    components: NDArray[np.float64]
    """(images,) nats per keypoint."""
    outputs: tuple[OutputError, ...]


@dataclass(frozen=True)
class ImagePair:
    """What remains of one image: the poses as deployed, for the report, and how far they are apart."""

    index: int
    """In the frames of the check."""
    candidate: Poses
    reference: Poses
    disagreement: float


@dataclass(frozen=True)
class Measurement:
    """All figures of a check. What could not be measured is None."""

    accuracy: Accuracy | None
    uncertainty: Uncertainty | None
    scores: Scores
    divergence: Divergence | None
    """None where the sides have other cells, or one is known by its results alone."""
    settings_apart: tuple[str, ...] | None
    """Settings of preprocessing and decoding that differ; None where one side is known by its results alone."""
    images: tuple[ImagePair, ...]
    calibration_images: int | None = None
    """That the candidate's ranges were measured on; None where the inputs were not given."""
    swapped_colours: float | None = None
    """Log odds that the calibration inputs have red and blue swapped; see colour.swapped_log_odds. None where no inputs
    were given, or nothing can be said."""
