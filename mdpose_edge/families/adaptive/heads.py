"""The head tensors of adaptive keypoints, and the constants that loss and decoder share.

All are raw and of one stride. Heat maps are linear: they are trained by squared errors against Gaussians of height 1,
so that a value is a height, not a logit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mdpose_edge import __version__
from mdpose_edge.errors import SpecError
from mdpose_edge.families.adaptive.scorer import ScorerLayout
from mdpose_edge.families.base import read_constants
from mdpose_edge.families.heat_sigma import SigmaTable, prior
from mdpose_edge.spec import COCO_KEYPOINTS, DecodeSpec, HeadSpec, InputSpec, KeypointSpec, ModelSpec, Provenance

STRIDE = 4
"""Input pixels per cell, of every head tensor."""
CENTRE_THRESHOLD = 0.01
"""A peak of the centre map at or below this is nobody (the authors' code)."""
HEAT_PEAKS = 100
"""Of one keypoint's map, so many of the best peaks are looked at; the authors look at 30, of 30 people at most."""
NEAR = 0.05
"""Two poses share a keypoint that is nearer than this part of the better pose's diagonal (DEKR)."""
PEAK, REGRESSED = 0, 1
"""Kinds of keypoints in the table of standard deviations."""
USE = DecodeSpec(score_threshold=0.1, nms_threshold=1.0, pre_nms=200)
"""Scores are products, so that they are lower than other families'. Near duplicates are suppressed by the family's own
rule; an `nms_threshold` below 1 runs NMS as well."""


@dataclass(frozen=True)
class Constants:
    """`ModelSpec.constants` of this family."""

    cell_origin: float
    """Where in its cell a map's value lies, in cells: 0.5, the middle; 0 in models of the authors' codes."""
    heat_threshold: float
    """A keypoint's peak at or below this absorbs nothing."""
    reach: float
    """How far a peak may be from the regressed keypoint that it absorbs, as a part of the input's shorter side."""
    reach_of_pose: float
    """Likewise, as a part of the diagonal of the person's box; the lesser of the two counts."""
    sigma: SigmaTable
    """Standard deviations, with a slope for peaks and one for keypoints that are regressed alone."""
    scorer: ScorerLayout | None
    """What the scoring net in the side file `scorer` reads; None where there is none."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("cell_origin", 0, 1),
            ("heat_threshold", 0, 1),
            ("reach", 0, 10),
            ("reach_of_pose", 0, 10),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                expected = f"a number in [{low}, {high}]"
                raise SpecError(f"constants.{name}", expected=expected, got=str(value), do="export again")
        if len(self.sigma.slopes) != 2:
            got = str(len(self.sigma.slopes))
            raise SpecError("constants.sigma.slopes", expected="two numbers", got=got, do="export again")


def constants_of(spec: ModelSpec) -> Constants:
    """Read the family's constants from a spec.

    Raises:
        SpecError: a key is missing, unknown, or of the wrong kind, or a value out of range or not of these keypoints.
    """
    constants, count = read_constants(spec, Constants), len(spec.keypoints.names)
    if len(constants.sigma.offsets) != count:
        got = str(len(constants.sigma.offsets))
        raise SpecError("constants.sigma.offsets", expected=f"{count} numbers", got=got, do="export again")
    if constants.scorer is not None:
        constants.scorer.check(count)
    return constants


def first_constants(keypoints: KeypointSpec = COCO_KEYPOINTS) -> Constants:
    """Return the constants of a model that nothing was fitted for, in cells whose middle is at a half."""
    return Constants(0.5, 0.1, 0.15, 0.3, prior(keypoints.sigmas, kinds=2), None)


def published_constants(keypoints: KeypointSpec = COCO_KEYPOINTS, scorer: ScorerLayout | None = None) -> Constants:
    """Return the constants of a model that the authors' codes trained: whole cells, and 75 px of 512 to any peak."""
    return Constants(0.0, 0.01, 75 / 512, 10.0, prior(keypoints.sigmas, kinds=2), scorer)


def adaptive_spec(
    input_spec: InputSpec,
    keypoints: KeypointSpec = COCO_KEYPOINTS,
    constants: Constants | None = None,
    network: Mapping[str, Any] | None = None,
) -> ModelSpec:
    """Return the spec of a model of this family.

    Args:
        input_spec: what the graph takes.
        keypoints: of a pose.
        constants: of the family, or None for `first_constants`.
        network: the network's options, where one is to be trained.
    """
    return ModelSpec(
        family="adaptive",
        network=network or {},
        input=input_spec,
        heads=head_specs(len(keypoints.names)),
        constants=asdict(constants or first_constants(keypoints)),
        keypoints=keypoints,
        decode=USE,
        provenance=Provenance(toolkit_version=__version__),
    )


def head_specs(num_keypoints: int) -> tuple[HeadSpec, ...]:
    """Return the head tensors in graph order.

    `heat`: the height of each keypoint's map, near 0 to 1; `centre`: of the map of people's centres, the means of their
    keypoints; `offset`: from the cell's centre to the keypoints of the person who is centred near, in cells, as x0, y0,
    x1, y1, ...
    """
    channels = {"heat": num_keypoints, "centre": 1, "offset": 2 * num_keypoints}
    return tuple(HeadSpec(name, count, STRIDE) for name, count in channels.items())
