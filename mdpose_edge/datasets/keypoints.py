"""Keypoint sets: those of the public datasets, and custom ones from a small YAML file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mdpose_edge.common.optional import require
from mdpose_edge.common.strict import read_dataclass
from mdpose_edge.common.yaml_files import load_yaml
from mdpose_edge.errors import ConfigError
from mdpose_edge.spec import COCO_KEYPOINTS, KeypointSpec

CROWDPOSE_KEYPOINTS = KeypointSpec(
    names=(
        "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip",
        "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "head", "neck",
    ),
    flip_pairs=((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11)),
    skeleton=(
        (12, 13), (13, 0), (13, 1), (0, 1), (0, 6), (1, 7), (6, 7), (0, 2), (2, 4), (1, 3), (3, 5), (6, 8), (8, 10),
        (7, 9), (9, 11),
    ),
    sigmas=(0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089, 0.079, 0.079),
)  # fmt: skip
"""CrowdPose's 14 keypoints in the order of its files, sigmas as in its evaluation code (Li et al., CVPR 2019)."""

OCHUMAN_KEYPOINTS = KeypointSpec(
    names=(
        "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist", "right_hip",
        "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "head", "neck", "right_ear", "left_ear",
        "nose", "right_eye", "left_eye",
    ),
    flip_pairs=((3, 0), (4, 1), (5, 2), (9, 6), (10, 7), (11, 8), (15, 14), (18, 17)),
    skeleton=(
        (12, 16), (16, 13), (13, 3), (13, 0), (3, 4), (4, 5), (0, 1), (1, 2), (3, 9), (0, 6), (9, 6), (9, 10), (10, 11),
        (6, 7), (7, 8), (16, 17), (16, 18), (17, 14), (18, 15),
    ),
    sigmas=(
        0.079, 0.072, 0.062, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089, 0.107, 0.087, 0.089, 0.079, 0.079, 0.035, 0.035,
        0.026, 0.025, 0.025,
    ),
)  # fmt: skip
"""OCHuman's 19 keypoints as annotated (Zhang et al., CVPR 2019). It defines no OKS constants for them: these are COCO's
and, for head and neck, CrowdPose's."""

MUPOTS_KEYPOINTS = KeypointSpec(
    names=(
        "head_top", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow",
        "left_wrist", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "pelvis",
        "spine", "head",
    ),
    flip_pairs=((5, 2), (6, 3), (7, 4), (11, 8), (12, 9), (13, 10)),
    skeleton=(
        (0, 16), (16, 1), (1, 15), (15, 14), (14, 8), (14, 11), (8, 9), (9, 10), (11, 12), (12, 13), (1, 2), (2, 3),
        (3, 4), (1, 5), (5, 6), (6, 7),
    ),
    sigmas=(
        0.079, 0.079, 0.079, 0.072, 0.062, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089, 0.107, 0.087, 0.089, 0.107, 0.107,
        0.079,
    ),
)  # fmt: skip
"""MuPoTS-3D's 17 joints (Mehta et al., 3DV 2018). It defines no OKS constants: these are COCO's and CrowdPose's."""

PANOPTIC_KEYPOINTS = KeypointSpec(
    names=(
        "neck", "nose", "pelvis", "left_shoulder", "left_elbow", "left_wrist", "left_hip", "left_knee", "left_ankle",
        "right_shoulder", "right_elbow", "right_wrist", "right_hip", "right_knee", "right_ankle", "left_eye",
        "left_ear", "right_eye", "right_ear",
    ),
    flip_pairs=((3, 9), (4, 10), (5, 11), (6, 12), (7, 13), (8, 14), (15, 17), (16, 18)),
    skeleton=(
        (0, 1), (0, 2), (0, 3), (3, 4), (4, 5), (2, 6), (6, 7), (7, 8), (0, 9), (9, 10), (10, 11), (2, 12), (12, 13),
        (13, 14), (1, 15), (15, 16), (1, 17), (17, 18),
    ),
    sigmas=(
        0.079, 0.026, 0.107, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089, 0.025,
        0.035, 0.025, 0.035,
    ),
)  # fmt: skip
"""CMU Panoptic's 19 joints, COCO's 17 among them (Joo et al., TPAMI 2019). OKS constants as above."""

