"""What a measure of the gate sees and what it says.

The gate (check/) runs two artifacts over the same images and shows both to a list of measures. What any model has is
measured there; what only one kind of model has is measured by its family's measures.py (see registry.make_measures).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.families.base import Heads
from mdpose_edge.geometry import FrameGeometry
from mdpose_edge.poses import Poses
from mdpose_edge.spec import ModelSpec


class Pair(NamedTuple):
    """A figure of both sides; None where it does not exist."""

    candidate: float | None
    reference: float | None

    @property
    def change(self) -> float | None:
        """Candidate less reference."""
        return None if self.candidate is None or self.reference is None else self.candidate - self.reference

    def percent(self) -> Pair:
        """Return both times 100."""
        return Pair(*(None if value is None else 100.0 * value for value in self))


@dataclass(frozen=True)
class Finding:
    """One figure, judged or not."""

    key: str
    """For programs."""
    group: str
    """What it is about, for people."""
    label: str
    unit: str
    candidate: float | None
    reference: float | None
    """None for a figure that only both together have."""
    change: float | None
    """Candidate less reference; for a distance the distance itself."""
    worse: float | None
    """How far the change goes in the direction that counts against the candidate."""
    limit: float
    """On `worse`."""
    note: str = ""
    """Why it is not judged."""

    @property
    def held(self) -> bool | None:
        """Whether it is within the limit; None where it is not judged."""
        if self.note or self.worse is None:
            return None
        return self.worse <= self.limit  # so written, NaN does not hold

    @property
    def state(self) -> str:
        """The same in words."""
        return {True: "held", False: "fell short", None: f"not judged: {self.note}"}[self.held]


@dataclass(frozen=True)
class Histogram:
    """How a quantity is distributed on both sides."""

    caption: str
    unit: str
    candidate: NDArray[np.floating]
    reference: NDArray[np.floating]
    bounds: tuple[float, float]
    """Of what is drawn; values beyond are counted in the outermost bars."""


@dataclass(frozen=True)
class Observation:
    """What one side says of one image."""

    poses: Poses
    """As an evaluation decodes."""
    deployed: Poses
    """As the artifact's own spec decodes."""
    heads: Heads | None = None
    """(1, channels, rows, columns) each; None where only results are known, whose sigmas are NaN."""
    geometry: FrameGeometry | None = None
    """Where the image lies in the network input; None as above."""


@dataclass(frozen=True)
class Truth:
    """The annotated people of one image."""

    image_id: int
    keypoints_xy: NDArray[np.floating]
    """(N, K, 2) px."""
    labelled: NDArray[np.bool_]
    """(N, K): the keypoints that are labelled, of people who count."""
    areas: NDArray[np.floating]
    """(N,) px²."""
    boxes_xyxy: NDArray[np.float32] | None = None
    """(N, 4) px, where there are boxes in place of keypoints; crowds are left out."""
    classes: NDArray[np.int64] | None = None
    """(N,) indices into `ModelSpec.classes`, of these boxes."""
    keypoints_3d: NDArray[np.floating] | None = None
    """(N, K, 3) m in the camera's axes, NaN for people of two dimensions; None where all are."""


@dataclass(frozen=True)
class ObservedImage:
    """One image, and what both sides and the annotations say of it."""

    pixels: NDArray[np.uint8]
    """(H, W, 3) BGR."""
    candidate: Observation
    reference: Observation
    truth: Truth | None = None
    """None without annotations."""


@dataclass(frozen=True)
class Measured:
    """What a measure found."""

    findings: tuple[Finding, ...]
    histograms: tuple[Histogram, ...] = ()
    per_image: NDArray[np.float64] | None = None
    """(images,): how far the two sides are apart, where it can be said of an image."""
    remark: str = ""
    """A sentence for the reader of the findings."""


class Measure(Protocol):
    """Made for one check, of (candidate, reference); it is shown the images one by one and keeps sums alone."""

    def add(self, image: ObservedImage) -> None:
        """Count one image."""

    def result(self) -> Measured:
        """Return what was found; at least one image was added."""


@dataclass(frozen=True)
class Distance:
    """How far an artifact is from another of the same cells, in one number: accuracy control ranks layers by it."""

    unit: str
    between: Callable[[Iterable[tuple[Observation, Observation]]], float]
    """Maps what both say of each image, of at least one, to the distance."""


def same_cells(a: ModelSpec, b: ModelSpec) -> bool:
    """Return whether each cell of one artifact's head tensors is the same cell of the other's."""
    sizes = [(spec.input.height, spec.input.width) for spec in (a, b)]
    return sizes[0] == sizes[1] and (a.family, a.heads) == (b.family, b.heads)
