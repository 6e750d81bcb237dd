from __future__ import annotations

import numpy as np
import pytest

from mdpose_edge.poses import Poses
from mdpose_edge.spec import COCO_KEYPOINTS
from mdpose_edge.track.tracker import LEAST_SIMILARITY, LOST_S, START_SCORE, UNKNOWN, WIDEST, PoseTracker

BODY = np.random.default_rng(0).uniform((-20, -60), (20, 60), (17, 2))
FPS = 30.0


def poses_at(*places_xy: tuple[float, float], scores: tuple[float, ...] | None = None, sigma: float = 1.0) -> Poses:
    keypoints = np.array([BODY + place for place in places_xy], np.float32).reshape(-1, 17, 2)
    values = np.full(len(places_xy), 0.9) if scores is None else np.array(scores)
    return Poses(keypoints, values.astype(np.float32), np.full_like(keypoints, sigma))


def tracker(**options: bool) -> PoseTracker:
    return PoseTracker(COCO_KEYPOINTS.sigmas, **options)


def test_two_who_pass_each_other_keep_their_ids() -> None:
    follow = tracker()
    for i in range(60):
        left, right = (100 + 5.0 * i, 100.0), (400 - 5.0 * i, 112.0)
        order = (left, right) if i % 2 else (right, left)  # the order of the poses says nothing
        _, ids = follow.update(poses_at(*order), i / FPS)
        if i == 0:
            first = dict(zip(order, ids.tolist(), strict=True))
            wanted = [first[left], first[right]]
        assert [dict(zip(order, ids.tolist(), strict=True))[who] for who in (left, right)] == wanted
    assert sorted(wanted) == [1, 2]


def test_somebody_hidden_for_a_while_comes_back_as_themselves() -> None:
    follow = tracker()
    for i in range(40):
        hidden = 15 <= i < 35
        _, ids = follow.update(poses_at(*([] if hidden else [(100 + 4.0 * i, 200.0)])), i / FPS)
        assert ids.tolist() == ([] if hidden else [1])


def test_somebody_gone_for_too_long_is_new() -> None:
    follow = tracker()
    for i in range(10):
        follow.update(poses_at((100, 100)), i / FPS)
    _, ids = follow.update(poses_at((100, 100)), 10 / FPS + LOST_S)
    assert ids.tolist() == [2]


def test_a_weak_pose_goes_on_with_somebody_but_starts_nobody() -> None:
    follow = tracker()
    weak = START_SCORE - 0.1
    assert follow.update(poses_at((100, 100), scores=(weak,)), 0.0)[1].tolist() == [UNKNOWN]
    assert follow.update(poses_at((100, 100)), 1 / FPS)[1].tolist() == [1]
    assert follow.update(poses_at((101, 100), scores=(weak,)), 2 / FPS)[1].tolist() == [1]


def test_a_second_pose_of_somebody_is_nobody() -> None:
    follow = tracker()
    for i in range(5):
        _, ids = follow.update(poses_at((100, 100), (101, 101), scores=(0.9, 0.5)), i / FPS)
        assert ids.tolist() == [1, UNKNOWN]


def test_ids_are_never_used_again() -> None:
    follow = tracker()
    seen = [follow.update(poses_at((100 + 200 * i, 100)), 5.0 * i)[1].tolist() for i in range(4)]
    assert seen == [[1], [2], [3], [4]]


def test_a_clock_that_stands_still_or_goes_back_does_no_harm() -> None:
    follow = tracker(smooth=True)
    for time_s in (0.0, 0.0, 1.0, 0.5, 0.5, 1.1):
        poses, ids = follow.update(poses_at((100, 100)), time_s)
        assert ids.tolist() == [1]
        np.testing.assert_allclose(poses.keypoints_xy[0], BODY + 100, atol=0.01)


def test_an_empty_frame_is_an_empty_answer() -> None:
    poses, ids = tracker(smooth=True).update(Poses.empty(17), 0.0)
    assert len(poses) == len(ids) == 0


