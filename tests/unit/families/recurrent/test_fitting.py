"""The fit of standard deviations, on maps whose keypoints are off by a known law."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from mdpose_edge.families.base import FitImage
from mdpose_edge.families.heat_sigma import prior
from mdpose_edge.families.recurrent.fitting import finish
from mdpose_edge.families.recurrent.heads import HEAT_THRESHOLD, STOP_THRESHOLD, Constants, constants_of, recurrent_spec
from mdpose_edge.spec import COCO_KEYPOINTS, InputSpec

SPEC = recurrent_spec(InputSpec(256, 256), Constants(2, STOP_THRESHOLD, HEAT_THRESHOLD, prior(COCO_KEYPOINTS.sigmas)))
PART = 0.06
"""Standard deviation of the planted errors, as a part of a person's size."""


def images(count: int, stop: float = 3.0) -> Iterator[FitImage]:
    """One person in each, whose maps have a peak off the annotated keypoint, and a step that is nobody's."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        heads = {head.name: np.zeros((1, *SPEC.head_shape(head)), np.float32) for head in SPEC.heads}
        heads["stop"][0, :, 0, 0] = (stop, -3.0)
        cells = rng.integers(12, 52, (17, 2))
        heads["heat_1"][0, np.arange(17), cells[:, 1], cells[:, 0]] = 0.9
        found = (cells + 0.5) * 4
        size = np.sqrt(np.ptp(found, axis=0).prod())
        truth = found + rng.laplace(0, PART * size / np.sqrt(2), (17, 2))
        yield FitImage(
            heads, truth[None].astype(np.float32), np.ones((1, 17), np.bool_), np.array([size**2], np.float32)
        )


def test_planted_errors_are_found_again() -> None:
    done = finish(SPEC, images(200))
    sigma = constants_of(done.spec).sigma
    spread = np.exp(np.array(sigma.offsets) + sigma.slopes[0] * 0.1)
    np.testing.assert_allclose(spread[5:], PART, rtol=0.3)
    assert done.note.startswith("fitted sigma to ") and int(done.note.split()[3]) > 150


def test_where_nobody_is_found_the_prior_stays() -> None:
    done = finish(SPEC, images(3, stop=-3.0))
    assert done.spec == SPEC and "finds nobody" in done.note


def test_the_number_of_images_is_bounded() -> None:
    torch = pytest.importorskip("torch")
    assert torch is not None
    from mdpose_edge.errors import ConfigError
    from mdpose_edge.families.recurrent.training import FAMILY, LossConfig

    assert FAMILY.fit_images(LossConfig(fit_images=7)) == 7
    with pytest.raises(ConfigError, match=r"loss\.fit_images: expected a number in"):
        LossConfig(fit_images=-1)
