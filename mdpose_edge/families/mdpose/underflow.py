"""How much of the likelihood a product of densities would lose: the underflow ratio.

The paper's Fig. 4 plots an underflow ratio over the training, to show why K_g must be small without log space. Its text
leaves open what is counted; here it is, on the very mixtures, persons and random groups of an iteration:

- of *components*: the share of (person, group, component) whose product of Laplace densities, prod_{j in g, d} L(k_jd),
  multiplied up in float32, is 0;
- of *persons*: the share of (person, group) where that holds for all components, so that the naive likelihood is 0, its
  logarithm infinite, and there is no gradient (the reference code adds 1e-12 there, whose gradient is 0).

Our loss works in log space and loses neither.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mdpose_edge.families.mdpose.loss import KeypointGroups, Mixture


class Underflow(NamedTuple):
    """Shares in [0, 1]; NaN where there is nobody."""

    components: float
    persons: float


@torch.no_grad()
def underflow_ratio(
    mixture: Mixture, keypoints_xy: Tensor, labelled: Tensor, person_mask: Tensor, groups: KeypointGroups
) -> Underflow:
    """Count what underflows in the naive likelihood; arguments as for `loss.group_nll`."""
    zeros, lost, products, likelihoods = 0, 0, 0, 0
    for image, mask in enumerate(person_mask):
        if not mask.any():
            continue
        seen = labelled[image, mask]
        target = torch.where(seen[..., None], keypoints_xy[image, mask], 0.0).float()
        density = torch.where(seen[:, :, None], _densities(mixture, image, target), 1.0)
        for group in groups:
            is_zero = density[:, list(group)].prod(dim=1) == 0
            zeros += int(is_zero.sum())
            lost += int(is_zero.all(dim=1).sum())
            products += is_zero.numel()
            likelihoods += len(is_zero)
    if not likelihoods:
        return Underflow(math.nan, math.nan)
    return Underflow(zeros / products, lost / likelihoods)


def _densities(mixture: Mixture, image: int, target: Tensor) -> Tensor:
    """Return the density of each person's keypoint in each component, x times y: (P, J, M)."""
    mu, gamma = (values[image].view(*target.shape[1:], -1).float() for values in (mixture.mu, mixture.gamma))
    distance = (target[..., None] - mu).abs() / gamma
    return (distance.neg().exp() / (2 * gamma)).prod(dim=2)
