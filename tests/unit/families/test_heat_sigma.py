"""The fitted table of standard deviations: it finds what made the errors, and says no more than it knows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge.families.heat_sigma import Observations, SigmaTable, fit, prior, sigma_of, sizes_of

SIGMAS = (0.03, 0.08, 0.1)
TRUE = SigmaTable((-3.0, -2.5, -2.0), (1.5, 0.4))


def draw(people: int, table: SigmaTable = TRUE, seed: int = 0) -> Observations:
    rng = np.random.default_rng(seed)
    sizes, heat = rng.uniform(20, 200, people), rng.uniform(0, 1, (people, 3))
    kinds = rng.random((people, 3)) < 0.3
    scale = sigma_of(table, sizes, heat, kinds) / math.sqrt(2)
    errors: NDArray[np.float64] = rng.laplace(0.0, 1.0, (people, 3, 2)) * scale[..., None]
    return Observations(errors, sizes, heat, rng.random((people, 3)) < 0.9, kinds)


def test_a_fit_finds_the_table_that_made_the_errors() -> None:
    found = fit(prior(SIGMAS, kinds=2), draw(20_000))
    np.testing.assert_allclose(found.offsets, TRUE.offsets, atol=0.05)
    np.testing.assert_allclose(found.slopes, TRUE.slopes, atol=0.06)


def test_two_thirds_of_errors_lie_within_what_a_laplace_distribution_says() -> None:
    found, seen = fit(prior(SIGMAS, kinds=2), draw(5_000)), draw(5_000, seed=1)
    sigma = sigma_of(found, seen.sizes, seen.heat, seen.kinds)
    inside = (np.abs(seen.errors_xy) < sigma[..., None])[seen.labelled].mean()
    assert inside == pytest.approx(1 - math.exp(-math.sqrt(2)), abs=0.01)


def test_the_fit_is_where_the_likelihood_is_flat() -> None:
    seen, start = draw(200), prior(SIGMAS, kinds=2)
    found = fit(start, seen)

    def nll(table: SigmaTable) -> float:
        b = sigma_of(table, seen.sizes, seen.heat, seen.kinds).astype(np.float64)[seen.labelled] / math.sqrt(2)
        errors = np.abs(seen.errors_xy).mean(axis=2)[seen.labelled]
        made_up = 0.0  # the prior's eight keypoints each, at both ends of heat
        for k in range(3):
            for kind in (0, 1):
                for low in (0.0, 1.0):
                    b0 = math.exp(start.offsets[k] + start.slopes[kind] * low)
                    b1 = math.exp(table.offsets[k] + table.slopes[kind] * low)
                    made_up += 4 * (math.log(b1) + b0 / b1)
        return float((np.log(b) + errors / b).sum()) + made_up

    least = nll(found)
    for k in range(3):
        for step in (-0.02, 0.02):
            offsets = [a + step * (i == k) for i, a in enumerate(found.offsets)]
            assert nll(SigmaTable(tuple(offsets), found.slopes)) > least
    for kind in (0, 1):
        for step in (-0.02, 0.02):
            slopes = [c + step * (i == kind) for i, c in enumerate(found.slopes)]
            assert nll(SigmaTable(found.offsets, tuple(slopes))) > least


def test_nobody_gives_the_prior_back() -> None:
    nobody = Observations(np.zeros((0, 3, 2)), np.zeros(0), np.zeros((0, 3)), np.zeros((0, 3), np.bool_))
    found = fit(prior(SIGMAS), nobody)
    np.testing.assert_allclose(found.offsets, np.log(SIGMAS))
    np.testing.assert_allclose(found.slopes, 1.0)


def test_errors_of_zero_and_of_absurd_size_leave_a_finite_table() -> None:
    seen = draw(50)
    for errors in (np.zeros_like(seen.errors_xy), np.full_like(seen.errors_xy, 1e9)):
        found = fit(prior(SIGMAS, kinds=2), Observations(errors, seen.sizes, seen.heat, seen.labelled, seen.kinds))
        sigma = sigma_of(found, seen.sizes, seen.heat, seen.kinds)
        assert np.isfinite(sigma).all() and (sigma > 0).all()


def test_sigma_grows_with_size_and_as_heat_falls() -> None:
    table = SigmaTable((math.log(0.1),) * 2, (1.0,))
    sigma = sigma_of(table, np.array([10.0, 100.0]), np.array([[1.0, 0.0], [1.0, 2.0]]))
    np.testing.assert_allclose(sigma, [[1.0, math.e], [10.0, 10.0]], rtol=1e-6)
    assert sigma.dtype == np.float32


def test_the_size_of_a_point_is_a_pixel() -> None:
    people = np.array([[[0.0, 0.0], [4.0, 9.0]], [[3.0, 3.0], [3.0, 3.0]]], np.float32)
    np.testing.assert_allclose(sizes_of(people), [6.0, 1.0])
