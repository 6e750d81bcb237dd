"""Poses of three dimensions beside people who are known: who is who, and how far their joints are apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.errors import ConfigError
from mdpose_edge.oks import oks_matrix
from mdpose_edge.poses import Poses
from mdpose_edge.spec import KeypointSpec

ROOT_NAMES = (("pelvis",), ("left_hip", "right_hip"))
"""What a set may call the root, or the keypoints whose middle it is."""
SAME_PERSON_OKS = 0.5
"""From here on a pose shows a person: the loosest threshold of COCO's AP. Each person takes one pose."""


def matched_pairs(
    poses: Poses,
    people_xy: NDArray[np.floating],
    labelled: NDArray[np.bool_],
    areas: NDArray[np.floating],
    sigmas: Sequence[float],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Give each pose, best first, the free person that it resembles most in the picture.

    Args:
        poses: N of them.
        people_xy: (P, K, 2) px.
        labelled: (P, K): keypoints that count.
        areas: (P,) px².
        sigmas: K constants of the keypoints.

    Returns:
        The poses and people of each pair.
    """
    alike = oks_matrix(poses.keypoints_xy, people_xy, labelled, areas, sigmas)
    free, found, who = np.ones(len(people_xy), np.bool_), [], []
    for pose, row in enumerate(alike):
        if not free.any():
            break
        person = int(np.where(free, row, -1.0).argmax())
        if row[person] >= SAME_PERSON_OKS:
            free[person] = False
            found.append(pose)
            who.append(person)
    return np.array(found, np.intp), np.array(who, np.intp)


def root_of(keypoints: KeypointSpec) -> tuple[int, ...]:
    """Return the keypoints whose middle is the root.

    Raises:
        ConfigError: the set has neither a pelvis nor hips.
    """
    for names in ROOT_NAMES:
        if set(names) <= set(keypoints.names):
            return tuple(keypoints.names.index(name) for name in names)
    got = ", ".join(keypoints.names) or "none"
    expected = "a keypoint pelvis, or both left_hip and right_hip, for a person's root"
    raise ConfigError("data.keypoints", expected=expected, got=got, do="name a set that has them")
