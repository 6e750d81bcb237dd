"""What a model family gives, as protocols: nothing here is to inherit from.

The numpy half (`decode.py`, `measures.py`) is what a device reads; the torch half (`training.py` and what it imports)
trains and exports. registry.py finds both by the family's name. CONTRIBUTING.md says how to add one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.strict import read_dataclass
from mdpose_edge.errors import EngineError, SpecError
from mdpose_edge.families.mixture import PoseMixture
from mdpose_edge.geometry import FrameGeometry
from mdpose_edge.poses import Poses
from mdpose_edge.spec import HeadSpec, ModelSpec

T = TypeVar("T")

Heads = Mapping[str, NDArray[np.float32]]
"""Head tensors by output name, (batch, channels, rows, columns)."""


class Decoder(Protocol):
    """Reads the head tensors of one model family; it holds no state between calls, so that threads may share it."""

    def __call__(self, heads: Heads, geometry: FrameGeometry, index: int = 0) -> Poses:
        """Decode one image of a batch.

        Args:
            heads: head tensors, as an engine gave them. Not modified.
            geometry: where the frame lies in the network input.
            index: which image of the batch.

        Returns:
            The poses in pixels of the frame, best first; keypoints outside the frame are kept.

        Raises:
            EngineError: a head tensor is missing, misshapen, or not finite.
        """


@runtime_checkable
class MixtureDecoder(Decoder, Protocol):
    """A decoder of a family with a density: each image's poses are components of a mixture."""

    def mixture(self, heads: Heads, geometry: FrameGeometry, index: int = 0) -> PoseMixture:
        """Return all components of one image of a batch, for measures that look below the threshold.

        Raises:
            EngineError: as for decoding.
        """


def read_constants(spec: ModelSpec, cls: type[T]) -> T:
    """Read a family's constants from a spec into the family's own dataclass, strictly.

    Raises:
        SpecError: a key is missing, unknown, or of the wrong kind.
    """
    return read_dataclass(cls, spec.constants, where="constants", error=SpecError, defaults=False)


def check_heads(spec: ModelSpec, wanted: tuple[HeadSpec, ...]) -> None:
    """Refuse a spec whose head tensors are not those that its family reads.

    Raises:
        SpecError: one is missing, or has other channels or another stride.
    """
    given = {head.name: head for head in spec.heads}
    for head in wanted:
        if given.get(head.name) != head:
            got = str(given.get(head.name) or ", ".join(given))
            raise SpecError("heads", expected=f"the output {head.name}: {head}", got=got, do="export again")


def check_finite(heads: Heads) -> None:
    """Refuse head tensors that hold a value which is not finite, whether a decoder would read it or not.

    Raises:
        EngineError: there is one.
    """
    for name, tensor in heads.items():
        if not np.isfinite(tensor).all():
            value = tensor[~np.isfinite(tensor)][0]
            do = "export it again with --precision fp32"
            raise EngineError(expected="finite head tensors", got=f"{value} in {name}", do=do)


def head_of(heads: Heads, spec: ModelSpec, head: HeadSpec, index: int) -> NDArray[np.float32]:
    """Return one image's head tensor as (channels, cells), its form checked.

    Raises:
        EngineError: it is missing or misshapen.
    """
    tensor, shape = heads.get(head.name), spec.head_shape(head)
    if tensor is None:
        got = ", ".join(heads) or "none"
        raise EngineError(head.name, expected="a head tensor of this name", got=got, do="export again")
    if tensor.dtype != np.float32 or tensor.shape[1:] != shape:
        raise EngineError(
            head.name,
            expected=f"float32 (N, {shape[0]}, {shape[1]}, {shape[2]})",
            got=f"{tensor.dtype} {tensor.shape}",
            do="run the graph that belongs to this spec",
        )
    cells: NDArray[np.float32] = tensor[index].reshape(shape[0], -1)
    return cells
