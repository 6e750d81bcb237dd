"""What a source of weights says of a file: which network they are of, and how its tensors are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mdpose_edge.importers.mapping import Rule
from mdpose_edge.importers.pth import Stored
from mdpose_edge.spec import InputSpec, KeypointSpec


@dataclass(frozen=True)
class Plan:
    """How weights become a checkpoint."""

    family: str
    network: Mapping[str, Any]
    """Options of the family's network."""
    input: InputSpec
    keypoints: KeypointSpec
    rules: Sequence[Rule]
    unused: Sequence[str] = ()
    """Beginnings of names of tensors without any effect in the authors' network."""
    classes: tuple[str, ...] = ()
    """Of boxes, where there are no keypoints."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Of the family, where they are not those of a model that is trained here."""
    side: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Tensors beside the network's, by the kind that the family reads: our names to theirs."""
    notes: tuple[str, ...] = field(default=())
    """What is not as in the authors' code, or not in their file, each in a sentence."""


class Source(Protocol):
    """A code whose checkpoints are read: `SOURCE` in a module of this package."""

    title: str
    """Of the code."""
    signatures: tuple[str, ...]
    """Names of tensors of which its checkpoints have one, and no others have any."""
    takes_scorer: bool
    """Whether a scoring net comes in a file of its own."""

    def plan(self, found: Mapping[str, Stored], height: int | None, width: int | None, where: str) -> Plan:
        """Say which network a file's tensors are of.

        Args:
            found: what the file holds, the signature in it.
            height: of the input, px; None for the size that the authors publish.
            width: likewise.
            where: the file, for messages.

        Raises:
            CheckpointError: it is none that this package has.
        """


def channels_of(found: Mapping[str, Stored], name: str) -> int:
    """Return how many channels a convolution gives; 1 where it is none, which then is refused as missing."""
    shape = found[name].shape if name in found else ()
    return shape[0] if shape else 1


def input_spec(height: int | None, width: int | None, size: int, **options: Any) -> InputSpec:
    """Return an input of a size that is asked for, or of the authors' own."""
    return InputSpec(height or size, width or size, **options)
