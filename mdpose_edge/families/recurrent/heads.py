"""The head tensors of the recurrent family, and the constants that loss and decoder share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mdpose_edge import __version__
from mdpose_edge.errors import SpecError
from mdpose_edge.families.base import read_constants
from mdpose_edge.families.heat_sigma import SigmaTable
from mdpose_edge.spec import COCO_KEYPOINTS, DecodeSpec, HeadSpec, InputSpec, KeypointSpec, ModelSpec, Provenance

STRIDE = 4
"""Input pixels per cell of a heat map."""
MOST_PEOPLE = 16
"""T: each person is two calls of the decoder more in the graph, whether there or not."""
STOP_THRESHOLD = 0.2689414213699951
"""Omega: sigmoid(-1), at and above which a step is a person (the paper)."""
HEAT_THRESHOLD = 0.015
"""Tau: a keypoint whose map reaches less is not counted as seen (the paper)."""
DUPLICATES = DecodeSpec(score_threshold=0.1, nms="oks", nms_threshold=0.9)
"""The decoder knows whom it has given already; a person given twice all the same is dropped."""


@dataclass(frozen=True)
class Constants:
    """`ModelSpec.constants` of this family."""

    people: int
    """T: steps in the graph, so many people at most."""
    stop_threshold: float
    """Steps are read up to the first whose probability is below this."""
    heat_threshold: float
    """A keypoint whose map reaches less says nothing of its person's score and size."""
    sigma: SigmaTable
    """By which standard deviations follow from the size of a person and what a keypoint's map reaches."""

    def __post_init__(self) -> None:
        if not 1 <= self.people <= MOST_PEOPLE:
            expected = f"a whole number in 1..{MOST_PEOPLE}"
            raise SpecError("constants.people", expected=expected, got=str(self.people), do="export again")
        for name in ("stop_threshold", "heat_threshold"):
            if not 0 < getattr(self, name) < 1:
                got = str(getattr(self, name))
                raise SpecError(f"constants.{name}", expected="a number in (0, 1)", got=got, do="export again")


def constants_of(spec: ModelSpec) -> Constants:
    """Read the family's constants from a spec.

    Raises:
        SpecError: a key is missing, unknown, or of the wrong kind, or a value out of range.
    """
    return read_constants(spec, Constants)


def recurrent_spec(
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
        family="recurrent",
        network=network or {},
        input=input_spec,
        heads=head_specs(constants, len(keypoints.names)),
        constants=asdict(constants),
        keypoints=keypoints,
        decode=DUPLICATES,
        provenance=Provenance(toolkit_version=__version__),
    )


def head_specs(constants: Constants, num_keypoints: int) -> tuple[HeadSpec, ...]:
    """Return the head tensors in graph order.

    `heat_1` ... `heat_T`: of each step, the heat map of each keypoint of its person, linear: about 1 where the keypoint
    is; `stop`: the logits that the steps are people.
    """
    heats = [HeadSpec(name, num_keypoints, STRIDE) for name in heat_names(constants.people)]
    return (*heats, HeadSpec("stop", constants.people, None))


def heat_names(people: int) -> list[str]:
    """Return the names of the steps' heat maps, in their order."""
    return [f"heat_{step}" for step in range(1, people + 1)]
