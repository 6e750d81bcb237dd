"""The losses of mixture dense regression; sums, in float32 or better whatever autocast does to the network.

A person whose box is centred in a cell has keypoints t_k there, in cells. With weights pi = softmax(alpha), means mu
and spreads S_mk = s_m V_k in x and in y, where s = ELU(raw) + 1 + floor and V are the OKS constants, its loss is

    -log sum_m pi_m prod_{k labelled, d in x, y} N(t_kd; mu_mkd, S_mkd)

The paper's text divides s by V; its code multiplies, which gives the keypoints that are hard to place the larger
spread. The code clamps pi away from 0 and 1, where no gradient is left, and leaves log V out, so that it is no density;
here neither is so.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def at_least_float32(raw: Tensor) -> Tensor:
    """Widen what autocast narrowed."""
    return raw.to(torch.promote_types(raw.dtype, torch.float32))


def at_cells(raw: Tensor, cells: Tensor) -> Tensor:
    """Read a map at cells.

    Args:
        raw: (B, C, rows, columns).
        cells: (B, P) flat indices.

    Returns:
        (B, P, C).
    """
    flat = raw.flatten(2)
    return flat.gather(2, cells[:, None].expand(-1, flat.shape[1], -1)).transpose(1, 2)


def spread(raw: Tensor, floor: float) -> Tensor:
    """Return a component's s in cells, above the floor."""
    return functional.elu(raw) + (1.0 + floor)


def log_joint(
    mu: Tensor, sigma: Tensor, alpha: Tensor, keypoints: Tensor, labelled: Tensor, constants: Tensor
) -> Tensor:
    """Return log(pi_m prod N) of each of N people and M components, (N, M); its negative log-sum-exp is the loss.

    Args:
        mu: (N, M, K, 2) cells, from the same point as the keypoints.
        sigma: (N, M, 2) the components' s.
        alpha: (N, M) logits of the weights.
        keypoints: (N, K, 2) cells; read only where labelled.
        labelled: (N, K) bool; a keypoint that is not labelled contributes the factor 1.
        constants: (K,) V, the OKS constants.
    """
    scale = sigma[:, :, None] * constants[:, None]
    seen = labelled[:, None, :, None]
    distance = torch.where(seen, keypoints[:, None] - mu, 0.0) / scale
    density = -0.5 * distance.square() - scale.log() - 0.5 * math.log(2 * math.pi)
    log_phi = torch.where(seen, density, 0.0).sum(dim=(2, 3))
    return functional.log_softmax(alpha, dim=1) + log_phi


def focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return CenterNet's focal loss, summed.

    -(1 - p)^2 log p where the target is 1, elsewhere -(1 - target)^4 p^2 log(1 - p).

    Args:
        logits: any shape.
        target: of the same shape, in [0, 1].
    """
    p = logits.sigmoid()
    hit = (1 - p).square() * functional.logsigmoid(logits)
    miss = (1 - target).pow(4) * p.square() * functional.logsigmoid(-logits)
    return -torch.where(target == 1, hit, miss).sum()


def l1_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the mean distance along an axis, summed over the rows of (N, 2)."""
    return (predicted - target).abs().sum() / 2
