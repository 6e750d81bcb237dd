"""How well identities were kept: MOTA, ID switches (Bernardin and Stiefelhagen 2008), IDF1 (Ristani et al. 2016)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.oks import oks_matrix
from mdpose_edge.track.assignment import assign

Array = NDArray[np.float64]

SAME = 0.5
"""OKS from which a pose is the person."""


@dataclass(frozen=True)
class TruthFrame:
    """The people of one frame."""

    ids: NDArray[np.int64]
    """(N,)."""
    keypoints: Array
    """(N, K, 3): x and y in px, and COCO's v; v = 0 is not looked at."""
    areas: Array
    """(N,) px²: sets the scale of OKS."""


@dataclass(frozen=True)
class TrackScores:
    """What came of following everybody."""

    mota: float
    """1 - (misses + false poses + switches) / people to be found."""
    idf1: float
    """Share of poses that bear the one id that serves their person best, F1 of precision and recall."""
    switches: int
    """How often a person went on under another id."""
    misses: int
    false_poses: int
    people: int
    """To be found, over all frames."""


def score_tracks(
    truth: Sequence[TruthFrame], found: Sequence[tuple[NDArray[np.int64], Array]], oks_sigmas: Sequence[float]
) -> TrackScores:
    """Hold tracks against the truth.

    Args:
        truth: of each frame.
        found: of each frame, (M,) ids and (M, K, 2) px; poses with an id below 1 are nobody's and not looked at.
        oks_sigmas: (K,) COCO's constants.

    Raises:
        ValueError: another number of frames than of truths.
    """
    if len(truth) != len(found):
        raise ValueError(f"expected one result for each of {len(truth)} frames, got {len(found)}")
    shared: Counter[tuple[int, int]] = Counter()
    last: dict[int, int] = {}
    people = poses = misses = false_poses = switches = 0
    for frame, (ids, keypoints) in zip(truth, found, strict=True):
        ids, keypoints = ids[ids > 0], keypoints[ids > 0]
        similar = _oks(frame, keypoints, oks_sigmas)
        for row, column in zip(*np.nonzero(similar >= SAME), strict=True):
            shared[int(frame.ids[row]), int(ids[column])] += 1
        pairs = _match(frame.ids, ids, similar, last)
        for person, track in pairs.items():
            switches += last.get(person, track) != track
            last[person] = track
        people, poses = people + len(frame.ids), poses + len(ids)
        misses += len(frame.ids) - len(pairs)
        false_poses += len(ids) - len(pairs)
    mota = 1 - (misses + false_poses + switches) / max(1, people)
    return TrackScores(mota, _idf1(shared, people, poses), switches, misses, false_poses, people)


def _oks(frame: TruthFrame, keypoints: Array, oks_sigmas: Sequence[float]) -> Array:
    """Return COCO's object keypoint similarity of people and poses, (N, M)."""
    people_xy, labelled = frame.keypoints[:, :, :2], frame.keypoints[:, :, 2] > 0
    return oks_matrix(keypoints, people_xy, labelled, np.maximum(frame.areas, 1.0), oks_sigmas).T


def _match(
    people: NDArray[np.int64], tracks: NDArray[np.int64], similar: Array, last: dict[int, int]
) -> dict[int, int]:
    """Pair people and tracks: who was paired before stays so while similar enough; then the best of the rest."""
    value = np.where(similar >= SAME, similar, 0.0)
    for row, person in enumerate(people.tolist()):
        before = np.flatnonzero(tracks == last.get(person, 0))
        value[row, before] += (value[row, before] > 0) * len(tracks)  # worth more than any other pairing
    return {int(people[row]): int(tracks[column]) for row, column in assign(value, SAME)}


def _idf1(shared: Counter[tuple[int, int]], people: int, poses: int) -> float:
    """Return the pairs of person and track, each once, that agree in the most frames in all."""
    if not people + poses:
        return 1.0
    if not shared:
        return 0.0
    rows, columns = (sorted({pair[side] for pair in shared}) for side in (0, 1))
    counts = np.zeros((len(rows), len(columns)))
    for (person, track), count in shared.items():
        counts[rows.index(person), columns.index(track)] = count
    kept = sum(counts[pair] for pair in assign(counts, 1.0))
    return float(2 * kept / (people + poses))