KEYPOINT_SETS = {
    "coco17": COCO_KEYPOINTS,
    "crowdpose14": CROWDPOSE_KEYPOINTS,
    "ochuman19": OCHUMAN_KEYPOINTS,
    "mupots17": MUPOTS_KEYPOINTS,
    "panoptic19": PANOPTIC_KEYPOINTS,
}
"""Sets with a name of their own."""


@dataclass(frozen=True)
class _KeypointFile:
    """What a keypoint file holds: keypoints are referred to by name."""

    names: tuple[str, ...]
    flips: tuple[tuple[str, str], ...]
    skeleton: tuple[tuple[str, str], ...]
    sigmas: tuple[float, ...]


def keypoint_set(name: str | Path) -> KeypointSpec:
    """Return a keypoint set.

    Args:
        name: one of KEYPOINT_SETS, or a YAML file with the keys names, flips (pairs of names), skeleton (pairs of
            names) and sigmas (one per name).

    Raises:
        MissingPackageError: a file is named and PyYAML is not installed.
        ConfigError: no such set or file, an unknown or missing key, keys that contradict one another, or a left_ and a
            right_ of one name that are no pair of flips.
    """
    known = KEYPOINT_SETS.get(str(name))
    if known is not None:
        return known
    path = Path(name)
    if not path.is_file():
        expected = f"a keypoint file, or one of {', '.join(KEYPOINT_SETS)}"
        got = "a folder" if path.is_dir() else "no such file"
        raise ConfigError(str(name), expected=expected, got=got, do="correct the name")
    yaml = require("yaml", extra="eval", feature="keypoint files")
    try:
        data = load_yaml(yaml, path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), expected="YAML", got=" ".join(str(error).split()), do="correct it") from error
    return _spec_of(read_dataclass(_KeypointFile, data, where=str(path), error=ConfigError, defaults=False), str(path))


def other_side(name: str) -> str | None:
    """Return the name of a keypoint's counterpart in a mirror, or None for one that is on neither side by its name."""
    for side, other in (("left_", "right_"), ("right_", "left_")):
        if name.startswith(side):
            return other + name.removeprefix(side)
    return None


def without_partner(keypoints: KeypointSpec) -> tuple[str, ...]:
    """Name the keypoints of the left or right that trade places with nobody: a mirrored picture mislabels them."""
    paired = {index for pair in keypoints.flip_pairs for index in pair}
    return tuple(n for index, n in enumerate(keypoints.names) if other_side(n) is not None and index not in paired)


def _spec_of(file: _KeypointFile, where: str) -> KeypointSpec:
    if not file.names or len(set(file.names)) != len(file.names):
        got = ", ".join(file.names) or "none"
        raise ConfigError(where, expected="names that differ", got=got, do="name each keypoint once")
    if len(file.sigmas) != len(file.names) or not all(math.isfinite(s) and s > 0 for s in file.sigmas):
        expected, got = f"{len(file.names)} sigmas above 0", ", ".join(map(str, file.sigmas)) or "none"
        raise ConfigError(where, expected=expected, got=got, do="give one for each name, in the same order")
    flips = _indices("flips", file.flips, file.names, where)
    flat = [index for pair in flips for index in pair]
    if len(set(flat)) != len(flat):
        twice = next(file.names[index] for index in flat if flat.count(index) > 1)
        do = "let each keypoint trade places with one other"
        raise ConfigError(where, expected="each keypoint in one flip", got=f"{twice} in two places", do=do)
    pairs = {frozenset(pair) for pair in file.flips}
    for name, other in ((name, other_side(name)) for name in file.names):
        if other in file.names and frozenset((name, other)) not in pairs:
            do = "add the pair: a picture is trained on in the mirror too"
            raise ConfigError(where, expected=f"[{name}, {other}] under flips", got="no such pair", do=do)
    return KeypointSpec(file.names, flips, _indices("skeleton", file.skeleton, file.names, where), file.sigmas)


def _indices(
    key: str, pairs: Sequence[tuple[str, str]], names: tuple[str, ...], where: str
) -> tuple[tuple[int, int], ...]:
    for name in (name for pair in pairs for name in pair):
        if name not in names:
            raise ConfigError(where, expected=f"names of keypoints under {key}", got=name, do="correct the name")
    return tuple((names.index(first), names.index(second)) for first, second in pairs)
