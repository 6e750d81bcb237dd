"""The losses of distribution-aware 3-D pose, in float32 or better whatever autocast does to the network.

Residual log-likelihood (Li et al., ICCV 2021): with e_d = (target_d - predicted_d) / b_d, a joint's error has the
density Q(e) g(e) / s over prod_d b_d: Q that of Laplace distributions, g a flow's over all axes together, s what
normalises their product, which is left out. So a joint costs

    sum_d [log 2 b_d + |e_d|] - log g(e)

The public codes count log b twice, take a Gaussian's normaliser for the Laplace distribution's, and count log g, which
is a joint's, once for each axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mdpose_edge.families.das.flow import log_density
from mdpose_edge.families.das.heads import LEAST_SCALE

FOCAL_GAMMA, FOCAL_ALPHA = 2.0, 0.25
DEPTH_BETA = 1 / 9
"""Below it the loss of depths is quadratic (the authors' code)."""


class Joints(NamedTuple):
    """What N cells say of K joints, or are to say: offsets from the cell's centre, and depths from the root."""

    uv: Tensor
    """(N, K, 2) cells."""
    dz: Tensor
    """(N, K)"""


def at_least_float32(raw: Tensor) -> Tensor:
    """Widen what autocast narrowed."""
    return raw.to(torch.promote_types(raw.dtype, torch.float32))


def scale_of(raw: Tensor) -> Tensor:
    """Return the Laplace scales b, in (LEAST_SCALE, 1)."""
    return LEAST_SCALE + (1 - LEAST_SCALE) * raw.sigmoid()


def focal_loss(logits: Tensor, positive: Tensor) -> Tensor:
    """Return the focal loss (Lin et al., ICCV 2017), summed.

    Args:
        logits: any shape.
        positive: of the same shape, bool.
    """
    p, target = logits.sigmoid(), positive.to(logits)
    cost = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    missed = torch.where(positive, 1 - p, p)
    weight = torch.where(positive, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    return (weight * missed.pow(FOCAL_GAMMA) * cost).sum()


def depth_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the smooth L1 loss of each of N roots' depths, (N,)."""
    return functional.smooth_l1_loss(predicted, target, reduction="none", beta=DEPTH_BETA)


def errors_of(said: Joints, target: Joints) -> Tensor:
    """Return target less prediction, (N, K, 3): u, v and depth."""
    return torch.cat([target.uv - said.uv, (target.dz - said.dz)[..., None]], dim=2)


def laplace_nll(errors: Tensor, scales: Tensor, solid: Tensor) -> Tensor:
    """Return the negative log-likelihood of Laplace distributions, (N, K) nats.

    Args:
        errors: (N, K, 3).
        scales: (N, K, 3) b.
        solid: (N,) bool: whether the depth is known; where it is not, u and v alone count.
    """
    cost = torch.log(2 * scales) + errors.abs() / scales
    return cost[..., :2].sum(dim=2) + torch.where(solid[:, None], cost[..., 2], 0.0)


def flow_log_density(errors: Tensor, solid: Tensor, known: Tensor, flows: Mapping[int, Mapping[str, Tensor]]) -> Tensor:
    """Return log g of joints' errors over their scale, (N, K): of three axes where the depth is known, else of two.

    Args:
        errors: (N, K, 3), divided by the scales.
        solid: (N,) bool.
        known: (N, K) bool; where it is false, 0.
        flows: parameters of the flows, by dimensions.
    """
    found = errors.new_zeros(known.shape)
    for dimensions, rows in ((3, solid), (2, ~solid)):
        chosen = known & rows[:, None]
        if chosen.any():
            values = log_density(flows[dimensions], errors[chosen][:, :dimensions])
            found = found.masked_scatter(chosen, values)
    return found


def updated(uv: Tensor, dz: Tensor, said: Joints, images: Tensor, cells: Tensor, updates: int) -> Joints:
    """Refine what cells of one level say by what the cells say to which it leads, as the decoder does.

    Gradients flow through the places read, too.

    Args:
        uv: (B, 2K, rows, columns) of all cells.
        dz: (B, K, rows, columns) likewise.
        said: of N cells.
        images: (N,) which image of the batch each is of.
        cells: (N,) flat.
        updates: how many times.
    """
    rows, columns = uv.shape[2:]
    centers = torch.stack([cells % columns, cells // columns], dim=1).to(said.uv) + 0.5
    for _ in range(updates):
        places, weights = _corners(said.uv + centers[:, None], rows, columns)
        u, v = (_read(uv[:, axis::2], images, places, weights) for axis in (0, 1))
        depth = _read(dz, images, places, weights) + (1 - weights.sum(dim=0)) * said.dz
        said = Joints(said.uv + torch.stack([u, v], dim=2), depth)
    return said


def _corners(points: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Return the four cells around points (N, K, 2) and their bilinear weights, (4, N, K); 0 for cells outside."""
    x, y = (points[..., 0] - 0.5).clamp(-2.0, columns + 1.0), (points[..., 1] - 0.5).clamp(-2.0, rows + 1.0)
    left, top = x.detach().floor(), y.detach().floor()
    places, weights = [], []
    for down, share_y in ((0, 1 - (y - top)), (1, y - top)):
        for along, share_x in ((0, 1 - (x - left)), (1, x - left)):
            column, row = left.long() + along, top.long() + down
            inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
            places.append(torch.where(inside, row * columns + column, 0))
            weights.append(torch.where(inside, share_x * share_y, 0.0))
    return torch.stack(places), torch.stack(weights)


def _read(maps: Tensor, images: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """Read map k of (B, K, rows, columns) at places (4, N, k), weighted: (N, K)."""
    joints = torch.arange(maps.shape[1], device=maps.device)
    values = maps.flatten(2)[images[None, :, None], joints, places]
    return (values * weights).sum(dim=0)
