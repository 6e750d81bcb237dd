from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdpose_edge.check.measures.colour import colour_cast, swapped_log_odds


def test_colour_cast_is_blue_less_red() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    image[..., 0], image[0, :, 2] = 10, 30
    assert colour_cast(image) == pytest.approx(10 - 15)
    assert colour_cast(np.ascontiguousarray(image[..., ::-1])) == -colour_cast(image)


@given(st.integers(0, 2**32 - 1))
def test_a_swap_is_told_from_chance(seed: int) -> None:
    random = np.random.default_rng(seed)
    calibration, use = random.normal(-18.0, 30.0, 200), random.normal(-18.0, 30.0, 200)
    same, swapped = swapped_log_odds(calibration, use), swapped_log_odds(-calibration, use)
    assert same is not None and swapped is not None
    assert swapped == pytest.approx(-same)
    assert same < -3.0


def test_without_a_cast_nothing_is_claimed() -> None:
    random = np.random.default_rng(0)
    odds = [swapped_log_odds(random.normal(0, 30, 100), random.normal(0, 30, 100)) for _ in range(200)]
    assert np.mean(np.array(odds) > 3.0) < 0.01


@pytest.mark.parametrize(("a", "b"), [([], [1.0, 2.0]), ([1.0], [1.0, 2.0]), ([1.0, 1.0], [2.0, 2.0])])
def test_too_little_to_say_anything(a: list[float], b: list[float]) -> None:
    assert swapped_log_odds(a, b) is None
