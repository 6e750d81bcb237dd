"""The head tensors of one image, read at a few cells: what the decoders of poses and of boxes share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.errors import EngineError
from mdpose_edge.families.base import Heads, check_heads, head_of
from mdpose_edge.families.mixture_dense.heads import STRIDE, constants_of, heads_of
from mdpose_edge.families.peaks import Peaks, cell_centers, find_peaks
from mdpose_edge.families.scores import LARGEST_RAW, usable
from mdpose_edge.spec import HeadSpec, ModelSpec

PX = np.float32(STRIDE)
"""Pixels of the network input per cell."""


class Maps:
    """Reads head tensors, and refuses what is not usable.

    Args:
        spec: the model's.

    Raises:
        SpecError: its head tensors are not those of the family.
    """

    def __init__(self, spec: ModelSpec) -> None:
        check_heads(spec, heads_of(spec))
        self._spec = spec
        self._heads: Mapping[str, HeadSpec] = {head.name: head for head in spec.heads}
        self._least_spread = np.float32(1.0 + constants_of(spec).sigma_floor)
        self.rows, self.columns = spec.cells(STRIDE)

    def take(self, heads: Heads, name: str, index: int, cells: NDArray[np.intp]) -> NDArray[np.float32]:
        """Take the raw values of cells, (channels, n).

        Raises:
            EngineError: the head tensor is missing, misshapen, or has a value there that is not usable.
        """
        values = head_of(heads, self._spec, self._heads[name], index).take(cells, axis=1)
        if not usable(values):
            _refuse(values, name)
        return values

    def peaks(self, heads: Heads, name: str, index: int, cut: np.float32) -> Peaks:
        """Return the peaks of maps of logits above a cut.

        Raises:
            EngineError: as for `take`, of any value.
        """
        logits = head_of(heads, self._spec, self._heads[name], index)
        if not usable(logits):
            _refuse(logits, name)
        return find_peaks(logits.reshape(-1, self.rows, self.columns), cut)

    def spread(self, heads: Heads, number: int, index: int, cells: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return a component's s = ELU(raw) + 1 + floor in x and y, (2, n) cells."""
        raw = self.take(heads, f"sigma_{number}", index, cells)
        spread: NDArray[np.float32] = np.maximum(raw, 0.0) + np.expm1(np.minimum(raw, 0.0))
        return spread + self._least_spread

    def log_weights(self, heads: Heads, index: int, cells: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the logarithms of the components' weights, (M, n)."""
        alpha = self.take(heads, "alpha", index, cells).astype(np.float64)
        alpha -= alpha.max(axis=0)
        weights: NDArray[np.float64] = alpha - np.log(np.exp(alpha).sum(axis=0))
        return weights

    def boxes(
        self, heads: Heads, index: int, cells: NDArray[np.intp], size: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the corners of boxes around the centres of cells, (corner, x and y, n), px of the network input.

        Args:
            heads: head tensors.
            index: which image of the batch.
            cells: (n,) flat.
            size: (2, n) width and height in cells; below 0 counts as 0.
        """
        center: NDArray[np.float32] = cell_centers(cells, self.columns) + self.take(heads, "offset", index, cells)
        half: NDArray[np.float32] = np.maximum(size, 0.0)
        half *= 0.5
        corners: NDArray[np.float32] = np.stack([center - half, center + half])
        corners *= PX
        return corners


def _refuse(values: NDArray[np.float32], name: str) -> None:
    """Raise the error of raw values, not all of them usable."""
    value = values[~(np.abs(values) <= LARGEST_RAW)][0]
    raise EngineError(
        expected=f"finite head tensors (magnitudes up to {LARGEST_RAW:g})",
        got=f"{value} in {name}",
        do="export it again with --precision fp32",
    )
