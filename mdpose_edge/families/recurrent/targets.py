"""What the recurrent family is to learn of an image: the keypoints of its people, in cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.families.base import People
from mdpose_edge.families.recurrent.heads import STRIDE


def encode_people(people: People) -> dict[str, NDArray[Any]]:
    """Return the targets of one image: of the P people who show a keypoint.

    `keypoints` (P, K, 2) cells, 0 where not labelled; `labelled` (P, K); `person_mask` (P,), false where a row is
    padding.
    """
    shown = people.labelled.any(axis=1)
    labelled = people.labelled[shown]
    points = np.where(labelled[..., None], people.keypoints_xy[shown] / np.float32(STRIDE), 0.0).astype(np.float32)
    return {"keypoints": points, "labelled": labelled, "person_mask": np.ones(len(points), np.bool_)}
