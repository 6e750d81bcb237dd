from __future__ import annotations

import numpy as np
import pytest

from benchmarks.track_metrics import TrackScores, TruthFrame, score_tracks
from mdpose_edge.spec import COCO_KEYPOINTS

BODY = np.random.default_rng(0).uniform((-20, -60), (20, 60), (17, 2))
A, B = np.array((100.0, 100.0)), np.array((400.0, 100.0))


def truth(*people: tuple[int, np.ndarray]) -> TruthFrame:
    points = np.array([np.column_stack((BODY + place, np.full(17, 2))) for _, place in people]).reshape(-1, 17, 3)
    return TruthFrame(np.array([i for i, _ in people], np.int64), points, np.full(len(people), 4000.0))


def found(*people: tuple[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    points = np.array([BODY + place for _, place in people]).reshape(-1, 17, 2)
    return np.array([i for i, _ in people], np.int64), points


def scores(truths: list[TruthFrame], results: list[tuple[np.ndarray, np.ndarray]]) -> TrackScores:
    return score_tracks(truths, results, COCO_KEYPOINTS.sigmas)


BOTH = truth((1, A), (2, B))


def test_all_right() -> None:
    result = scores([BOTH] * 4, [found((7, A), (9, B))] * 4)
    assert result == TrackScores(1.0, 1.0, 0, 0, 0, 8)


def test_a_swap_is_two_switches_and_halves_idf1() -> None:
    result = scores([BOTH] * 4, [found((7, A), (9, B))] * 2 + [found((9, A), (7, B))] * 2)
    assert (result.switches, result.misses, result.false_poses) == (2, 0, 0)
    assert result.mota == pytest.approx(1 - 2 / 8)
    assert result.idf1 == pytest.approx(0.5)


def test_a_miss_and_a_false_pose() -> None:
    result = scores([BOTH] * 2, [found((7, A), (9, B)), found((7, A), (9, B + 150))])
    assert (result.misses, result.false_poses, result.switches) == (1, 1, 0)
    assert result.mota == pytest.approx(0.5)
    assert result.idf1 == pytest.approx(2 * 3 / 8)


def test_who_comes_back_under_another_id_is_a_switch() -> None:
    alone = truth((1, A))
    result = scores([alone] * 3, [found((7, A)), found(), found((8, A))])
    assert (result.switches, result.misses) == (1, 1)


def test_a_pose_of_nobody_is_not_looked_at() -> None:
    assert scores([BOTH], [found((7, A), (9, B), (0, A + 200))]).mota == 1.0


def test_an_old_pairing_holds_against_a_better_new_one() -> None:
    alone = truth((1, A))
    result = scores([alone] * 2, [found((7, A)), found((8, A), (7, A + 2))])
    assert (result.switches, result.false_poses) == (0, 1)


def test_nothing_to_find_and_nothing_found() -> None:
    assert scores([truth()], [found()]) == TrackScores(1.0, 1.0, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="one result for each"):
        scores([truth()], [])
