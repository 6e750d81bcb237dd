"""What a decoder of a mixture passes over: the other components' opinions of each pose that it found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.families.base import Decoder, Heads
from mdpose_edge.geometry import FrameGeometry
from mdpose_edge.poses import Poses


@dataclass(frozen=True)
class Alternatives:
    """What M components say of the N people or boxes that a decoder found, in the decoder's order.

    The poses that each component holds likely:

        said = estimator.alternatives(frame)
        for component, poses in enumerate(said.poses):
            print(component, said.weights[:, component], poses.take(said.likely(0.2)[:, component]))
    """

    weights: NDArray[np.float32]
    """(N, M), which sum to 1 over M; the decoder lets the largest speak."""
    poses: tuple[Poses, ...]
    """Of each component: N poses with the scores of the people; refined by no heat map."""
    sigma_wh: NDArray[np.float32] | None = None
    """(N, M, 2) px, of boxes: standard deviations of width and height; None of poses, which have `sigma_xy`."""

    @property
    def spoke(self) -> NDArray[np.intp]:
        """(N,): whose word the decoder took."""
        return np.asarray(self.weights.argmax(axis=1))

    def likely(self, least_weight: float = 0.2) -> NDArray[np.bool_]:
        """Return (N, M): which components have more than a weight, such as a second view of a person."""
        return np.asarray(self.weights > least_weight)


@runtime_checkable
class AlternativesDecoder(Decoder, Protocol):
    """A decoder whose model says several things of each pose."""

    def alternatives(self, heads: Heads, geometry: FrameGeometry, index: int = 0) -> Alternatives:
        """Return what every component says of what the decoder finds in one image of a batch; see `Decoder`."""
