"""Who is who from frame to frame, by where each keypoint should be and how sure the model is of where it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.errors import ConfigError
from mdpose_edge.poses import Poses
from mdpose_edge.track.assignment import assign
from mdpose_edge.track.kalman import Array, KalmanState

UNKNOWN = 0
"""The id of a pose that is nobody's: too uncertain to start a track, or a second pose of somebody."""
LEAST_SIMILARITY = 0.2
"""Below it a pose is not the person that is expected there."""
START_SCORE = 0.35
"""A weaker pose goes on with a person, but starts no new one."""
SAME_PERSON = 0.5
"""A pose that is as similar as this to somebody already found in the frame starts no new person."""
LOST_S = 1.0
"""Somebody unseen for longer is forgotten, and new when seen again."""
BRIEF_S, BRIEF_HITS = 0.15, 3
"""And after this, who was not seen in so many frames before: most likely nobody."""
WIDEST = 0.2
"""The most that the uncertainty of where somebody is widens the search for them, body sizes: the far end of a room is
not similar, however long they were hidden."""
MIN_SIGMA = 1e-3
"""px: a keypoint whose sigma is 0 would never move again."""


@dataclass
class _People:
    """What is known of everybody followed; one row each."""

    ids: NDArray[np.int64]
    hits: NDArray[np.int64]
    seen_s: Array
    """When last."""
    size: Array
    """Root of the area of the box around the keypoints, px."""

    def take(self, rows: NDArray[np.bool_]) -> _People:
        return _People(self.ids[rows], self.hits[rows], self.seen_s[rows], self.size[rows])


