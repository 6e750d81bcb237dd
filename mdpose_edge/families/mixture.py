"""A mixture of poses: the likelihood that it gives annotated people, and how far two of them are apart.

AP reads neither the scales of a mixture nor its weights beyond their order: a broken gamma leaves it untouched.
Everything here is computed in float64, from the mixture in pixels of the frame, so that artifacts with other input
sizes or resize policies are measured in the same unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SMALLEST_SCALE = 1e-9
"""px. Keeps the density finite where a pose collapses to a point and softplus underflows."""
Law = Literal["laplace", "gaussian"]
"""What a coordinate is distributed by."""


@dataclass(frozen=True)
class PoseMixture:
    """Every component of one image, likely or not: what the head tensors say before thresholds and NMS.

    A component is a product of distributions of one law, one for each coordinate.
    """

    log_scores: NDArray[np.float64]
    """(M,): the logarithm of each component's score, in an order that two artifacts of the same cells share."""
    keypoints_xy: NDArray[np.float32]
    """(M, K, 2) px of the frame: the means."""
    scales_xy: NDArray[np.float32]
    """(M, K, 2) px of the frame: Laplace scales, mean absolute deviations, which times sqrt(2) are `Poses.sigma_xy`; or
    Gaussian ones, standard deviations."""
    law: Law = "laplace"


def log_weights(mixture: PoseMixture) -> NDArray[np.float64]:
    """Return log pi (M,): the logarithm of each component's score over the sum of all."""
    weights: NDArray[np.float64] = mixture.log_scores - _log_sum_exp(mixture.log_scores)
    return weights


def joint_nll(
    mixture: PoseMixture, keypoints_xy: NDArray[np.floating], labelled: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Compute the negative log-likelihood of whole people.

    -log sum_m pi_m prod_{j, d in x, y} p((k_jd - mu_mjd) / b_mjd) / b_mjd

    with p(z) = exp(-|z|) / 2, or exp(-z^2 / 2) / sqrt(2 pi).

    Args:
        mixture: of the image.
        keypoints_xy: (N, K, 2) px of the frame; read only where labelled.
        labelled: (N, K).

    Returns:
        (N,) nats, for coordinates in px; 0 for a person without labels.
    """
    weights = log_weights(mixture)
    means = mixture.keypoints_xy.astype(np.float64)
    scales = _positive(mixture.scales_xy)
    nll = np.zeros(len(keypoints_xy))
    for person, (points, seen) in enumerate(zip(keypoints_xy, labelled, strict=True)):
        scale = scales[:, seen]
        distance = np.abs(points[seen] - means[:, seen]) / scale
        if mixture.law == "laplace":
            cost = distance + np.log(2.0 * scale)
        else:
            cost = 0.5 * distance**2 + np.log(np.sqrt(2.0 * np.pi) * scale)
        nll[person] = -_log_sum_exp(weights - cost.sum(axis=(1, 2)))
    return nll


def mixture_divergence(p: PoseMixture, q: PoseMixture) -> tuple[float, float]:
    """Measure how far two mixtures over the same cells are apart, component by component.

    The symmetric Kullback-Leibler divergence of (component, pose), which splits into that of the weights and the
    expected one of the components' distributions. It bounds that of the mixtures from above, has no sampling noise, and
    needs no labels.

    Args:
        p: of one artifact.
        q: of the other, for the same frame and of the same law.

    Returns:
        That of the weights, in nats per image, and that of the components, in nats per keypoint.
    """
    weights_p, weights_q = log_weights(p), log_weights(q)
    pi_p, pi_q = np.exp(weights_p), np.exp(weights_q)
    distance = np.abs(p.keypoints_xy.astype(np.float64) - q.keypoints_xy)
    sigma_p, sigma_q = _positive(p.scales_xy), _positive(q.scales_xy)
    kl = _laplace_kl if p.law == "laplace" else _gaussian_kl
    components = pi_p @ kl(distance, sigma_p, sigma_q) + pi_q @ kl(distance, sigma_q, sigma_p)
    weights = (pi_p - pi_q) @ (weights_p - weights_q)
    return 0.5 * float(weights), 0.5 * float(components) / p.keypoints_xy.shape[1]


def _laplace_kl(
    distance: NDArray[np.float64], sigma_p: NDArray[np.float64], sigma_q: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum KL(p || q) of Laplace distributions over all coordinates of each component: (M, K, 2) to (M,)."""
    moved = (sigma_p * np.exp(-distance / sigma_p) + distance) / sigma_q
    total: NDArray[np.float64] = (np.log(sigma_q / sigma_p) + moved - 1.0).sum(axis=(1, 2))
    return total


def _gaussian_kl(
    distance: NDArray[np.float64], sigma_p: NDArray[np.float64], sigma_q: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Do the same for Gaussian distributions."""
    moved = (np.square(sigma_p) + np.square(distance)) / (2.0 * np.square(sigma_q))
    total: NDArray[np.float64] = (np.log(sigma_q / sigma_p) + moved - 0.5).sum(axis=(1, 2))
    return total


def _positive(scales_xy: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.maximum(scales_xy.astype(np.float64), SMALLEST_SCALE)


def _log_sum_exp(values: NDArray[np.float64]) -> np.float64:
    largest = values.max()
    total: np.float64 = largest + np.log(np.exp(values - largest).sum())
    return total
