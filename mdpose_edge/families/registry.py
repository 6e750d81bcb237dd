"""Which model families there are, and where each one's parts are.

To add a family: a folder beside these with the modules that `base.py` describes, and its name here. Nothing else in the
package knows which family runs.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from mdpose_edge.common.side_files import SideFiles
from mdpose_edge.errors import ConfigError, SpecError
from mdpose_edge.families.base import BoxTraining, Decoder, Training
from mdpose_edge.families.measure import Distance, Measure
from mdpose_edge.families.mixture import Law
from mdpose_edge.spec import DecodeSpec, InputSpec, KeypointSpec, ModelSpec

FAMILIES = {
    "mdpose": "mdpose_edge.families.mdpose",
    "mixture_dense": "mdpose_edge.families.mixture_dense",
    "adaptive": "mdpose_edge.families.adaptive",
    "das": "mdpose_edge.families.das",
    "recurrent": "mdpose_edge.families.recurrent",
}
"""By `ModelSpec.family`: the package of each family."""


def family_module(family: str, part: str) -> ModuleType:
    """Import a part of a family, such as "decode"; torch comes with "training" alone.

    Raises:
        SpecError: this version has no such family.
    """
    return import_module(f"{_package(family)}.{part}")


def make_decoder(spec: ModelSpec, options: DecodeSpec | None = None, side: SideFiles | None = None) -> Decoder:
    """Return the decoder of an artifact.

    Args:
        spec: the artifact's spec.
        options: thresholds and bounds, instead of the spec's own.
        side: the artifact's side files; read by the families whose decode.py has SIDE_FILES.

    Raises:
        BundleError: a side file that the decoder needs is missing, or does not fit the spec.
        SpecError: this version has no decoder for the family, the spec lacks an output that the family needs, or the
            family does not merge poses.
    """
    module = family_module(spec.family, "decode")
    options = spec.decode if options is None else options
    if options.nms == "merge" and not getattr(module, "MERGES", False):
        raise SpecError("decode.nms", expected=f"box or oks for {spec.family}", got="merge", do="change it")
    reads_side = hasattr(module, "SIDE_FILES")
    decoder: Decoder = module.make_decoder(spec, options, side) if reads_side else module.make_decoder(spec, options)
    return decoder


def evaluation_options(family: str, *, boxes: bool = False) -> DecodeSpec:
    """Return the thresholds and bounds by which the family's accuracy is measured.

    Args:
        family: its name.
        boxes: of a model without keypoints, for which a family's decode.py may have BOX_EVALUATION.

    Raises:
        SpecError: this version has no such family.
    """
    module = family_module(family, "decode")
    options: DecodeSpec = (boxes and getattr(module, "BOX_EVALUATION", None)) or module.EVALUATION
    return options


def evaluation_of(spec: ModelSpec) -> DecodeSpec:
    """Return those of an artifact: its family's, and merging where the artifact merges, since its scores are sums.

    Raises:
        SpecError: this version has no such family.
    """
    return merging_as(spec, evaluation_options(spec.family, boxes=not spec.keypoints.names))


def merging_as(spec: ModelSpec, options: DecodeSpec) -> DecodeSpec:
    """Return options that merge poses as an artifact does, if it does."""
    if spec.decode.nms == "merge":
        return replace(options, nms="merge", nms_threshold=spec.decode.nms_threshold)
    return options


def sigma_law(family: str) -> Law:
    """Return what a family's coordinates are distributed by around its keypoints; Gaussians where it does not say.

    Raises:
        SpecError: this version has no such family.
    """
    law: Law = getattr(family_module(family, "decode"), "LAW", "gaussian")
    return law


def make_measures(candidate: ModelSpec, reference: ModelSpec | None) -> tuple[Measure, ...]:
    """Return the measures of the candidate's own family for a check; none where the family has no measures.py.

    Args:
        candidate: its spec.
        reference: its spec, or None where only its results are known.

    Raises:
        SpecError: this version has no such family.
    """
    if not _has_part(candidate.family, "measures"):
        return ()
    measures: tuple[Measure, ...] = family_module(candidate.family, "measures").measures(candidate, reference)
    return measures


def make_distance(spec: ModelSpec) -> Distance | None:
    """Return the family's own distance between two artifacts, or None where its measures.py is absent or has none.

    Raises:
        SpecError: this version has no such family.
    """
    if not _has_part(spec.family, "measures"):
        return None
    make = getattr(family_module(spec.family, "measures"), "distance", None)
    distance: Distance | None = None if make is None else make(spec)
    return distance


def training_of(family: str) -> Training:
    """Return what trains and exports models of a family; it imports torch.

    Raises:
        SpecError: this version has no such family.
    """
    training: Training = family_module(family, "training").FAMILY
    return training


def training_spec(
    family: str, config: Any, input_spec: InputSpec, keypoints: KeypointSpec, classes: tuple[str, ...]
) -> ModelSpec:
    """Return the spec of a model that is about to be trained; it imports torch.

    Args:
        family: its name.
        config: the table `network`.
        input_spec: what the graph takes.
        keypoints: of a pose; none asks for boxes.
        classes: of boxes.

    Raises:
        ConfigError: the options do not fit, or the family has no models of boxes.
    """
    training = training_of(family)
    if keypoints.names:
        return training.make_spec(config, input_spec, keypoints)
    if not isinstance(training, BoxTraining):
        able = [name for name in FAMILIES if hasattr(family_module(name, "decode"), "BOX_EVALUATION")]
        expected, do = f"one that finds boxes: {', '.join(able)}", "name one, or give data with keypoints"
        raise ConfigError("family", expected=expected, got=family, do=do)
    return training.make_box_spec(config, input_spec, classes)


def _package(family: str) -> str:
    if family not in FAMILIES:
        do = "update mdpose-edge to a version that knows this family"
        raise SpecError("family", expected=f"one of {', '.join(FAMILIES)}", got=family, do=do)
    return FAMILIES[family]


def _has_part(family: str, part: str) -> bool:
    """Return whether a family's folder has a module; a module that is there and fails to import is an error."""
    return find_spec(f"{_package(family)}.{part}") is not None
