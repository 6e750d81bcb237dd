"""The loss against the formulas in float64, finite differences, and the reference implementation's own figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mdpose_edge.errors import ConfigError
from mdpose_edge.families.mdpose.heads import GAMMA_FLOOR, pyramid
from mdpose_edge.families.mdpose.loss import (
    KeypointGroups,
    Mixture,
    count_nll,
    group_keypoints,
    group_nll,
    mixture_from_heads,
)

GOLDENS = Path(__file__).parents[3] / "goldens"
PARITY = 1e-5
"""Relative to the largest value: the issue's bound on parity, some 100 times float32's resolution."""


def max_error(got: Tensor, want: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    got, want = got.detach().double(), want.detach().double()
    return float((got - want).abs().max() / want.abs().max())


def random_mixture(images: int, joints: int, components: int, seed: int, dtype: torch.dtype = torch.float32) -> Mixture:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(images, components, generator=generator).log_softmax(1)
    mu = torch.rand(images, 2 * joints, components, generator=generator) * 5
    gamma = torch.rand(images, 2 * joints, components, generator=generator) + 0.05
    return Mixture(*(tensor.to(dtype).requires_grad_() for tensor in (weights, mu, gamma)))


def random_persons(images: int, persons: int, joints: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keypoints, labelled, person_mask: about a quarter of the keypoints unlabelled, the last image without persons."""
    generator = torch.Generator().manual_seed(seed)
    keypoints = torch.rand(images, persons, joints, 2, generator=generator) * 5
    labelled = torch.rand(images, persons, joints, generator=generator) < 0.75
    mask = torch.rand(images, persons, generator=generator) < 0.7
    mask[0, 0], mask[-1] = True, False
    return keypoints, labelled, mask


def nll_by_formula(
    mixture: Mixture, keypoints_xy: Tensor, labelled: Tensor, person_mask: Tensor, groups: KeypointGroups
) -> Tensor:
    """(B, P) losses in float64, as the paper writes them: a product of densities inside a sum of components."""
    log_pi, mu, gamma = (tensor.double() for tensor in (mixture.log_pi, mixture.mu, mixture.gamma))
    losses = torch.zeros(person_mask.shape, dtype=torch.float64)
    for image, person in person_mask.nonzero().tolist():
        total = torch.zeros((), dtype=torch.float64)
        for group in groups:
            density = log_pi[image].exp()
            for joint in group:
                for axis in (0, 1):
                    if labelled[image, person, joint]:
                        scale = gamma[image, 2 * joint + axis]
                        distance = (
                            keypoints_xy[image, person, joint, axis].double() - mu[image, 2 * joint + axis]
                        ).abs()
                        density = density * torch.exp(-distance / scale) / (2 * scale)
            total = total + density.sum().log()
        losses = losses.index_put((torch.tensor(image), torch.tensor(person)), -total / len(groups))
    return losses


