from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge.check.matching import disagreement, match, paired_scores
from mdpose_edge.check.measures.coverage import coverage
from mdpose_edge.check.measures.scores import ks_distance
from mdpose_edge.check.measures.shift import pose_shifts
from mdpose_edge.families.registry import sigma_law
from mdpose_edge.oks import oks_matrix
from mdpose_edge.poses import Poses

SIGMAS = (0.1,) * 17
STEPS = np.column_stack([np.linspace(0, 1, 17), 7 * np.linspace(0, 1, 17) % 1])


def poses(*places: float, scores: tuple[float, ...] | None = None) -> Poses:
    """People 100 px tall and wide, at these x."""
    xy = np.array([100 * STEPS + (x, 0) for x in places], np.float32).reshape(-1, 17, 2)
    return Poses(xy, np.array(scores or [0.9] * len(places), np.float32), np.ones_like(xy))


def test_oks_is_cocos() -> None:
    person, moved = poses(0.0).keypoints_xy, poses(8.0).keypoints_xy
    labelled = np.ones((1, 17), np.bool_)
    oks = oks_matrix(moved, person, labelled, np.array([5000.0]), SIGMAS)
    assert oks[0, 0] == pytest.approx(np.exp(-(8.0**2) / (2 * 5000.0 * 0.2**2)), rel=1e-5)


def test_oks_counts_labelled_keypoints_only() -> None:
    person = poses(0.0).keypoints_xy
    moved = person.copy()
    moved[0, 5:] += 1e6
    labelled = np.zeros((2, 17), np.bool_)
    labelled[0, :5] = True
    oks = oks_matrix(moved, np.concatenate([person, person]), labelled, np.array([5000.0, 5000.0]), SIGMAS)
    assert oks.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("oks", "expected"),
    [
        pytest.param([[0.9, 0.6], [0.8, 0.7]], [0, 1], id="the best pose chooses first"),
        pytest.param([[0.9], [0.95]], [0, -1], id="a person is taken once"),
        pytest.param([[0.49]], [-1], id="too far"),
        pytest.param(np.zeros((2, 0)), [-1, -1], id="nobody"),
    ],
)
def test_match(oks: NDArray[np.float64], expected: list[int]) -> None:
    assert match(np.asarray(oks)).tolist() == expected


def test_disagreement_goes_from_none_to_all() -> None:
    assert disagreement(poses(0, 300), poses(300, 0), SIGMAS) == pytest.approx(0.0, abs=1e-6)
    assert disagreement(poses(0), poses(300), SIGMAS) == 1.0
    assert disagreement(poses(), poses(300), SIGMAS) == 1.0
    assert disagreement(poses(0, 300), poses(0), SIGMAS) == pytest.approx(1 / 3)
    assert disagreement(poses(), poses(), SIGMAS) == 0.0


def test_scores_are_paired_by_person() -> None:
    ours = poses(0, 300, 600, scores=(0.9, 0.5, 0.1))
    theirs = poses(300, 0, 900, scores=(0.8, 0.4, 0.35))
    pairs = sorted(zip(*paired_scores(ours, theirs, 0.3, SIGMAS), strict=True))
    assert np.array(pairs) == pytest.approx(np.array([(0.0, 0.35), (0.5, 0.8), (0.9, 0.4)]))


def test_scores_of_nobody_are_none() -> None:
    assert [len(side) for side in paired_scores(poses(), poses(), 0.3, SIGMAS)] == [0, 0]


def test_a_shift_is_a_part_of_the_persons_size() -> None:
    ours, theirs = poses(4.0, 300.0, 900.0), poses(301.0, 0.0, 600.0)
    assert sorted(pose_shifts(ours, theirs, SIGMAS)) == pytest.approx([0.01, 0.04], rel=1e-5)
    assert len(pose_shifts(ours, poses(), SIGMAS)) == len(pose_shifts(poses(), ours, SIGMAS)) == 0


@pytest.mark.parametrize(
    ("a", "b", "distance"), [([1, 2], [1, 2], 0.0), ([1, 2], [3, 4], 1.0), ([1, 2, 3, 4], [2, 3, 4, 5], 0.25)]
)
def test_ks_distance(a: list[float], b: list[float], distance: float) -> None:
    assert ks_distance(np.array(a), np.array(b)) == distance


@pytest.mark.parametrize("family", ["mdpose", "mixture_dense"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_coverage_of_errors_of_the_family_s_own_law_is_the_share(share: float, family: str) -> None:
    law, draw = sigma_law(family), np.random.default_rng(0)
    errors = draw.laplace(0.0, 3.0, 100_000) if law == "laplace" else draw.normal(0.0, 3.0 * np.sqrt(2.0), 100_000)
    sigma = 3.0 * np.sqrt(2.0)
    assert coverage(np.abs(errors) / sigma, share, law) == pytest.approx(share, abs=0.005)
    assert coverage(2.0 * np.abs(errors) / sigma, share, law) < share - 0.1
