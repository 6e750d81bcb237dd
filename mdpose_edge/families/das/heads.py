"""The head tensors of distribution-aware 3-D pose, and the constants that loss and decoder share.

All are raw, and each of a kind of its own: a score, a depth and an offset differ in range by orders of magnitude, and
one INT8 scale for all would lose the small ones. Lengths are in cells of the level, depths in units of `z_norm`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mdpose_edge import __version__
from mdpose_edge.errors import SpecError
from mdpose_edge.families.base import read_constants
from mdpose_edge.spec import COCO_KEYPOINTS, DecodeSpec, HeadSpec, InputSpec, KeypointSpec, ModelSpec, Provenance

KINDS = ("o", "c", "depth", "uv", "dz", "sigma")
"""Of each level, in graph order: see `head_specs`."""
REFERENCE_FOCAL = 1000.0
"""px: the camera in whose eyes `depth` is in metres."""
Z_NORM = 0.5
"""Metres: the unit of a joint's depth from its root (the authors' code)."""
LARGEST_DEPTH = 20.0
"""Of `depth` in its logarithmic form, either way: beyond it nothing is a distance."""
LEAST_SCALE = 1e-3
"""Of a joint's Laplace scale, in units of the head tensors: in float16 a sigmoid reaches 0."""
FINEST_REACH = 80.0
"""px, at inputs whose longer side is REACH_SIDE: how far from the root a joint of a person on the finest level is, at
most; twice as far on the next, and so on."""
REACH_SIDE = 640
SCORE_THRESHOLD = 0.2
"""Scores are products of two, and so lower than other families' (the authors: 0.05 in the paper, 0.07 in code)."""
MOST_UPDATES = 3
"""The paper tries up to three."""
DepthForm = Literal["log", "linear"]


@dataclass(frozen=True)
class Level:
    """One level of the feature pyramid."""

    name: str
    stride: int
    """Input pixels per cell."""
    reach: float | None
    """People belong here whose farthest joint is so many input pixels from the root, and farther than the reach of the
    level before; None: any farther one."""


@dataclass(frozen=True)
class Constants:
    """`ModelSpec.constants` of this family."""

    levels: tuple[Level, ...]
    """Finest first."""
    root: tuple[int, ...]
    """The keypoints whose middle is a person's root: the pelvis, or both hips."""
    depth: DepthForm = "log"
    """`depth` is that of the root over the focal length in input px, times `reference_focal`; or its logarithm, whose
    range is small and whose errors are relative."""
    reference_focal: float = REFERENCE_FOCAL
    z_norm: float = Z_NORM
    updates: int = 1
    """How many times a joint's offset is refined by what the cell there says."""
    sigma_factors: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Mean absolute error over mean predicted scale, of u, v and depth: measured, since the likelihood that the scales
    are learned with leaves them uncalibrated."""

    def __post_init__(self) -> None:
        if not self.levels or not self.root:
            raise SpecError("constants", expected="levels and a root", got=str(self), do="export again")
        if not 0 <= self.updates <= MOST_UPDATES:
            expected = f"a whole number in 0..{MOST_UPDATES}"
            raise SpecError("constants.updates", expected=expected, got=str(self.updates), do="export again")
        positive = (self.reference_focal, self.z_norm, *self.sigma_factors)
        if not all(math.isfinite(value) and value > 0 for value in positive):
            expected, got = "a focal length, z_norm and sigma_factors above 0", ", ".join(map(str, positive))
            raise SpecError("constants", expected=expected, got=got, do="export again")

    def to_dict(self) -> dict[str, Any]:
        """Return them as JSON gives them back."""
        levels = [asdict(level) for level in self.levels]
        return {**asdict(self), "levels": levels, "root": list(self.root), "sigma_factors": list(self.sigma_factors)}


def constants_of(spec: ModelSpec) -> Constants:
    """Read the family's constants from a spec.

    Raises:
        SpecError: a key is missing, unknown, or of the wrong kind, or a value out of range.
    """
    constants = read_constants(spec, Constants)
    if not all(0 <= index < len(spec.keypoints.names) for index in constants.root):
        expected = f"indices below {len(spec.keypoints.names)}"
        raise SpecError("constants.root", expected=expected, got=str(constants.root), do="export again")
    return constants


def pyramid(input_spec: InputSpec, names: Sequence[str] = ("p3", "p4", "p5", "p6")) -> tuple[Level, ...]:
    """Return levels by name: strides from 8, doubling; the reach of each grows with the input."""
    scale = max(input_spec.height, input_spec.width) / REACH_SIDE
    reaches = [FINEST_REACH * 2**index * scale for index in range(len(names) - 1)]
    return tuple(Level(name, 2 ** int(name[1:]), reach) for name, reach in zip(names, [*reaches, None], strict=True))


def das_spec(
    input_spec: InputSpec,
    constants: Constants,
    keypoints: KeypointSpec = COCO_KEYPOINTS,
    network: Mapping[str, Any] | None = None,
) -> ModelSpec:
    """Return the spec of a model of this family.

    Args:
        input_spec: what the graph takes.
        constants: of the family.
        keypoints: of a pose.
        network: the network's options, where one is to be trained.
    """
    return ModelSpec(
        family="das",
        network=network or {},
        input=input_spec,
        heads=head_specs(constants.levels, len(keypoints.names)),
        constants=constants.to_dict(),
        keypoints=keypoints,
        decode=DecodeSpec(score_threshold=SCORE_THRESHOLD),
        provenance=Provenance(toolkit_version=__version__),
        dimensions=3,
    )


def head_specs(levels: Sequence[Level], num_keypoints: int) -> tuple[HeadSpec, ...]:
    """Return the head tensors in graph order, level by level, finest first.

    `o`: the logit that somebody's root is in or near the cell; `c`: the logit of how near (centerness); `depth` of the
    root: see `Constants.depth`; `uv`: where each joint is from the cell's centre, as u0, v0, u1, v1, ...; `dz`: its
    depth less the root's; `sigma`: the logits of its Laplace scales, as u0, v0, z0, u1, ...
    """
    channels = {"o": 1, "c": 1, "depth": 1, "uv": 2 * num_keypoints, "dz": num_keypoints, "sigma": 3 * num_keypoints}
    return tuple(HeadSpec(f"{kind}_{level.name}", channels[kind], level.stride) for level in levels for kind in KINDS)
