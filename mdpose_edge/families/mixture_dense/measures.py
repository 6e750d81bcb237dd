"""What the gate measures of this family beside what any model has: its mixtures, at the reference's centres."""

from __future__ import annotations

from mdpose_edge.families.measure import Distance, Measure
from mdpose_edge.families.mixture_dense.box_measures import BoxDensityMeasure
from mdpose_edge.families.mixture_measures import MixtureMeasure, mixture_distance
from mdpose_edge.spec import ModelSpec


def measures(candidate: ModelSpec, reference: ModelSpec | None) -> tuple[Measure, ...]:
    """Return the family's measures for a check: see registry.make_measures."""
    kind = MixtureMeasure if candidate.keypoints.names else BoxDensityMeasure
    return (kind(candidate, reference),)


def distance(spec: ModelSpec) -> Distance:
    """Return by what accuracy control ranks layers: see registry.make_distance."""
    return mixture_distance(spec)