def noisy_walk(seed: int, sigma: float, frames: int = 150) -> tuple[list[Poses], np.ndarray]:
    rng = np.random.default_rng(seed)
    clean = np.array([BODY + np.array((100 + 2.0 * i, 100 + 3 * np.sin(i / 8))) for i in range(frames)])
    keypoints = (clean + rng.laplace(0, sigma, clean.shape)).astype(np.float32)
    score = np.array([0.9], np.float32)
    return [Poses(k[None], score, np.full((1, 17, 2), sigma, np.float32)) for k in keypoints], clean


def smoothed(poses: list[Poses]) -> list[Poses]:
    follow = tracker(smooth=True)
    return [follow.update(p, i / FPS)[0] for i, p in enumerate(poses)]


def jitter(points: np.ndarray, clean: np.ndarray) -> float:
    return float(np.sqrt((np.diff(points - clean, 2, axis=0) ** 2)[10:].mean()))


def test_smooth_trembles_less_and_errs_less_and_says_so() -> None:
    raw, clean = noisy_walk(1, sigma=3.0)
    steady = smoothed(raw)
    before, after = (np.array([p.keypoints_xy[0] for p in some]) for some in (raw, steady))
    assert jitter(after, clean) < 0.4 * jitter(before, clean)
    errors = np.abs(after - clean)[30:]
    assert errors.mean() < 0.7 * np.abs(before - clean)[30:].mean()
    stated = np.array([p.sigma_xy[0] for p in steady])[30:]
    assert stated.mean() == pytest.approx(errors.mean(), rel=0.35)


def test_a_keypoint_of_small_sigma_is_followed_more_closely() -> None:
    raw, _ = noisy_walk(2, sigma=3.0)
    keen = [Poses(p.keypoints_xy, p.scores, np.full_like(p.sigma_xy, 0.05)) for p in raw]
    moved = [
        np.mean([np.abs(s.keypoints_xy - r.keypoints_xy).mean() for s, r in zip(smoothed(some), raw, strict=True)])
        for some in (keen, raw)
    ]
    assert moved[0] < 0.2 * moved[1]


def test_without_smooth_the_poses_are_as_they_came() -> None:
    raw, _ = noisy_walk(3, sigma=2.0, frames=5)
    follow = tracker()
    assert all(follow.update(p, i / FPS)[0] is p for i, p in enumerate(raw))


def test_pairs_that_are_not_looked_at_are_none_that_count() -> None:
    rng = np.random.default_rng(0)
    kappa_squared = (2 * np.asarray(COCO_KEYPOINTS.sigmas)) ** 2
    size = rng.uniform(10, 200, 40)
    bodies = rng.uniform(-0.5, 0.5, (40, 17, 2)) * size[:, None, None] * (0.02, 1.4)
    expected = bodies + rng.uniform(0, 400, (40, 1, 2))
    # Thin bodies, moved sideways: their boxes do not meet. Of some, only a few keypoints are near.
    measured = expected + size[:, None, None] * rng.normal(0, 0.3, (40, 1, 2)) * (1, 0.1)
    measured[::4, :10] += 3 * size[::4, None, None]
    variances = size[:, None, None] ** 2 * rng.uniform(0, 0.1, (2, 40, 17, 2))
    found = tracker()._similarity(expected, variances[0], size, measured, variances[1])

    wide = np.minimum(variances[0][:, None] + variances[1][None], (WIDEST * size)[:, None, None, None] ** 2)
    own = (size[:, None, None] ** 2 * kappa_squared)[..., None]
    distance = ((expected[:, None] - measured[None]) ** 2 / (own + wide)).sum(axis=3)
    similar = np.exp(-0.5 * distance).mean(axis=2)
    counts = similar >= LEAST_SIMILARITY
    assert 20 < counts.sum() < 400
    np.testing.assert_allclose(found[counts], similar[counts], rtol=1e-12)
    assert (found[~counts] < LEAST_SIMILARITY).all()
    assert (found == 0).mean() > 0.3
