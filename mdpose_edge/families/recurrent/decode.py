"""Head tensors of the recurrent family become poses: a step's maps are a person's, up to the one that is nobody's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.errors import EngineError, SpecError
from mdpose_edge.families.base import Heads, check_heads, head_of
from mdpose_edge.families.heat_sigma import sigma_of, sizes_of
from mdpose_edge.families.nms import box_nms, oks_nms
from mdpose_edge.families.recurrent.heads import STRIDE, Constants, constants_of, head_specs, heat_names
from mdpose_edge.families.scores import LARGEST_RAW, sigmoid, usable
from mdpose_edge.geometry import FrameGeometry
from mdpose_edge.poses import Poses
from mdpose_edge.spec import DecodeSpec, ModelSpec

EVALUATION = DecodeSpec(score_threshold=1e-3, nms="oks", nms_threshold=0.9, max_poses=20)
"""AP integrates over all scores; COCO's protocol counts the best 20 of an image and no more. Steps are read up to the
first that is no person here too: how many people there are is part of what the model says."""
LEAST_HEAT = 1e-6
"""Lower heat counts as this, so that it has a logarithm."""
LAW = "laplace"
"""Of the errors around a keypoint: see heat_sigma.py."""


@dataclass(frozen=True)
class Found:
    """N people, in the order of the steps; lengths in px of the network input."""

    keypoints: NDArray[np.float32]
    """(N, K, 2)"""
    heat: NDArray[np.float32]
    """(N, K): what each map reaches, in [0, 1]."""
    scores: NDArray[np.float32]
    """(N,)"""
    sizes: NDArray[np.float32]
    """(N,): square root of the area around the keypoints seen."""

    def take(self, chosen: NDArray[np.intp]) -> Found:
        """Return some of the people, in another order."""
        arrays = (self.keypoints, self.heat, self.scores, self.sizes)
        return Found(*(array[chosen] for array in arrays))


class RecurrentDecoder:
    """Decoder of the recurrent family ("Unifying Part Detection Association", under review at ICLR 2020).

    Steps are read up to the first whose probability is below `stop_threshold`. The score of a person is that
    probability times the mean heat of the keypoints seen; of those who overlap as one person does, the best stays.
    A decoder holds no state between calls: threads may share it.
    """

    def __init__(self, spec: ModelSpec, options: DecodeSpec) -> None:
        constants = constants_of(spec)
        num_keypoints = len(spec.keypoints.names)
        check_heads(spec, head_specs(constants, num_keypoints))
        for name, wanted in (("offsets", num_keypoints), ("slopes", 1)):
            if (given := len(getattr(constants.sigma, name))) != wanted:
                expected, got = f"{wanted} numbers", str(given)
                raise SpecError(f"constants.sigma.{name}", expected=expected, got=got, do="export again")
        self._spec, self._options, self._constants = spec, options, constants
        self._heads = {head.name: head for head in spec.heads}
        self._names = heat_names(constants.people)
        self._rows, self._columns = spec.cells(STRIDE)
        self._sigmas = np.asarray(spec.keypoints.sigmas)
        self._input_wh = np.array([spec.input.width, spec.input.height], np.float32)

    def __call__(self, heads: Heads, geometry: FrameGeometry, index: int = 0) -> Poses:
        """Decode one image of a batch: see `Decoder`."""
        found = self.read(heads, index)
        if not len(found.scores):
            return Poses.empty(len(self._sigmas))
        above = np.flatnonzero(found.scores > np.float32(self._options.score_threshold))
        found = found.take(above[np.argsort(-found.scores[above], kind="stable")][: self._options.pre_nms])
        found = found.take(self._suppress(found))
        sigma = sigma_of(self._constants.sigma, found.sizes, found.heat)
        return Poses(
            geometry.to_frame(found.keypoints),
            found.scores,
            geometry.lengths_to_frame(np.repeat(sigma[..., None], 2, axis=2)),
        )

    def read(self, heads: Heads, index: int = 0) -> Found:
        """Return the people whom the steps of an image give.

        Raises:
            EngineError: as for decoding.
        """
        said = self.probabilities(heads, index)
        count = people_said(said, self._constants)
        if not count:
            nothing = np.zeros((0, len(self._sigmas), 2), np.float32)
            return Found(nothing, nothing[..., 0], nothing[:, 0, 0], nothing[:, 0, 0])
        return self._read(self._maps(heads, count, index), said[:count])

    def probabilities(self, heads: Heads, index: int = 0) -> NDArray[np.float32]:
        """Return how likely each step of an image is a person, (T,).

        Raises:
            EngineError: as for decoding.
        """
        logits = head_of(heads, self._spec, self._heads["stop"], index)[:, 0]
        _check(logits, "stop")
        return sigmoid(np.maximum(logits, np.float32(-100.0)))  # below, exp would overflow

    def count(self, heads: Heads, index: int = 0) -> int:
        """Return how many people an image has by its steps alone: the count that the model was trained for.

        Raises:
            EngineError: as for decoding.
        """
        return people_said(self.probabilities(heads, index), self._constants)

    def _maps(self, heads: Heads, count: int, index: int) -> list[NDArray[np.float32]]:
        """Return the first steps' maps, (K, cells) each."""
        maps = []
        for name in self._names[:count]:
            heat = head_of(heads, self._spec, self._heads[name], index)
            _check(heat, name)
            maps.append(heat)
        return maps

    def _read(self, maps: list[NDArray[np.float32]], said: NDArray[np.float32]) -> Found:
        """Find each map's highest cell, and what follows from it."""
        cells = np.stack([heat.argmax(axis=1) for heat in maps])
        row, column = np.divmod(cells, self._columns)

        def at(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float32]:
            inside = np.clip(rows, 0, self._rows - 1) * self._columns + np.clip(columns, 0, self._columns - 1)
            return np.stack(
                [np.take_along_axis(h, c[:, None], axis=1)[:, 0] for h, c in zip(maps, inside, strict=True)]
            )

        peak = at(row, column)
        across = _vertex(at(row, column - 1), peak, at(row, column + 1))
        down = _vertex(at(row - 1, column), peak, at(row + 1, column))
        inside = [(column > 0) & (column < self._columns - 1), (row > 0) & (row < self._rows - 1)]
        shift = np.where(np.stack(inside, axis=2), np.stack([across, down], axis=2), 0.0)
        keypoints = ((np.stack([column, row], axis=2) + 0.5 + shift) * STRIDE).astype(np.float32)
        seen = peak >= np.float32(self._constants.heat_threshold)
        heat = np.clip(peak, 0.0, 1.0)
        mean = np.where(seen, heat, 0.0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
        return Found(keypoints, heat, (said * mean).astype(np.float32), _sizes(keypoints, heat, seen))

    def _suppress(self, found: Found) -> NDArray[np.intp]:
        """Say which people, best first, remain."""
        options = self._options
        if options.nms_threshold >= 1:
            return np.arange(min(len(found.scores), options.max_poses))
        if options.nms == "box":
            points = np.clip(found.keypoints, 0.0, self._input_wh)
            boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
            return box_nms(boxes, options.nms_threshold, options.max_poses)
        return oks_nms(found.keypoints, found.sizes**2, self._sigmas, options.nms_threshold, options.max_poses)


make_decoder = RecurrentDecoder
"""What the registry asks of a family's decode.py: (spec, options) to a decoder."""


def people_said(probabilities: NDArray[np.float32], constants: Constants) -> int:
    """Return how many steps come before the first that is no person."""
    over = np.flatnonzero(probabilities < np.float32(constants.stop_threshold))
    return int(over[0]) if len(over) else len(probabilities)


def _vertex(before: NDArray[np.float32], peak: NDArray[np.float32], after: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return where the parabola through the logarithms of three neighbouring cells is highest, from the middle one.

    For a Gaussian that is its centre, exactly; the paper takes a quarter of a cell towards the higher neighbour. Within
    half a cell, which a peak's own cell is.
    """
    low, middle, high = (np.log(np.maximum(values, LEAST_HEAT, dtype=np.float64)) for values in (before, peak, after))
    bend = 2 * middle - low - high
    return np.clip(np.where(bend > 0, (high - low) / (2 * np.maximum(bend, 1e-9)), 0.0), -0.5, 0.5)


def _sizes(keypoints: NDArray[np.float32], heat: NDArray[np.float32], seen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return `heat_sigma.sizes_of` the keypoints seen, (N,), in their unit."""
    surest = keypoints[np.arange(len(keypoints)), heat.argmax(axis=1)]
    return sizes_of(np.where(seen[..., None], keypoints, surest[:, None]))


def _check(values: NDArray[np.float32], name: str) -> None:
    """Refuse raw values that are not finite, or absurd."""
    if usable(values):
        return
    value = values[~(np.abs(values) <= LARGEST_RAW)][0]
    expected = f"finite head tensors (magnitudes up to {LARGEST_RAW:g})"
    raise EngineError(expected=expected, got=f"{value} in {name}", do="export it again with --precision fp32")
