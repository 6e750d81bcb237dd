from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdpose_edge.calib.select import OCCLUSION_STRATA, PEOPLE_STRATA, SCALE_STRATA, Traits, rank_images, traits_of
from mdpose_edge.datasets.coco import Persons


def persons(areas: list[float], visibilities: list[list[int]], crowd: list[bool]) -> Persons:
    keypoints = np.zeros((len(areas), 4, 3), np.float32)
    keypoints[:, :, 2] = np.array(visibilities, np.float32).reshape(len(areas), 4)
    return Persons(
        keypoints,
        np.zeros((len(areas), 4), np.float32),
        np.array(areas, np.float32),
        np.array(crowd, bool),
        (keypoints[:, :, 2] > 0).sum(axis=1),
    )


@pytest.mark.parametrize(
    ("people", "traits"),
    [
        pytest.param(persons([], [], []), Traits(0, None, None), id="nobody"),
        pytest.param(persons([400], [[2, 2, 2, 1]], [True]), Traits(0, None, None), id="a crowd only"),
        pytest.param(persons([400], [[2, 2, 1, 0]], [False]), Traits(1, 0.2, 0.3333), id="one, a third hidden"),
        pytest.param(persons([400], [[0, 0, 0, 0]], [False]), Traits(1, 0.2, None), id="without keypoints"),
        pytest.param(
            persons([100, 400, 2500, 9999], [[2] * 4, [1] * 4, [2] * 4, [1] * 4], [False, False, False, True]),
            Traits(3, 0.2, 0.3333),
            id="three and a crowd",
        ),
    ],
)
def test_traits_sum_up_the_annotations(people: Persons, traits: Traits) -> None:
    assert traits_of(people, (100, 100)) == traits


@pytest.mark.parametrize(
    ("traits", "names"),
    [
        (Traits(0, None, None), ("0", "below 0.1", "below 0.1")),
        (Traits(1, 0.0999, 0.0), ("1", "below 0.1", "below 0.1")),
        (Traits(2, 0.1, 0.1), ("2 to 4", "0.1 to 0.25", "0.1 to 0.3")),
        (Traits(4, 0.25, 0.3), ("2 to 4", "0.25 and more", "0.3 and more")),
        (Traits(50, 0.9, 1.0), ("5 and more", "0.25 and more", "0.3 and more")),
    ],
)
def test_a_stratum_starts_at_its_lowest_value(traits: Traits, names: tuple[str, str, str]) -> None:
    tables = (PEOPLE_STRATA, SCALE_STRATA, OCCLUSION_STRATA)
    assert traits.stratum == tuple(list(table).index(name) for table, name in zip(tables, names, strict=True))


STRATA = st.dictionaries(st.text(max_size=4), st.integers(0, 5), min_size=1, max_size=60)


@given(strata=STRATA, seed=st.integers(0, 9))
def test_every_beginning_is_a_stratified_sample(strata: dict[str, int], seed: int) -> None:
    order = rank_images(strata, seed)
    sizes = Counter(strata.values())
    assert sorted(order) == sorted(strata)
    for num in range(len(order) + 1):
        taken = Counter(strata[name] for name in order[:num])
        assert len(taken) == min(num, len(sizes))
        if num < len(sizes):
            continue
        # The largest place that the sample reaches: no stratum lags behind it, none runs ahead.
        reach = max((taken[key] - 1) / sizes[key] for key in sizes)
        assert all(taken[key] == sizes[key] or taken[key] / sizes[key] >= reach for key in sizes)


def test_a_sample_of_half_takes_half_of_each() -> None:
    strata = {f"{kind}{index}": kind for kind, count in (("a", 60), ("b", 30), ("c", 10)) for index in range(count)}
    taken = Counter(strata[name] for name in rank_images(strata, 0)[:50])
    assert taken == {"a": 30, "b": 15, "c": 5}


@given(strata=STRATA, seed=st.integers(0, 9))
def test_the_order_of_the_listing_does_not_matter(strata: dict[str, int], seed: int) -> None:
    assert rank_images(dict(reversed(strata.items())), seed) == rank_images(strata, seed)


def test_seeds_draw_differently_and_any_machine_draws_alike() -> None:
    names = dict.fromkeys(map(str, range(8)))
    assert rank_images(names, 0) == ["7", "4", "3", "2", "6", "0", "5", "1"]
    assert rank_images(names, 1) != rank_images(names, 0)
