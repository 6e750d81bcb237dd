"""MDPose's head tensors: their names, channels and levels, and the constants that loss and decoder share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mdpose_edge import __version__
from mdpose_edge.families.base import read_constants
from mdpose_edge.spec import COCO_KEYPOINTS, DecodeSpec, HeadSpec, InputSpec, KeypointSpec, ModelSpec, Provenance

KINDS = ("o", "mu", "gamma")
"""Of each level, in graph order: the score's logit, the offsets of the means, and the scales, all raw."""
MERGING = DecodeSpec(score_threshold=0.4, nms="merge", nms_threshold=0.45)
"""Of models whose scores are expected numbers of people. Of the overlaps 0.4, 0.45 and 0.5 this has the best AP on
250 photos (docs/model-card-people.md), by 0.002; on COCO's 79 it is between the two others."""
GAMMA_FLOOR = 0.05
"""Smallest Laplace scale along an axis, as a part of the pose's own extent along it (the authors' code; the paper is
silent)."""


@dataclass(frozen=True)
class Level:
    """One level of the feature pyramid."""

    name: str
    stride: int
    """Input pixels per cell."""
    scale: float
    """Factor on a raw offset, in coordinate units (`Constants.coordinate_extent` spans the input)."""


@dataclass(frozen=True)
class Constants:
    """`ModelSpec.constants` of this family."""

    levels: tuple[Level, ...]
    """Finest first."""
    coordinate_extent: float = 5.0
    """The input spans [0, coordinate_extent) in both axes, in the units of the head tensors."""

    def to_dict(self) -> dict[str, Any]:
        """Return them as JSON gives them back."""
        return {"levels": [asdict(level) for level in self.levels], "coordinate_extent": self.coordinate_extent}


def constants_of(spec: ModelSpec) -> Constants:
    """Read the family's constants from a spec.

    Raises:
        SpecError: a key is missing, unknown, or of the wrong kind.
    """
    return read_constants(spec, Constants)


def pyramid(names: Sequence[str] = ("p3", "p4", "p5")) -> tuple[Level, ...]:
    """Return levels by name: stride 8 and scale 2^-4 at p3, both doubling per level (Seo et al., UAI 2023)."""
    return tuple(Level(name, 2 ** int(name[1:]), 2.0 ** (int(name[1:]) - 7)) for name in names)


def mdpose_spec(
    input_spec: InputSpec,
    keypoints: KeypointSpec = COCO_KEYPOINTS,
    levels: Sequence[str] = ("p3", "p4", "p5"),
    network: Mapping[str, Any] | None = None,
) -> ModelSpec:
    """Return the spec of a model of this family.

    Args:
        input_spec: what the graph takes.
        keypoints: of a pose.
        levels: names of the pyramid's levels, finest first.
        network: the network's options, where one is to be trained.
    """
    scaled = pyramid(levels)
    return ModelSpec(
        family="mdpose",
        network=network or {},
        input=input_spec,
        heads=head_specs(scaled, len(keypoints.names)),
        constants=Constants(scaled).to_dict(),
        keypoints=keypoints,
        provenance=Provenance(toolkit_version=__version__),
    )


def head_specs(levels: Sequence[Level], num_keypoints: int) -> tuple[HeadSpec, ...]:
    """Return the head tensors in graph order: o, mu, gamma of each level, finest first."""
    channels = {"o": 1, "mu": 2 * num_keypoints, "gamma": 2 * num_keypoints}
    return tuple(HeadSpec(f"{kind}_{level.name}", channels[kind], level.stride) for level in levels for kind in KINDS)
