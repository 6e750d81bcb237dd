"""The measures of every family with a density: likelihood of the annotated people, and divergence cell by cell.

Where the limits come from is measured in docs/gate.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.families.base import MixtureDecoder
from mdpose_edge.families.measure import (
    Distance,
    Finding,
    Histogram,
    Measured,
    Observation,
    ObservedImage,
    Pair,
    Truth,
    same_cells,
)
from mdpose_edge.families.mixture import PoseMixture, joint_nll, mixture_divergence
from mdpose_edge.families.registry import make_decoder
from mdpose_edge.spec import ModelSpec

GROUP = "Mixtures"
NO_MIXTURE = "one side has no mixture"
SHOWN_PERCENTILE = 98
"""Of the likelihoods in the histogram: a person far out would press all others into one bar."""

Reader = Callable[[Observation, Observation], PoseMixture]
"""The mixture that one artifact saw, and another whose choice of cells is taken, if only its own."""


@dataclass(frozen=True)
class MixtureLimits:
    """How far a candidate's mixtures may be from the reference's."""

    nll: float = 0.05
    """Nats per keypoint, by which the mean over people may rise: as if every sigma were off by a factor of 1.25."""
    component_kl: float = 0.05
    """Nats per keypoint: every coordinate moved by 0.22 of its sigma, or every sigma off by a factor of 1.25."""
    weight_kl: float = 0.02
    """Nats per image, between the weights of the components."""


LIMITS = MixtureLimits()


class MixtureMeasure:
    """The likelihood that mixtures give annotated people, and how far they are apart, component by component.

    Args:
        candidate: its spec.
        reference: its spec, or None where only its results are known.
    """

    def __init__(self, candidate: ModelSpec, reference: ModelSpec | None) -> None:
        self._readers = tuple(_reader(spec) for spec in (candidate, reference))
        comparable = reference is not None and same_cells(candidate, reference)
        self._incomparable = NO_MIXTURE if None in self._readers else "" if comparable else "different cells"
        self._nll: list[NDArray[np.float64]] = []
        self._divergence: list[tuple[float, float]] = []

    def add(self, image: ObservedImage) -> None:
        """Count one image: see `Measure`."""
        sides = zip(self._readers, (image.candidate, image.reference), strict=True)
        candidate, reference = (
            None if read is None else read(seen, seen if self._incomparable else image.reference)
            for read, seen in sides
        )
        if candidate is not None and reference is not None and not self._incomparable:
            self._divergence.append(mixture_divergence(candidate, reference))
        if image.truth is not None:
            self._nll.append(np.stack([_nll(side, image.truth) for side in (candidate, reference)], axis=1))

    def result(self) -> Measured:
        """Return what was found: see `Measure`."""
        nll = np.concatenate(self._nll) if self._nll else None
        labelled = () if nll is None else (judge_likelihood(nll, LIMITS),)
        findings = (*labelled, *judge_divergence(self._divergence, self._incomparable, LIMITS))
        per_image = np.array([components for _, components in self._divergence]) if self._divergence else None
        return Measured(findings, () if nll is None else tuple(_histograms(nll)), per_image)


def judge_likelihood(nll: NDArray[np.float64], limits: MixtureLimits) -> Finding:
    """Judge the likelihood of people.

    Args:
        nll: (people, 2) nats per labelled keypoint, by candidate and reference; NaN where one has no mixture.
        limits: on the rise.
    """
    means = [float(mean) for mean in nll.mean(axis=0)] if len(nll) else [np.nan] * 2
    pair = Pair(*(None if np.isnan(mean) else mean for mean in means))
    note = "no labelled people" if not len(nll) else NO_MIXTURE if pair.change is None else ""
    label, rise = "NLL of the annotated people", pair.change
    return Finding("nll", GROUP, label, "nats per keypoint", *pair, rise, rise, limits.nll, note)


def judge_divergence(divergence: Sequence[tuple[float, float]], note: str, limits: MixtureLimits) -> Iterator[Finding]:
    """Judge the `mixture_divergence` of each image; the note says why there is none."""
    weights, components = _means(divergence) if len(divergence) else (None, None)
    for key, label, unit, apart, limit in (
        ("component_kl", "components apart", "nats per keypoint", components, limits.component_kl),
        ("weight_kl", "weights apart", "nats per image", weights, limits.weight_kl),
    ):
        yield Finding(key, GROUP, label, unit, None, None, apart, apart, limit, note)


def mixture_distance(spec: ModelSpec) -> Distance:
    """Return the distance of mixtures: the symmetric Kullback-Leibler divergence of (component, pose) per image.

    Args:
        spec: of an artifact whose family has a density; the others are of its cells.
    """
    read = _reader(spec)
    assert read is not None
    num_keypoints = len(spec.keypoints.names) or 1  # of boxes, the size is the one

    def between(images: Iterable[tuple[Observation, Observation]]) -> float:
        weights, components = _means(
            [mixture_divergence(read(one, other), read(other, other)) for one, other in images]
        )
        return weights + components * num_keypoints

    return Distance("nats per image", between)


def _reader(spec: ModelSpec | None) -> Reader | None:
    """Return what makes a mixture of an observation, or None where there is none."""
    decoder = None if spec is None else make_decoder(spec)
    if not isinstance(decoder, MixtureDecoder):
        return None
    mixture = decoder.mixture

    def read(seen: Observation, like: Observation) -> PoseMixture:
        assert seen.heads is not None and seen.geometry is not None
        return mixture(seen.heads, seen.geometry, like=like.heads)

    return read


def _means(divergences: Sequence[tuple[float, float]]) -> tuple[float, float]:
    weights, components = np.array(divergences).T
    return float(weights.mean()), float(components.mean())


def _nll(mixture: PoseMixture | None, truth: Truth) -> NDArray[np.float64]:
    """Return (people with labels,) nats per labelled keypoint; NaN without a mixture."""
    counts = truth.labelled.sum(axis=1)
    counted = counts > 0
    if mixture is None:
        return np.full(int(counted.sum()), np.nan)
    nll = joint_nll(mixture, truth.keypoints_xy[counted], truth.labelled[counted])
    per_keypoint: NDArray[np.float64] = nll / counts[counted]
    return per_keypoint


def _histograms(nll: NDArray[np.float64]) -> Iterator[Histogram]:
    if not len(nll) or not np.isfinite(nll).all():
        return
    low, high = np.percentile(nll, [0, SHOWN_PERCENTILE])
    caption = f"NLL of {len(nll)} annotated people; lower is likelier, the last bar holds all beyond."
    yield Histogram(caption, "nats per keypoint", nll[:, 0], nll[:, 1], (float(low), max(float(high), low + 1)))
