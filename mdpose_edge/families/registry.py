"""Which model families there are, and where each one's parts are.

To add a family: a folder beside these with the modules that `base.py` describes, and its name here. Nothing else in the
package knows which family runs.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from mdpose_edge.errors import SpecError
from mdpose_edge.families.base import Decoder, Training
from mdpose_edge.spec import DecodeSpec, ModelSpec

FAMILIES = {"mdpose": "mdpose_edge.families.mdpose"}
"""By `ModelSpec.family`: the package of each family."""


def family_module(family: str, part: str) -> ModuleType:
    """Import a part of a family, such as "decode"; torch comes with "training" alone.

    Raises:
        SpecError: this version has no such family.
    """
    if family not in FAMILIES:
        do = "update mdpose-edge to a version that knows this family"
        raise SpecError("family", expected=f"one of {', '.join(FAMILIES)}", got=family, do=do)
    return import_module(f"{FAMILIES[family]}.{part}")


def make_decoder(spec: ModelSpec, options: DecodeSpec | None = None) -> Decoder:
    """Return the decoder of an artifact.

    Args:
        spec: the artifact's spec.
        options: thresholds and bounds, instead of the spec's own.

    Raises:
        SpecError: this version has no decoder for the family, or the spec lacks an output that the family needs.
    """
    module = family_module(spec.family, "decode")
    decoder: Decoder = module.make_decoder(spec, spec.decode if options is None else options)
    return decoder


def evaluation_options(family: str) -> DecodeSpec:
    """Return the thresholds and bounds by which the family's accuracy is measured.

    Raises:
        SpecError: this version has no such family.
    """
    options: DecodeSpec = family_module(family, "decode").EVALUATION
    return options


def training_of(family: str) -> Training:
    """Return what trains and exports models of a family; it imports torch.

    Raises:
        SpecError: this version has no such family.
    """
    training: Training = family_module(family, "training").FAMILY
    return training
