"""The normalizing flow that learns what errors of joints look like; training alone needs it.

RealNVP (Dinh et al., ICLR 2017) in two or three dimensions: six couplings, each of which shifts and scales some of the
coordinates by what the others are; the density of the result is a standard Gaussian's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.func import functional_call

HIDDEN = 64
COUPLINGS = 6
LARGEST_ERROR = 1e3
"""Errors are clipped to it on their way into the flow: beyond it, a density means nothing, and gradients run wild."""
_FIRST_MASKS = {2: ((0.0, 1.0), (1.0, 0.0)), 3: ((0.0, 0.0, 1.0), (1.0, 1.0, 0.0))}


class RealNVP(nn.Module):
    """A density over R^D, D = 2 or 3.

    Args:
        dimensions: D.
    """

    mask: Tensor

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tensor(_FIRST_MASKS[dimensions] * (COUPLINGS // 2)), persistent=False)
        self.t = nn.ModuleList(_coupling(dimensions) for _ in range(COUPLINGS))
        self.s = nn.ModuleList(_coupling(dimensions, nn.Tanh()) for _ in range(COUPLINGS))

    def forward(self, points: Tensor) -> Tensor:
        """Return the logarithm of the density at points (N, D), (N,)."""
        z, log_det = self.inverse(points)
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=1) + log_det

    def inverse(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Map points (N, D) to the Gaussian's z, and give the logarithm of the map's Jacobian determinant, (N,)."""
        z, log_det = points, points.new_zeros(len(points))
        for mask, t, s in reversed(list(zip(self.mask.to(points), self.t, self.s, strict=True))):
            kept = mask * z
            scale, shift = s(kept) * (1 - mask), t(kept) * (1 - mask)
            z = (1 - mask) * (z - shift) * torch.exp(-scale) + kept
            log_det = log_det - scale.sum(dim=1)
        return z, log_det


def log_density(weights: Mapping[str, Tensor], errors: Tensor) -> Tensor:
    """Return the logarithm of a flow's density at errors (N, D), (N,).

    Args:
        weights: the flow's parameters by name.
        errors: over their scale; any float type, clipped to LARGEST_ERROR.
    """
    clipped = errors.clamp(-LARGEST_ERROR, LARGEST_ERROR)
    flow = _skeleton(errors.shape[1])
    mask = flow.mask.to(errors.device, errors.dtype)
    found: Tensor = functional_call(flow, {**weights, "mask": mask}, (clipped,))
    return found


@lru_cache(maxsize=2)
def _skeleton(dimensions: int) -> RealNVP:
    """Return a flow whose parameters are given anew at each call."""
    return RealNVP(dimensions)


def _coupling(dimensions: int, *last: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(dimensions, HIDDEN),
        nn.LeakyReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.LeakyReLU(),
        nn.Linear(HIDDEN, dimensions),
        *last,
    )
