from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge.families.mdpose.heads import constants_of, mdpose_spec, pyramid
from mdpose_edge.families.mixture import PoseMixture, joint_nll, log_weights, mixture_divergence
from mdpose_edge.families.registry import make_decoder
from mdpose_edge.preprocess import frame_geometry
from mdpose_edge.spec import InputSpec

FRAME_WH = (100, 60)
LEVELS = pyramid()
SPEC = mdpose_spec(InputSpec(64, 96))


def random_heads(seed: int) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    heads = {}
    for level in LEVELS:
        for kind, channels in (("o", 1), ("mu", 34), ("gamma", 34)):
            shape = (1, channels, *SPEC.cells(level.stride))
            heads[f"{kind}_{level.name}"] = random.normal(0, 2, shape).astype(np.float32)
    return heads


def random_mixture(seed: int) -> PoseMixture:
    return make_decoder(SPEC).mixture(random_heads(seed), frame_geometry(FRAME_WH, SPEC.input))


def random_people(count: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    random = np.random.default_rng(9)
    xy = random.uniform(0, 1, (count, 17, 2)) * FRAME_WH
    labelled = random.random((count, 17)) < 0.6
    labelled[0], labelled[-1] = True, False
    return xy, labelled


def one_component(x: float, sigma: float) -> PoseMixture:
    return PoseMixture(np.zeros(1), np.full((1, 1, 2), x, np.float32), np.full((1, 1, 2), sigma, np.float32))


def test_likelihood_is_the_loss_of_training() -> None:
    torch = pytest.importorskip("torch")
    from mdpose_edge.families.mdpose.loss import group_nll, mixture_from_heads

    xy, labelled = random_people(5)
    heads = [
        tuple(torch.from_numpy(random_heads(0)[f"{kind}_{level.name}"]).double() for kind in ("o", "mu", "gamma"))
        for level in LEVELS
    ]
    units_per_px = constants_of(SPEC).coordinate_extent / np.array(FRAME_WH)
    per_person, _ = group_nll(
        mixture_from_heads(heads, LEVELS, num_keypoints=17),
        torch.from_numpy(xy * units_per_px)[None],
        torch.from_numpy(labelled)[None],
        torch.ones(1, 5, dtype=torch.bool),
        (tuple(range(17)),),
    )
    # A density per px is one per unit times units per px, for every labelled coordinate.
    expected = per_person[0].numpy() - labelled.sum(axis=1) * np.log(units_per_px).sum()
    found = joint_nll(random_mixture(0), xy, labelled)
    assert found[:-1] == pytest.approx(expected[:-1], rel=1e-5)
    assert found[-1] == pytest.approx(0.0, abs=1e-12)


def test_what_is_not_labelled_is_not_read() -> None:
    xy, labelled = random_people(3)
    spoiled = np.where(labelled[..., None], xy, np.nan)
    assert np.array_equal(joint_nll(random_mixture(0), spoiled, labelled), joint_nll(random_mixture(0), xy, labelled))


def test_weights_sum_to_one() -> None:
    assert np.exp(log_weights(random_mixture(3))).sum() == pytest.approx(1.0)


def test_a_mixture_does_not_diverge_from_itself() -> None:
    assert mixture_divergence(random_mixture(0), random_mixture(0)) == (0.0, 0.0)


def test_divergence_is_symmetric_and_positive() -> None:
    there = mixture_divergence(random_mixture(0), random_mixture(1))
    assert there == pytest.approx(mixture_divergence(random_mixture(1), random_mixture(0)))
    assert min(there) > 0.1


@pytest.mark.parametrize(("moved", "sigma"), [(0.0, 2.0), (1.5, 1.0), (-2.0, 0.4)])
def test_divergence_of_one_component_is_the_integral(moved: float, sigma: float) -> None:
    x = np.linspace(-60, 60, 1_200_001)

    def density(mean: float, scale: float) -> NDArray[np.float64]:
        return np.exp(-np.abs(x - mean) / scale) / (2 * scale)

    p, q = density(0.0, 1.0), density(moved, sigma)
    per_coordinate = (
        0.5 * float(((p - q) * np.log(np.maximum(p, 1e-300) / np.maximum(q, 1e-300))).sum()) * (x[1] - x[0])
    )
    weights, components = mixture_divergence(one_component(moved, sigma), one_component(0.0, 1.0))
    assert weights == 0.0
    assert components == pytest.approx(2 * per_coordinate, rel=1e-3)


def test_divergence_of_the_weights_is_that_of_the_shares() -> None:
    same = np.zeros((2, 1, 2), np.float32), np.ones((2, 1, 2), np.float32)
    p, q = (PoseMixture(np.array(scores), *same) for scores in ([-0.7, -0.7], [-20.0 + np.log(3), -20.0]))
    # Scores of equal size against scores of 3 to 1.
    expected = 0.5 * (0.75 - 0.5) * np.log(3.0)
    assert mixture_divergence(p, q) == (pytest.approx(expected, rel=1e-4), 0.0)


def test_a_component_that_collapsed_keeps_the_likelihood_finite() -> None:
    assert np.isfinite(joint_nll(one_component(1.0, 0.0), np.ones((1, 1, 2)), np.ones((1, 1), np.bool_))).all()


def gaussian(seed: int) -> PoseMixture:
    random = np.random.default_rng(seed)
    means = random.uniform(0, 60, (6, 4, 2)).astype(np.float32)
    return PoseMixture(random.normal(0, 2, 6), means, random.uniform(2, 9, (6, 4, 2)).astype(np.float32), "gaussian")


def test_likelihood_of_gaussians_is_a_density() -> None:
    """One keypoint of a mixture, the others not labelled: the density over a grid of px sums to 1."""
    mixture = gaussian(0)
    x, y = np.meshgrid(np.arange(-60.0, 130.0), np.arange(-60.0, 130.0))
    points = np.zeros((x.size, 4, 2))
    points[:, 2] = np.stack([x.ravel(), y.ravel()], axis=1)
    labelled = np.zeros((x.size, 4), np.bool_)
    labelled[:, 2] = True
    assert np.exp(-joint_nll(mixture, points, labelled)).sum() == pytest.approx(1.0, abs=1e-6)


def test_divergence_of_gaussians_is_their_mean_log_ratio() -> None:
    """By sampling: E_p[log p - log q] over (component, pose), and the other way round."""
    p, q = gaussian(0), gaussian(1)
    q = PoseMixture(q.log_scores, p.keypoints_xy + q.keypoints_xy / 20, q.scales_xy, "gaussian")
    weights, components = mixture_divergence(p, q)
    random, sampled = np.random.default_rng(2), 0.0
    for one, other in ((p, q), (q, p)):
        noise = random.normal(size=(20_000, *one.scales_xy.shape))
        drawn = one.keypoints_xy + noise * one.scales_xy
        z = (drawn - other.keypoints_xy) / other.scales_xy
        ratio = (z**2 - noise**2) / 2 + np.log(other.scales_xy / one.scales_xy)
        sampled += 0.5 * float(np.exp(log_weights(one)) @ ratio.sum(axis=(2, 3)).mean(axis=0)) / 4
    assert components == pytest.approx(sampled, rel=0.02)
    assert weights > 0.1 and mixture_divergence(p, p) == (0.0, 0.0)
