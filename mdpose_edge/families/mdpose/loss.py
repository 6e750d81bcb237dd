"""MDPose's loss: raw head tensors -> mixture of Laplace poses -> GroupNLL with randomly grouped keypoints.

An image is a mixture of M components, one per cell of every pyramid level. A component has a weight pi and, for each of
J keypoints, a Laplace mean mu and scale gamma in x and in y (Seo et al., MDPose, UAI 2023). The loss of a person whose
keypoints are k, split into N_g groups, is

    -1/N_g * sum_g log sum_m pi_m * prod_{j in g, d in x, y} exp(-|k_jd - mu_mjd| / gamma_mjd) / (2 gamma_mjd)

and it is computed in log space, since the product of densities underflows for large groups. Everything here runs in
float32 or better, whatever autocast does to the network. Measured in docs/decisions/0003-log-space-loss.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from mdpose_edge.errors import ConfigError
from mdpose_edge.families.mdpose.heads import GAMMA_FLOOR, Level

MIN_POSE_EXTENT = 1e-12
"""Keeps gamma positive where a pose collapses to a point and softplus underflows (the reference code's epsilon)."""

KeypointGroups = tuple[tuple[int, ...], ...]
"""Indices of the keypoints in each group; each keypoint occurs once."""


@dataclass(frozen=True)
class Mixture:
    """The Laplace mixtures of B images with M components: the cells of all levels, finest level first, row by row.

    Channels are x0, y0, x1, y1, ... of the J keypoints; coordinates are units of the frame [0, extent).
    """

    log_pi: Tensor
    """(B, M): log of the component weights, which sum to 1 over M."""
    mu: Tensor
    """(B, 2J, M): means."""
    gamma: Tensor
    """(B, 2J, M): scales, positive."""


def mixture_from_heads(
    heads: Sequence[tuple[Tensor, Tensor, Tensor]],
    levels: Sequence[Level],
    *,
    num_keypoints: int,
    extent: float = 5.0,
) -> Mixture:
    """Turn raw head tensors into mixtures.

    Args:
        heads: for each level, raw (o, mu, gamma): (B, 1, H, W), (B, 2J, H, W), (B, 2J, H, W), of any float type.
        levels: the levels of `heads`, in the same order.
        num_keypoints: how many leading keypoints make a pose, whose extent floors gamma; the rest (the box centre) are
            auxiliary.
        extent: both axes of the input span [0, extent).

    Returns:
        A mixture in float32, or float64 where the heads are.
    """
    pairs = list(zip(heads, levels, strict=True))
    logits = torch.cat([_at_least_float32(o).flatten(1) for (o, _, _), _ in pairs], dim=1)
    mu = torch.cat([_means(_at_least_float32(raw), level.scale, extent) for (_, raw, _), level in pairs], dim=2)
    raw_gamma = torch.cat([_at_least_float32(raw).flatten(2) for (_, _, raw), _ in pairs], dim=2)
    log_o = functional.logsigmoid(logits)
    return Mixture(
        log_pi=log_o - log_o.logsumexp(dim=1, keepdim=True),
        mu=mu,
        gamma=torch.maximum(functional.softplus(raw_gamma), _gamma_floor(mu.detach(), num_keypoints)),
    )


def group_keypoints(num_keypoints: int, group_size: int, generator: torch.Generator | None = None) -> KeypointGroups:
    """Split the keypoints at random into groups: the RKG of the paper, to be drawn anew at every iteration.

    Args:
        num_keypoints: J.
        group_size: K_g. Makes N_g = J // K_g groups; the remainder joins the last, as in the reference code.
        generator: source of randomness; the same state gives the same groups.

    Raises:
        ConfigError: `group_size` is not in 1..J.
    """
    if not 1 <= group_size <= num_keypoints:
        raise ConfigError(
            "group_size",
            expected=f"a whole number in 1..{num_keypoints} (the keypoints of the loss)",
            got=str(group_size),
            do="change it; the paper uses 3",
        )
    order = torch.randperm(num_keypoints, generator=generator).tolist()
    starts = [group * group_size for group in range(num_keypoints // group_size)]
    return tuple(tuple(order[start:stop]) for start, stop in zip(starts, [*starts[1:], num_keypoints], strict=True))


def group_nll(
    mixture: Mixture,
    keypoints_xy: Tensor,
    labelled: Tensor,
    person_mask: Tensor,
    groups: KeypointGroups,
) -> tuple[Tensor, Tensor]:
    """Compute the negative log-likelihood of persons, averaged over groups of keypoints.

    Args:
        mixture: of B images.
        keypoints_xy: (B, P, J, 2), in the units of the mixture; read only where labelled.
        labelled: (B, P, J) bool; a keypoint that is not labelled contributes the factor 1, so that a person without any
            has the loss 0.
        person_mask: (B, P) bool; False where P is padded and for persons that carry no loss.
        groups: the keypoints that are multiplied within one mixture, as `group_keypoints` draws them.

    Returns:
        The loss of each person, (B, P), 0 where masked; and its mean over the persons of the batch, 0 (with a gradient
        of 0) where there are none.

    Raises:
        ValueError: the keypoints of the groups, the targets and the mixture are not the same.
    """
    nll = person_nll(mixture, keypoints_xy, labelled, person_mask, groups)
    per_person = nll.new_zeros(person_mask.shape).masked_scatter(person_mask, nll)
    return per_person, nll.sum() / max(len(nll), 1)


def person_nll(
    mixture: Mixture, keypoints_xy: Tensor, labelled: Tensor, person_mask: Tensor, groups: KeypointGroups
) -> Tensor:
    """Return the loss of the N persons that are not masked, (N,), image by image; arguments as of `group_nll`."""
    grouped = list(chain.from_iterable(groups))
    if not sorted(grouped) == list(range(keypoints_xy.shape[2])) == list(range(mixture.mu.shape[1] // 2)):
        raise ValueError(
            f"groups: expected each of the {mixture.mu.shape[1] // 2} keypoints of the mixture once, got {groups} for "
            f"targets of {keypoints_xy.shape[2]} keypoints"
        )
    seen = labelled[person_mask]
    target = torch.where(seen[..., None], keypoints_xy[person_mask], 0.0)  # what is not labelled may be NaN
    nll: Tensor = _GroupNLL.apply(
        mixture.log_pi,
        _split_axes(mixture.mu),
        _split_axes(mixture.gamma),
        target.to(mixture.mu.dtype),
        seen.to(mixture.mu.dtype),
        person_mask.sum(dim=1).tolist(),
        groups,
    )
    return nll


def count_nll(logits: Sequence[Tensor], counts: Tensor) -> Tensor:
    """Compute the negative log-likelihood of how many people an image shows, as a Poisson variable of rate sum(o).

    The paper's likelihood divides o by its sum, so that it is silent about an image without people; with this term the
    two together are the likelihood of a Poisson process, and o becomes the expected number of people at a cell.

    Args:
        logits: for each level, raw o, (B, 1, H, W).
        counts: (B,) people.

    Returns:
        sum(o) - N log sum(o), (B,): the constant log N! is left out.
    """
    log_o = functional.logsigmoid(torch.cat([_at_least_float32(o).flatten(1) for o in logits], dim=1))
    log_rate = log_o.logsumexp(dim=1)
    return log_rate.exp() - counts * log_rate


def _at_least_float32(raw: Tensor) -> Tensor:
    return raw.to(torch.promote_types(raw.dtype, torch.float32))


def _split_axes(channels: Tensor) -> Tensor:
    """View (B, 2J, M) as (B, J, 2, M)."""
    return channels.view(len(channels), -1, 2, channels.shape[2])


def _means(raw: Tensor, scale: float, extent: float) -> Tensor:
    """Return (B, 2J, H*W) means: the centre of the cell plus the scaled raw offset of (B, 2J, H, W)."""
    rows, columns = raw.shape[2:]
    x = (torch.arange(columns, dtype=raw.dtype, device=raw.device) + 0.5) * (extent / columns)
    y = (torch.arange(rows, dtype=raw.dtype, device=raw.device) + 0.5) * (extent / rows)
    centres = torch.stack(torch.meshgrid(x, y, indexing="xy"))  # (2, H, W)
    offset = _split_axes(raw.flatten(2)) * scale
    return (offset + centres.flatten(1)).flatten(1, 2)


def _gamma_floor(mu: Tensor, num_keypoints: int) -> Tensor:
    """Return (B, 2J, M): a fraction of the extent of each component's pose.

    Without a floor the likelihood degenerates: a component can shrink onto one person's keypoints. The paper is silent
    about it; the reference code has it.
    """
    pose = _split_axes(mu)
    low, high = pose[:, :num_keypoints].aminmax(dim=1, keepdim=True)
    floor = GAMMA_FLOOR * (high - low).clamp(min=MIN_POSE_EXTENT)
    return floor.expand_as(pose).flatten(1, 2)


class _GroupNLL(torch.autograd.Function):
    """GroupNLL of N persons, with the gradient written out.

    Autograd would keep several (N, J, 2, M) tensors; this keeps one (N, N_g, M) and works in blocks of components that
    stay in the cache. With r_m the responsibility of component m for a person's group,

        d nll / d log pi_m = -1/N_g * sum_g r_m
        d nll / d mu       = -1/N_g * r_m * sign(k - mu) / gamma
        d nll / d gamma    =  1/N_g * r_m * (1 - |k - mu| / gamma) / gamma

    where a keypoint that is not labelled contributes nothing to the last two.
    """

    @staticmethod
    def forward(
        ctx: Any,
        log_pi: Tensor,
        mu: Tensor,
        gamma: Tensor,
        target: Tensor,
        labelled: Tensor,
        persons_per_image: list[int],
        groups: KeypointGroups,
    ) -> Tensor:
        """Return the (N,) losses.

        Args:
            ctx: autograd's.
            log_pi: (B, M).
            mu: (B, J, 2, M).
            gamma: (B, J, 2, M).
            target: (N, J, 2): the persons of the first image, then of the second, ...
            labelled: (N, J), 1 or 0.
            persons_per_image: B numbers that sum to N.
            groups: of keypoints.
        """
        log_joint = mu.new_empty(len(target), len(groups), mu.shape[3])
        for image, persons, block in _blocks(mu, persons_per_image):
            scale = gamma[image, ..., block]
            offset = target[persons, ..., None] - mu[image, ..., block]
            distance_x, distance_y = offset.abs_().mul_(scale.reciprocal()).unbind(dim=2)
            nll = distance_x.add_(distance_y).add_((4 * scale.prod(dim=1)).log_()).mul_(labelled[persons, :, None])
            joint = log_joint[persons, :, block].copy_(log_pi[image, block])
            for group, keypoints in enumerate(groups):
                for keypoint in keypoints:
                    joint[:, group].sub_(nll[:, keypoint])
        log_mixture = log_joint.logsumexp(dim=2, keepdim=True)
        ctx.save_for_backward(mu, gamma, target, labelled, log_joint, log_mixture)
        ctx.persons_per_image, ctx.groups = persons_per_image, groups
        return -log_mixture.mean(dim=(1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_nll: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of log_pi, mu and gamma."""
        mu, gamma, target, labelled, log_joint, log_mixture = ctx.saved_tensors
        group_of = {keypoint: group for group, keypoints in enumerate(ctx.groups) for keypoint in keypoints}
        group_of_keypoint = torch.tensor([group_of[keypoint] for keypoint in range(mu.shape[1])], device=mu.device)
        grad_group = (grad_nll / len(ctx.groups))[:, None, None]
        grad_log_pi, grad_mu, grad_gamma = torch.empty_like(mu[:, 0, 0]), torch.empty_like(mu), torch.empty_like(mu)
        for image, persons, block in _blocks(mu, ctx.persons_per_image):
            responsibility = (log_joint[persons, :, block] - log_mixture[persons]).exp_().mul_(grad_group[persons])
            grad_log_pi[image, block] = -responsibility.sum(dim=(0, 1))
            weight = responsibility.index_select(1, group_of_keypoint).mul_(labelled[persons, :, None])
            per_scale = gamma[image, ..., block].reciprocal()
            offset = (target[persons, ..., None] - mu[image, ..., block]).mul_(per_scale)
            signed_weight = offset.sign().mul_(weight[:, :, None])
            grad_mu[image, ..., block] = -signed_weight.sum(dim=0) * per_scale
            distance = offset.mul_(signed_weight).sum(dim=0)
            grad_gamma[image, ..., block] = (weight.sum(dim=0)[:, None] - distance) * per_scale
        return grad_log_pi, grad_mu, grad_gamma, None, None, None, None


def _blocks(mu: Tensor, persons_per_image: list[int]) -> Iterator[tuple[int, slice, slice]]:
    """Cut the work into (image, its persons, some of its components).

    A (persons, J, 2, components) tensor of a block stays in a core's cache, or is worth a kernel launch on a GPU.
    """
    _, keypoints, axes, components = mu.shape
    elements = 2**18 if mu.device.type == "cpu" else 2**24
    first = 0
    for image, count in enumerate(persons_per_image):
        persons = slice(first, first + count)
        step = max(elements // max(count * keypoints * axes, 1), 1)
        for start in range(0, components, step):
            yield image, persons, slice(start, min(start + step, components))
        first += count
