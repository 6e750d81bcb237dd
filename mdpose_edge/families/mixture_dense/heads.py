"""The head tensors of mixture dense regression, and the constants that loss and decoder share.

All are raw and of one stride; lengths are in cells of it. A component has a tensor of its own, because components
specialise, so that their ranges differ and one INT8 scale for all would lose the smaller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mdpose_edge import __version__
from mdpose_edge.errors import SpecError
from mdpose_edge.families.base import read_constants
from mdpose_edge.spec import COCO_KEYPOINTS, DecodeSpec, HeadSpec, InputSpec, KeypointSpec, ModelSpec, Provenance

STRIDE = 4
"""Input pixels per cell, of every head tensor."""
MOST_COMPONENTS = 5
"""M: the paper tries 1 to 5, and finds no gain beyond 3."""
HEAT_THRESHOLD = 0.1
"""A keypoint's peak at or below this score refines nothing (the authors' code)."""
HEAT_REACH = 0.3
"""How far a peak may be from the regressed keypoint, as a part of the longer side of the person's box (ditto)."""
HEAT_PEAKS = 100
"""Of one keypoint's map, so many of the best peaks are looked at (ditto)."""
PEOPLE = ("person",)
"""The classes of a model of poses."""
NO_SUPPRESSION = DecodeSpec(nms_threshold=1.0)
"""A centre map has one peak for a person, so that nothing is left to suppress; a lower threshold runs NMS."""


@dataclass(frozen=True)
class Constants:
    """`ModelSpec.constants` of this family."""

    components: int
    """M: alternatives at each centre."""
    sigma_floor: float
    """Cells: a component's spread s = ELU(raw) + 1 + this. The paper's 1 keeps a component that is hardly ever chosen
    from a spread below 1, at which its gradients run wild. The spread of keypoint k is s times its OKS constant."""
    heatmaps: bool
    """Whether there are heat maps that refine the keypoints."""

    def __post_init__(self) -> None:
        if not 1 <= self.components <= MOST_COMPONENTS:
            expected = f"a whole number in 1..{MOST_COMPONENTS}"
            raise SpecError("constants.components", expected=expected, got=str(self.components), do="export again")
        if not 0 <= self.sigma_floor <= 100:
            expected = "a number in [0, 100]"
            raise SpecError("constants.sigma_floor", expected=expected, got=str(self.sigma_floor), do="export again")


def constants_of(spec: ModelSpec) -> Constants:
    """Read the family's constants from a spec.

    Raises:
        SpecError: a key is missing, unknown, or of the wrong kind, or a value out of range.
    """
    return read_constants(spec, Constants)


def mixture_dense_spec(
    input_spec: InputSpec,
    constants: Constants,
    keypoints: KeypointSpec = COCO_KEYPOINTS,
    network: Mapping[str, Any] | None = None,
    classes: tuple[str, ...] = PEOPLE,
) -> ModelSpec:
    """Return the spec of a model of this family.

    Args:
        input_spec: what the graph takes.
        constants: of the family.
        keypoints: of a pose; none makes it a model of boxes.
        network: the network's options, where one is to be trained.
        classes: what the boxes are of.
    """
    return ModelSpec(
        family="mixture_dense",
        network=network or {},
        input=input_spec,
        heads=head_specs(constants, len(keypoints.names), len(classes)),
        constants=asdict(constants),
        keypoints=keypoints,
        classes=classes,
        decode=NO_SUPPRESSION,
        provenance=Provenance(toolkit_version=__version__),
    )


def heads_of(spec: ModelSpec) -> tuple[HeadSpec, ...]:
    """Return the head tensors that a spec of this family has to have, by its constants, keypoints and classes."""
    return head_specs(constants_of(spec), len(spec.keypoints.names), len(spec.classes))


def head_specs(constants: Constants, num_keypoints: int, num_classes: int = 1) -> tuple[HeadSpec, ...]:
    """Return the head tensors in graph order.

    `centre`: the logit that somebody's box is centred here; `alpha`: the logits of the components' weights; `offset`:
    from the cell's centre to the box's; `size`: width and height of the box; of each component `mu_m`, the keypoints
    from the cell's centre as x0, y0, x1, y1, ..., and `sigma_m`, its raw spread in x and y; with heat maps `heat`, the
    logit of each keypoint, and `heat_offset`, from the cell's centre to a keypoint.

    Without keypoints: `centre` has a map for each class, `mu_m` is width and height of the box, and there is no `size`.
    """
    channels = {"centre": num_classes, "alpha": constants.components, "offset": 2}
    if num_keypoints:
        channels["size"] = 2
    for component in components_of(constants):
        channels |= {f"mu_{component}": 2 * num_keypoints or 2, f"sigma_{component}": 2}
    if constants.heatmaps:
        channels |= {"heat": num_keypoints, "heat_offset": 2}
    return tuple(HeadSpec(name, count, STRIDE) for name, count in channels.items())


def components_of(constants: Constants) -> range:
    """Return the numbers of the components, as the names of their head tensors have them."""
    return range(1, constants.components + 1)
