"""Standard deviations of keypoints that come from heat maps, by a fitted table.

A heat map has no head for how far off it may be. But peaks of people who are large in the picture are off by more
pixels, and low peaks by more than high ones:

    sigma_k = size * exp(a_k + c_kind (1 - heat_k)),    size = sqrt(area of the box around the person's keypoints)

The numbers a_k and c are fitted once a model is trained (`families.base.Finishing`: train/finish.py runs the network
over training images as an evaluation would) and stand in `ModelSpec.constants`, where the family has a field of the
type `SigmaTable`. Before, and in a model that was imported, they are `prior`'s, made of the OKS constants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SMALLEST_SIZE = 1.0
"""px. Of a person whose keypoints lie in a point or on a line."""
PRIOR_SLOPE = 1.0
"""Before a fit a keypoint of heat 0 is 2.7 times as uncertain as one of heat 1."""
PRIOR_WEIGHT = 4.0
"""So many made-up keypoints at heat 0, and as many at heat 1, keep a fit near the prior where there is little data."""
LARGEST_ERROR = 1.0
"""Of the size: where the wrong person or another keypoint was found, how far off says nothing more."""
LARGEST_EXPONENT = 20.0
"""Of e, either way: a table that was damaged gives large numbers, no infinite ones."""
ITERATIONS = 100


@dataclass(frozen=True)
class SigmaTable:
    """What a fit found."""

    offsets: tuple[float, ...]
    """a_k, one a keypoint."""
    slopes: tuple[float, ...]
    """c, one for each kind of keypoint that the family tells apart, such as peaks and what is regressed alone."""


def prior(oks_sigmas: Sequence[float], kinds: int = 1) -> SigmaTable:
    """Return the table of a model that nothing was fitted for.

    Args:
        oks_sigmas: the keypoints' OKS constants: standard deviations of annotators, as a part of the size.
        kinds: how many slopes the family has.
    """
    return SigmaTable(tuple(math.log(sigma) for sigma in oks_sigmas), (PRIOR_SLOPE,) * kinds)


def sizes_of(keypoints_xy: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the size of people (N,), the square root of the area of the box around their keypoints (N, K, 2)."""
    sides = np.maximum(keypoints_xy.max(axis=1) - keypoints_xy.min(axis=1), SMALLEST_SIZE)
    sizes: NDArray[np.float32] = np.sqrt(sides.prod(axis=1)).astype(np.float32)
    return sizes


def sigma_of(
    table: SigmaTable,
    sizes: NDArray[np.floating],
    heat: NDArray[np.floating],
    kinds: NDArray[np.integer] | NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Return the standard deviation of each keypoint along either axis, (N, K), in the unit of the sizes.

    Args:
        table: with an offset a keypoint.
        sizes: (N,), see `sizes_of`.
        heat: (N, K), the values of the heat maps; taken to be in [0, 1].
        kinds: (N, K), which slope; None where the family has one.
    """
    slopes = np.asarray(table.slopes, np.float64)
    slope = slopes[0] if kinds is None else slopes.take(kinds.astype(np.intp))
    exponent = np.asarray(table.offsets) + slope * (1.0 - np.clip(heat, 0.0, 1.0))
    growth = np.exp(np.clip(exponent, -LARGEST_EXPONENT, LARGEST_EXPONENT))
    sigma: NDArray[np.float32] = (sizes[:, None] * growth).astype(np.float32)
    return sigma


@dataclass(frozen=True)
class Observations:
    """N people whom a model found and who are annotated."""

    errors_xy: NDArray[np.floating]
    """(N, K, 2): found less annotated."""
    sizes: NDArray[np.floating]
    """(N,): of what was found, see `sizes_of`."""
    heat: NDArray[np.floating]
    """(N, K)"""
    labelled: NDArray[np.bool_]
    """(N, K): where there is an annotation."""
    kinds: NDArray[np.integer] | NDArray[np.bool_] | None = None
    """(N, K), which slope."""


def fit(start: SigmaTable, seen: Observations) -> SigmaTable:
    """Fit a table to what a model did.

    Errors are taken to have Laplace distributions, which their tails resemble more than a Gaussian's, of the scale
    b = sigma / sqrt(2). The likeliest table is the minimum of a convex function, found by Newton's steps.

    Args:
        start: the prior; see PRIOR_WEIGHT.
        seen: the more people the better; none give the prior back.
    """
    design, errors, weights = _rows(start, seen)
    parameters = np.array([*start.offsets, *start.slopes])

    def cost(values: NDArray[np.float64]) -> float:
        eta = design @ values
        return float(weights @ (eta + errors * np.exp(np.minimum(-eta, 700.0))))

    for _ in range(ITERATIONS):
        pull = weights * errors * np.exp(-(design @ parameters))
        gradient, curvature = design.T @ (weights - pull), design.T @ (design * pull[:, None])
        step = np.linalg.solve(curvature, gradient)
        length = 1.0
        while cost(parameters - length * step) > cost(parameters) and length > 1e-9:
            length /= 2
        parameters = parameters - length * step
        if np.abs(step).max() < 1e-10:
            break
    count = len(start.offsets)
    return SigmaTable(tuple(parameters[:count].tolist()), tuple(parameters[count:].tolist()))


def _rows(
    start: SigmaTable, seen: Observations
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the design (rows, K + kinds), errors as parts of the size, times sqrt(2), and weights."""
    num_keypoints, num_kinds = len(start.offsets), len(start.slopes)
    people, keypoints = np.nonzero(seen.labelled)
    kinds = np.zeros(len(people), np.intp) if seen.kinds is None else seen.kinds[people, keypoints].astype(np.intp)
    low = 1.0 - np.clip(seen.heat[people, keypoints].astype(np.float64), 0.0, 1.0)
    errors = np.abs(seen.errors_xy[people, keypoints].astype(np.float64)).mean(axis=1)
    parts = np.minimum(errors / np.maximum(seen.sizes[people], SMALLEST_SIZE), LARGEST_ERROR) * math.sqrt(2.0)
    made_up = [grid.ravel() for grid in np.meshgrid(np.arange(num_keypoints), np.arange(num_kinds), (0.0, 1.0))]
    keypoints = np.concatenate([keypoints, made_up[0].astype(np.intp)])
    kinds = np.concatenate([kinds, made_up[1].astype(np.intp)])
    low = np.concatenate([low, made_up[2]])
    design = np.zeros((len(keypoints), num_keypoints + num_kinds))
    rows = np.arange(len(keypoints))
    design[rows, keypoints] = 1.0
    design[rows, num_keypoints + kinds] = low
    expected = np.exp(design[len(people) :] @ np.array([*start.offsets, *start.slopes]))
    weights = np.concatenate([np.ones(len(people)), np.full(len(made_up[0]), PRIOR_WEIGHT)])
    return design, np.concatenate([parts, expected]), weights
