"""The losses of the recurrent family; sums, in float32 or better whatever autocast does to the network.

Of an image of z people, whose steps go on up to the first that is below the stop threshold: the first min(z, steps) of
them are assigned to people so that the distances of their maps are least, and learn these people's maps; steps up to
max(z, steps) + 1 learn whether they are people (the paper's best choice of which steps learn what). A map has one
Gaussian in thousands of empty cells, so that maps of zeros would be a strong minimum: cells count by 1 + w times
everybody's target. By the person's own target alone, maps of everybody at once would be another: one missed would
cost 1 + w, one of somebody else 1.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mdpose_edge.families.recurrent.heads import STOP_THRESHOLD
from mdpose_edge.track.assignment import assign

STOP_LOGIT = math.log(STOP_THRESHOLD / (1 - STOP_THRESHOLD))


def at_least_float32(raw: Tensor) -> Tensor:
    """Widen what autocast narrowed."""
    return raw.to(torch.promote_types(raw.dtype, torch.float32))


def heat_targets(keypoints: Tensor, labelled: Tensor, shape: tuple[int, int], sigma: float) -> Tensor:
    """Return a Gaussian of height 1 around each keypoint, (P, K, rows, columns); zeros where it is not labelled.

    Args:
        keypoints: (P, K, 2) cells, continuous: a cell's centre is at its index and a half.
        labelled: (P, K) bool.
        shape: rows and columns.
        sigma: cells.
    """
    rows, columns = (torch.arange(size, device=keypoints.device, dtype=keypoints.dtype) + 0.5 for size in shape)
    x, y = keypoints[..., :1] - columns, keypoints[..., 1:] - rows
    across, down = ((-0.5 * (axis / sigma).square()).exp() for axis in (x, y))
    return down[..., :, None] * across[..., None, :] * labelled[..., None, None]


def map_distances(predicted: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
    """Return the sum over keypoints of the L2 distances of their maps, (S, P), of S steps and P people.

    Args:
        predicted: (S, K, rows, columns).
        target: (P, K, rows, columns).
        labelled: (P, K) bool: the keypoints that count.
    """
    one, other = (maps.flatten(2).transpose(0, 1) for maps in (predicted, target))
    squared = one.square().sum(2)[:, :, None] + other.square().sum(2)[:, None] - 2 * one @ other.transpose(1, 2)
    return (squared.clamp(min=0).sqrt() * labelled.T[:, None]).sum(0)


def assign_people(cost: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pair steps with people for the least sum of costs, as many as there can be pairs: (step, person) each."""
    if not cost.size:
        return []
    return assign(cost.max() + 1.0 - cost, 1.0)


def steps_said(logits: Tensor) -> int:
    """Return how many steps come before the first that says that it is no person."""
    over = (logits < STOP_LOGIT).nonzero()
    return int(over[0]) if len(over) else len(logits)


def heat_loss(predicted: Tensor, target: Tensor, labelled: Tensor, importance: Tensor | float) -> Tensor:
    """Return the squared error of maps, summed over the cells and maps of labelled keypoints.

    Args:
        predicted: (N, K, rows, columns).
        target: likewise, in [0, 1].
        labelled: (N, K): whether, or how much, a map counts.
        importance: (K, rows, columns): of a cell, 1 + w * everybody's target.
    """
    error = (predicted - target).square() * importance
    return (error.sum(dim=(2, 3)) * labelled).sum()


def heat_of_zeros(sigma: float, weight: float) -> float:
    """Return what a map of zeros costs by `heat_loss`: the integral of the Gaussian's square and cube."""
    return math.pi * sigma**2 * (1 + weight * 2 / 3)


def stop_loss(logits: Tensor, people: int, said: int) -> Tensor:
    """Return the cross entropy of the steps that count, summed.

    Args:
        logits: (S,).
        people: in the image: so many steps are people.
        said: `steps_said`.
    """
    count = min(max(people, said) + 1, len(logits))
    target = (torch.arange(count, device=logits.device) < people).to(logits.dtype)
    return functional.binary_cross_entropy_with_logits(logits[:count], target, reduction="sum")