def gradients(mixture: Mixture, scalar: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(scalar, (mixture.log_pi, mixture.mu, mixture.gamma))


def split(permutation: Sequence[int], sizes: Sequence[int]) -> KeypointGroups:
    ends = np.cumsum(sizes)
    return tuple(tuple(permutation[end - size : end]) for end, size in zip(ends, sizes, strict=True))


def heads_from_cells(raw: dict[str, np.ndarray]) -> list[tuple[Tensor, ...]]:
    """Cut (1, C, M) arrays over all cells into per-level maps."""
    sizes = [tuple(size) for size in raw["level_sizes"]]
    counts = [rows * columns for rows, columns in sizes]
    parts = [torch.from_numpy(raw[f"raw_{kind}"]).split(counts, dim=2) for kind in ("o", "mu", "gamma")]
    return [tuple(part.unflatten(2, size) for part in level) for size, *level in zip(sizes, *parts, strict=True)]


# --- the reference implementation's figures ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["three_level_96", "five_level_256"])
def test_mixture_equals_the_reference_implementation(name: str) -> None:
    figures = dict(np.load(GOLDENS / f"parameters_{name}.npz"))
    names = ("p3", "p4", "p5", "p6", "p7")[: len(figures["level_sizes"])]

    mixture = mixture_from_heads(heads_from_cells(figures), pyramid(names), num_keypoints=17)

    torch.testing.assert_close(mixture.log_pi.exp(), torch.from_numpy(figures["pi"][0]), rtol=PARITY, atol=0)
    torch.testing.assert_close(mixture.mu, torch.from_numpy(figures["mu"]), rtol=PARITY, atol=PARITY)
    torch.testing.assert_close(mixture.gamma, torch.from_numpy(figures["gamma"]), rtol=PARITY, atol=0)


@pytest.mark.parametrize(
    ("group_size", "sizes", "figure"),
    [
        (1, [1] * 17, "reference_nll_kg1"),
        (2, [2] * 7 + [3], "reference_nll_kg2"),
        (1, [1] * 17, "log_space_nll_kg1"),
        (2, [2] * 7 + [3], "log_space_nll_kg2"),
        (17, [17], "log_space_nll_kg17"),  # the reference itself saturates here
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nll_equals_the_reference_implementation(group_size: int, sizes: list[int], figure: str) -> None:
    figures = np.load(GOLDENS / "loss.npz")
    mixture = Mixture(*(torch.from_numpy(figures[key]) for key in ("pi", "mu", "gamma")))
    mixture = Mixture(mixture.log_pi[:, 0].log(), mixture.mu, mixture.gamma)
    keypoints = torch.from_numpy(figures["keypoints_xy"])[None]
    labelled = torch.from_numpy(figures["visibility"] > 0)[None]
    groups = split(figures[f"permutation_kg{group_size}"].tolist(), sizes)

    losses, mean = group_nll(mixture, keypoints, labelled, torch.ones(1, 4, dtype=torch.bool), groups)

    np.testing.assert_allclose(losses[0].numpy(), figures[figure], rtol=PARITY)
    assert mean.item() == pytest.approx(figures[figure].mean(), rel=PARITY)


# --- the formulas in float64, and finite differences ------------------------------------------------------------------


@pytest.mark.parametrize("group_size", [1, 2, 3, 4, 6, 9])
def test_loss_and_gradients_equal_the_formula_in_float64(group_size: int) -> None:
    mixture = random_mixture(images=3, joints=18, components=50, seed=group_size)
    persons = random_persons(images=3, persons=4, joints=18, seed=group_size)
    groups = group_keypoints(18, group_size, torch.Generator().manual_seed(0))

    losses, mean = group_nll(mixture, *persons, groups)
    want = nll_by_formula(mixture, *persons, groups)

    assert max_error(losses, want) < PARITY
    want_mean = want.sum() / persons[2].sum()
    assert mean.item() == pytest.approx(want_mean.item(), rel=PARITY)
    for got, expected in zip(gradients(mixture, mean), gradients(mixture, want_mean), strict=True):
        assert max_error(got, expected) < PARITY


def test_many_components_in_several_blocks_equal_the_formula() -> None:
    persons = random_persons(images=2, persons=4, joints=3, seed=1)
    mixture = random_mixture(images=2, joints=3, components=30_000, seed=1)  # 4 x 6 x 30,000 elements: three blocks
    persons[2][0] = True
    groups: KeypointGroups = ((2, 0), (1,))

    losses, mean = group_nll(mixture, *persons, groups)
    want = nll_by_formula(mixture, *persons, groups)

    assert max_error(losses, want) < PARITY
    for got, expected in zip(gradients(mixture, mean), gradients(mixture, want.sum() / 4), strict=True):
        assert max_error(got, expected) < PARITY


@pytest.mark.parametrize("groups", [((0,), (1,), (2,)), ((2, 0), (1,)), ((1, 2, 0),)], ids=len)
def test_gradients_equal_finite_differences(groups: KeypointGroups) -> None:
    mixture = random_mixture(images=3, joints=3, components=4, seed=5, dtype=torch.float64)
    keypoints, labelled, mask = random_persons(images=3, persons=2, joints=3, seed=6)
    assert not labelled[mask].all(), "the case needs keypoints that are not labelled"

    def per_person(log_pi: Tensor, mu: Tensor, gamma: Tensor) -> Tensor:
        return group_nll(Mixture(log_pi, mu, gamma), keypoints.double(), labelled, mask, groups)[0]

    assert torch.autograd.gradcheck(per_person, (mixture.log_pi, mixture.mu, mixture.gamma))


def test_gradient_of_raw_heads_equals_finite_differences() -> None:
    generator = torch.Generator().manual_seed(3)
    shapes = [(2, channels, size, size) for size in (2, 1) for channels in (1, 6, 6)]
    raw = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    keypoints, labelled, mask = random_persons(images=2, persons=2, joints=3, seed=4)

    def loss(*raw: Tensor) -> Tensor:
        levels = pyramid(("p3", "p4"))
        # A pose of one keypoint has no extent: the floor, which is detached and so not for finite differences, is off.
        mixture = mixture_from_heads([raw[:3], raw[3:]], levels, num_keypoints=1)
        return group_nll(mixture, keypoints.double(), labelled, mask, ((0, 2), (1,)))[1]

    assert torch.autograd.gradcheck(loss, raw)


def test_likelihood_is_a_density() -> None:
    mixture = random_mixture(images=1, joints=1, components=5, seed=2, dtype=torch.float64)
    step = 0.05
    axis = torch.arange(-15, 20, step, dtype=torch.float64) + step / 2
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).reshape(1, -1, 1, 2)
    everyone = torch.ones(grid.shape[:3], dtype=torch.bool)

    losses, _ = group_nll(mixture, grid, everyone, everyone[..., 0], ((0,),))

    assert (-losses).exp().sum().item() * step**2 == pytest.approx(1.0, abs=5e-3)


# --- where products of densities fail ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "distance", "scale"),
    [
        pytest.param(torch.float32, 0.3, 0.05, id="float32-underflow"),
        pytest.param(torch.float32, 0.0, 1e-4, id="float32-overflow"),
        pytest.param(torch.float64, 4.0, 0.05, id="float64-underflow"),
        pytest.param(torch.float64, 0.001, 1e-8, id="float64-collapsed"),
        pytest.param(torch.float64, 0.0, 1e-10, id="float64-overflow"),
    ],
)
def test_one_group_of_all_keypoints_is_exact_where_a_product_of_densities_fails(
    dtype: torch.dtype, distance: float, scale: float
) -> None:
    channels = 2 * 18
    density = torch.tensor(math.exp(-distance / scale) / (2 * scale), dtype=dtype) ** channels
    assert density in (0.0, math.inf), "the case must be out of a product's reach"
    pi = torch.tensor([0.25, 0.75], dtype=dtype)  # of two components with the same density: their responsibilities too
    mixture = Mixture(
        pi.log()[None].requires_grad_(),
        torch.zeros(1, channels, 2, dtype=dtype).requires_grad_(),
        torch.full((1, channels, 2), scale, dtype=dtype).requires_grad_(),
    )
    keypoints = torch.full((1, 1, 18, 2), distance, dtype=dtype)
    everything = torch.ones(1, 1, 18, dtype=torch.bool)

    _, mean = group_nll(mixture, keypoints, everything, everything[..., 0], (tuple(range(18)),))

    assert mean.item() == pytest.approx(channels * (distance / scale + math.log(2 * scale)), rel=PARITY)
    grad_log_pi, grad_mu, grad_gamma = gradients(mixture, mean)
    resolution = 2 * PARITY  # of a responsibility, where log densities are in the hundreds
    want_mu, want_gamma = -pi * (distance > 0) / scale, pi * (1 - distance / scale) / scale
    torch.testing.assert_close(grad_log_pi, -pi[None], rtol=resolution, atol=0)
    torch.testing.assert_close(grad_mu, want_mu.expand_as(grad_mu), rtol=resolution, atol=0)
    torch.testing.assert_close(grad_gamma, want_gamma.expand_as(grad_gamma), rtol=resolution, atol=0)


# --- who and what counts ----------------------------------------------------------------------------------------------


def test_batch_without_persons_has_zero_loss_and_zero_gradient() -> None:
    mixture = random_mixture(images=2, joints=3, components=7, seed=0)
    keypoints, labelled, mask = random_persons(images=2, persons=3, joints=3, seed=0)

    losses, mean = group_nll(mixture, keypoints, labelled, torch.zeros_like(mask), ((0, 1, 2),))

    assert losses.shape == (2, 3)
    assert not losses.any()
    assert mean.item() == 0.0
    assert all(not gradient.any() for gradient in gradients(mixture, mean))


def test_batch_with_no_room_for_persons_has_zero_loss() -> None:
    mixture = random_mixture(images=2, joints=3, components=7, seed=0)
    nobody = torch.zeros(2, 0, 3, dtype=torch.bool)

    losses, mean = group_nll(mixture, torch.zeros(2, 0, 3, 2), nobody, nobody[..., 0], ((0, 1, 2),))

    assert losses.shape == (2, 0)
    assert mean.item() == 0.0
    assert all(not gradient.any() for gradient in gradients(mixture, mean))


def test_padding_and_unlabelled_coordinates_change_nothing() -> None:
    mixture = random_mixture(images=3, joints=4, components=9, seed=8)
    keypoints, labelled, mask = random_persons(images=3, persons=3, joints=4, seed=8)
    groups = ((3, 1), (0, 2))
    losses, mean = group_nll(mixture, keypoints, labelled, mask, groups)

    padded = torch.full((3, 5, 4, 2), math.nan)
    padded[:, 2:] = torch.where((labelled & mask[..., None])[..., None], keypoints, math.nan)
    padded_labelled, padded_mask = torch.ones(3, 5, 4, dtype=torch.bool), torch.zeros(3, 5, dtype=torch.bool)
    padded_labelled[:, 2:], padded_mask[:, 2:] = labelled, mask
    padded_losses, padded_mean = group_nll(mixture, padded, padded_labelled, padded_mask, groups)

    assert torch.equal(padded_losses[:, 2:], losses)
    assert not padded_losses[:, :2].any()
    assert torch.equal(padded_mean, mean)
    for got, want in zip(gradients(mixture, padded_mean), gradients(mixture, mean), strict=True):
        assert torch.equal(got, want)


def test_keypoints_that_are_not_labelled_get_no_gradient_but_the_weights_do() -> None:
    mixture = random_mixture(images=1, joints=3, components=6, seed=9)
    keypoints = torch.rand(1, 1, 3, 2, generator=torch.Generator().manual_seed(9))
    labelled = torch.tensor([[[True, False, True]]])

    _, mean = group_nll(mixture, keypoints, labelled, torch.ones(1, 1, dtype=torch.bool), ((0, 1, 2),))

    grad_log_pi, grad_mu, grad_gamma = gradients(mixture, mean)
    assert not grad_mu[:, 2:4].any()
    assert not grad_gamma[:, 2:4].any()
    assert grad_mu[:, [0, 1, 4, 5]].all()
    assert grad_log_pi.sum().item() == pytest.approx(-1.0, abs=1e-6)  # responsibilities of one person sum to 1


@pytest.mark.parametrize("groups", [((0, 1), (1, 2)), ((0, 1),), ((0, 1, 2, 3),)], ids=["twice", "missing", "beyond"])
def test_groups_that_do_not_cover_the_keypoints_are_refused(groups: KeypointGroups) -> None:
    mixture = random_mixture(images=2, joints=3, components=2, seed=0)
    persons = random_persons(images=2, persons=1, joints=3, seed=0)
    with pytest.raises(ValueError, match="each of the 3 keypoints"):
        group_nll(mixture, *persons, groups)


# --- random keypoint groups -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keypoints", "group_size", "sizes"),
    [
        (18, 1, [1] * 18),
        (18, 2, [2] * 9),
        (18, 3, [3] * 6),
        (18, 6, [6] * 3),
        (18, 9, [9] * 2),
        (18, 18, [18]),
        (17, 2, [2] * 7 + [3]),
        (17, 3, [3] * 4 + [5]),
    ],
)
def test_groups_hold_each_keypoint_once(keypoints: int, group_size: int, sizes: list[int]) -> None:
    groups = group_keypoints(keypoints, group_size, torch.Generator().manual_seed(0))
    assert [len(group) for group in groups] == sizes
    assert sorted(index for group in groups for index in group) == list(range(keypoints))