class PoseTracker:
    """Identities of people over time, and steadier keypoints where wanted.

    Each person's keypoints are followed by a Kalman filter whose measurement noise is the model's sigma. A pose belongs
    to the person whose expected keypoints it is most similar to: OKS, widened by what both are uncertain of. All pairs
    of a frame are decided together.

        tracker = PoseTracker(estimator.spec.keypoints.sigmas)
        poses, ids = tracker.update(estimator(frame), time_s)

    Not thread-safe.

    Args:
        oks_sigmas: (K,) of the keypoints: spec.keypoints.sigmas.
        smooth: True gives the filter's estimate of each keypoint and its sigma; False the poses as they came.

    Raises:
        ConfigError: there are no keypoints, whose similarity it goes by.
    """

    def __init__(self, oks_sigmas: Sequence[float], *, smooth: bool = False) -> None:
        if not len(oks_sigmas):
            do = "track with a model of poses"
            raise ConfigError("tracking", expected="a model with keypoints", got="one of boxes alone", do=do)
        self._kappa_squared = (2 * np.asarray(oks_sigmas)) ** 2
        # A mean of LEAST_SIMILARITY takes one keypoint with as much, which is no further than this, body sizes.
        self._reach = float(np.sqrt(-2 * np.log(LEAST_SIMILARITY) * (self._kappa_squared.max() + WIDEST**2)))
        self._smooth = smooth
        self._state = KalmanState.none(len(self._kappa_squared))
        self._people = _People(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
        self._next_id = 1
        self._time_s: float | None = None

    def update(self, poses: Poses, time_s: float) -> tuple[Poses, NDArray[np.int64]]:
        """Take in the poses of the next frame.

        Args:
            poses: in px of the frame, best first.
            time_s: the frame's time; a time that does not advance counts as none passed.

        Returns:
            The poses in the same order, smoothed where that was asked for, and (N,) ids from 1, or UNKNOWN.
        """
        measured = poses.keypoints_xy.astype(np.float64)
        variance = np.maximum(poses.sigma_xy.astype(np.float64), MIN_SIGMA) ** 2
        self._advance(time_s)
        rows = self._match(measured, variance, poses.scores)
        found = np.flatnonzero(rows >= 0)
        self._see(rows[found], measured[found], variance[found], time_s)
        new = self._newcomers(measured, variance, poses.scores, rows)
        rows[new] = len(self._people.ids) + np.arange(len(new))
        self._meet(measured[new], variance[new], time_s)
        ids = np.full(len(poses), UNKNOWN, np.int64)
        known = rows >= 0
        ids[known] = self._people.ids[rows[known]]
        return (self._smoothed(poses, rows) if self._smooth else poses), ids

    def _advance(self, time_s: float) -> None:
        dt = 0.0 if self._time_s is None else max(0.0, time_s - self._time_s)
        self._time_s = time_s if self._time_s is None else max(self._time_s, time_s)
        people = self._people
        unseen_s = self._time_s - people.seen_s
        kept = (unseen_s <= LOST_S) & ((unseen_s <= max(BRIEF_S, 1.5 * dt)) | (people.hits >= BRIEF_HITS))
        self._people, self._state = people.take(kept), self._state.take(kept)
        if dt > 0 and kept.any():
            self._state.predict(dt, self._people.size)

    def _match(self, measured: Array, variance: Array, scores: NDArray[np.float32]) -> NDArray[np.intp]:
        """Return each pose's row in the state, or -1: strong poses choose first, weak ones take who is left."""
        rows = np.full(len(measured), -1, np.intp)
        free = np.ones(len(self._people.ids), bool)
        strong = scores >= START_SCORE
        for wanted in (strong, ~strong):
            which, whom = np.flatnonzero(wanted), np.flatnonzero(free)
            if len(which) and len(whom):
                state = self._state.take(whom)
                similar = self._similarity(
                    state.position, state.var_position, self._people.size[whom], measured[which], variance[which]
                )
                for person, pose in assign(similar, LEAST_SIMILARITY):
                    rows[which[pose]] = whom[person]
                    free[whom[person]] = False
        return rows

    def _similarity(self, expected: Array, var_a: Array, size: Array, measured: Array, var_b: Array) -> Array:
        """Return the OKS of A expected with B measured people, (A, B), widened by the variances of both.

        Below LEAST_SIMILARITY it may be 0: pairs that are too far apart for more are not looked at.
        """
        similar = np.zeros((len(expected), len(measured)))
        a, b = np.nonzero(_near(expected, self._reach * size, measured))
        square = size[a] ** 2
        own = square[:, None] * self._kappa_squared
        wide = np.minimum(var_a[a] + var_b[b], (WIDEST**2 * square)[:, None, None])
        distance = ((expected[a] - measured[b]) ** 2 / (own[:, :, None] + wide)).sum(axis=2)
        similar[a, b] = np.exp(-0.5 * distance).mean(axis=1)
        return similar

    def _newcomers(
        self, measured: Array, variance: Array, scores: NDArray[np.float32], rows: NDArray[np.intp]
    ) -> NDArray[np.intp]:
        """Find the poses that start a person: strong, and not another pose of somebody found already."""
        new: list[int] = []
        taken = np.flatnonzero(rows >= 0).tolist()
        for pose in np.flatnonzero((rows < 0) & (scores >= START_SCORE)).tolist():
            if taken:
                others = measured[taken]
                similar = self._similarity(
                    others,
                    np.zeros_like(others),
                    _sizes(others),
                    measured[pose : pose + 1],
                    np.zeros((1, *others.shape[1:])),
                )
                if similar.max() >= SAME_PERSON:
                    continue
            new.append(pose)
            taken.append(pose)
        return np.array(new, np.intp)

    def _see(self, rows: NDArray[np.intp], measured: Array, variance: Array, time_s: float) -> None:
        if not len(rows):
            return
        self._state.update(rows, measured, variance)
        self._people.hits[rows] += 1
        self._people.seen_s[rows] = time_s
        self._people.size[rows] = _sizes(self._state.position[rows])

    def _meet(self, measured: Array, variance: Array, time_s: float) -> None:
        count = len(measured)
        if not count:
            return
        size, people = _sizes(measured), self._people
        self._state = self._state.joined(KalmanState.first(measured, variance, size))
        self._people = _People(
            np.concatenate([people.ids, np.arange(self._next_id, self._next_id + count)]),
            np.concatenate([people.hits, np.ones(count, np.int64)]),
            np.concatenate([people.seen_s, np.full(count, time_s)]),
            np.concatenate([people.size, size]),
        )
        self._next_id += count

    def _smoothed(self, poses: Poses, rows: NDArray[np.intp]) -> Poses:
        keypoints, sigma = poses.keypoints_xy.copy(), poses.sigma_xy.copy()
        known = rows >= 0
        keypoints[known] = self._state.position[rows[known]]
        sigma[known] = np.sqrt(self._state.var_position[rows[known]])
        return replace(poses, keypoints_xy=keypoints, sigma_xy=sigma)


def _near(keypoints_xy: Array, reach: Array, others_xy: Array) -> NDArray[np.bool_]:
    """Say whose box around all keypoints (A, K, 2), widened by a reach (A,) px, meets whose of (B, K, 2): (A, B)."""
    low, high = keypoints_xy.min(axis=1) - reach[:, None], keypoints_xy.max(axis=1) + reach[:, None]
    meets = (low[:, None] <= others_xy.max(axis=1)) & (high[:, None] >= others_xy.min(axis=1))
    return np.asarray(meets.all(axis=2))


def _sizes(keypoints_xy: Array) -> Array:
    """Return the root of the area of the box around each person's keypoints, at least 1 px."""
    sides = np.ptp(keypoints_xy, axis=1)
    return np.asarray(np.maximum(1.0, np.sqrt(sides[:, 0] * sides[:, 1])))