def test_groups_are_reshuffled_and_follow_the_generator() -> None:
    generator = torch.Generator().manual_seed(4)
    first, second = group_keypoints(18, 3, generator), group_keypoints(18, 3, generator)
    assert first != second
    assert first == group_keypoints(18, 3, torch.Generator().manual_seed(4))


@pytest.mark.parametrize("group_size", [-1, 0, 19])
def test_impossible_group_size_is_refused(group_size: int) -> None:
    with pytest.raises(ConfigError, match=rf"group_size: expected a whole number in 1\.\.18 .*, got {group_size};"):
        group_keypoints(18, group_size)


# --- from heads to mixture --------------------------------------------------------------------------------------------


def test_gamma_is_floored_by_the_real_keypoints_without_a_gradient_to_them() -> None:
    pose_x, pose_y = [0.0, 16.0], [0.0, 8.0]  # extents 16 and 8 raw units of 2^-4: 1.0 and 0.5
    center = [400.0, 400.0]
    raw_mu = torch.tensor([pose_x[0], pose_y[0], pose_x[1], pose_y[1], *center]).view(1, 6, 1, 1).requires_grad_()
    raw_gamma = torch.full((1, 6, 1, 1), -20.0)
    raw_gamma[0, 3] = 2.0

    head = (torch.zeros(1, 1, 1, 1), raw_mu, raw_gamma.requires_grad_())
    mixture = mixture_from_heads([head], pyramid(("p3",)), num_keypoints=2)

    free = math.log1p(math.exp(2.0))
    x, y = GAMMA_FLOOR * 1.0, GAMMA_FLOOR * 0.5
    torch.testing.assert_close(mixture.gamma.flatten(), torch.tensor([x, y, x, free, x, y]))
    grad_mu, grad_gamma = torch.autograd.grad(mixture.gamma.sum(), (raw_mu, raw_gamma), allow_unused=True)
    assert grad_mu is None
    assert grad_gamma.flatten().nonzero().tolist() == [[3]]


def test_gamma_is_positive_and_the_loss_finite_for_a_pose_collapsed_to_a_point() -> None:
    head = (torch.zeros(1, 1, 2, 2), torch.zeros(1, 6, 2, 2), torch.full((1, 6, 2, 2), -200.0))
    mixture = mixture_from_heads([head], pyramid(("p3",)), num_keypoints=3)
    assert (mixture.gamma > 0).all()
    mixture = Mixture(*(t.requires_grad_() for t in (mixture.log_pi, mixture.mu, mixture.gamma)))
    everything = torch.ones(1, 1, 3, dtype=torch.bool)

    _, mean = group_nll(mixture, torch.rand(1, 1, 3, 2), everything, everything[..., 0], ((0, 1, 2),))

    assert mean.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(mixture, mean))


def test_bfloat16_heads_under_autocast_are_worked_in_float32() -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = [(2, channels, 4, 4) for channels in (1, 36, 36)]
    raw = tuple((8 * torch.randn(shape, generator=generator)).bfloat16() for shape in shapes)
    raw = tuple(tensor.to(memory_format=torch.channels_last) for tensor in raw)  # as convolutions like to give them
    persons = random_persons(images=2, persons=2, joints=18, seed=1)
    groups = group_keypoints(18, 18)

    with torch.autocast("cpu", torch.bfloat16):
        mixture = mixture_from_heads([raw], pyramid(("p3",)), num_keypoints=17)
        _, mean = group_nll(mixture, *persons, groups)
    exact = mixture_from_heads([tuple(t.double() for t in raw)], pyramid(("p3",)), num_keypoints=17)
    _, exact_mean = group_nll(exact, *persons, groups)

    assert mixture.mu.dtype == mean.dtype == torch.float32
    assert exact_mean.dtype == torch.float64
    assert max_error(mixture.log_pi, exact.log_pi) < PARITY
    assert mean.item() == pytest.approx(exact_mean.item(), rel=PARITY)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu() -> None:
    mixture = random_mixture(images=3, joints=18, components=500, seed=0)
    persons = random_persons(images=3, persons=4, joints=18, seed=0)
    groups = group_keypoints(18, 3)
    _, mean = group_nll(mixture, *persons, groups)
    on_device = Mixture(*(t.detach().cuda().requires_grad_() for t in (mixture.log_pi, mixture.mu, mixture.gamma)))

    _, device_mean = group_nll(on_device, *(tensor.cuda() for tensor in persons), groups)

    assert device_mean.item() == pytest.approx(mean.item(), rel=PARITY)
    for got, want in zip(gradients(on_device, device_mean), gradients(mixture, mean), strict=True):
        assert max_error(got.cpu(), want) < PARITY


def test_count_term_is_the_poisson_likelihood_of_the_rate_sum_o() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = [(torch.randn(3, 1, side, side, generator=generator) - 2).requires_grad_() for side in (4, 2, 1)]
    counts = torch.tensor([0, 1, 5])
    rate = torch.cat([o.flatten(1).sigmoid() for o in logits], dim=1).double().sum(dim=1)
    want = -torch.distributions.Poisson(rate).log_prob(counts) - torch.lgamma(counts + 1.0)
    got = count_nll(logits, counts)
    assert max_error(got, want) < PARITY
    (slope,) = torch.autograd.grad(got.sum(), logits[0])
    sigmoid = logits[0].detach().sigmoid()
    exact = (sigmoid * (1 - sigmoid)) * (1 - counts / rate)[:, None, None, None]
    assert max_error(slope, exact) < PARITY


def test_count_term_survives_logits_that_underflow() -> None:
    raw = torch.full((1, 1, 2, 2), -200.0, requires_grad=True)
    loss = count_nll([raw], torch.tensor([2]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(2 * (200 - math.log(4)))
    assert raw.grad is not None and torch.allclose(raw.grad, torch.full_like(raw, -0.5))
