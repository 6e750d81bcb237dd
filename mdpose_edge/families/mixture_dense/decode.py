"""Head tensors of mixture dense regression become poses.

A peak of the centre map is a person; the component of the largest weight says where its keypoints are, which is better
than the mixture's mean (the paper). Work is done for peaks above the score threshold only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.errors import EngineError
from mdpose_edge.families.base import Heads, check_heads, head_of
from mdpose_edge.families.mixture import PoseMixture
from mdpose_edge.families.mixture_dense.heads import (
    HEAT_PEAKS,
    HEAT_REACH,
    HEAT_THRESHOLD,
    STRIDE,
    components_of,
    constants_of,
    head_specs,
)
from mdpose_edge.families.nms import box_nms, oks_nms
from mdpose_edge.families.peaks import Peaks, best, by_map, cell_centers, find_peaks, nearest
from mdpose_edge.families.scores import LARGEST_RAW, logit_cut, sigmoid, usable
from mdpose_edge.geometry import FrameGeometry
from mdpose_edge.poses import Poses
from mdpose_edge.spec import DecodeSpec, HeadSpec, ModelSpec

EVALUATION = DecodeSpec(score_threshold=1e-3, nms_threshold=1.0, max_poses=20)
"""AP integrates over all scores, so that the threshold lies far below that of use; COCO's protocol counts the best 20
of an image and no more."""
PX = np.float32(STRIDE)


@dataclass(frozen=True)
class Alternatives:
    """What all components say of N people, in pixels of the frame, best score first; refined by no heat map."""

    scores: NDArray[np.float32]
    """(N,)"""
    weights: NDArray[np.float32]
    """(N, M), which sum to 1 over M; the largest is the component that spoke."""
    keypoints_xy: NDArray[np.float32]
    """(N, M, K, 2)"""
    sigma_xy: NDArray[np.float32]
    """(N, M, K, 2): standard deviations."""

    def likely(self, least_weight: float = 0.2) -> NDArray[np.bool_]:
        """Return (N, M): which components have more than a weight, such as a second view of a person."""
        return np.asarray(self.weights > least_weight)


class MixtureDenseDecoder:
    """Decoder of mixture dense regression (Varamesh and Tuytelaars, CVPR 2020).

    Equal scores keep the order of the cells, row by row. At most `pre_nms` peaks are read. NMS runs where its threshold
    is below 1. A decoder holds no state between calls: threads may share it.
    """

    def __init__(self, spec: ModelSpec, options: DecodeSpec) -> None:
        constants = constants_of(spec)
        check_heads(spec, head_specs(constants, len(spec.keypoints.names)))
        self._spec, self._options, self._constants = spec, options, constants
        self._heads: Mapping[str, HeadSpec] = {head.name: head for head in spec.heads}
        self._cut, self._heat_cut = logit_cut(options.score_threshold), logit_cut(HEAT_THRESHOLD)
        self._rows, self._columns = spec.cells(STRIDE)
        self._num_keypoints = len(spec.keypoints.names)
        self._sigmas = np.asarray(spec.keypoints.sigmas)
        self._spreads = self._sigmas.astype(np.float32)[:, None, None] * PX
        self._input_wh = np.array([spec.input.width, spec.input.height], np.float32)

    def __call__(self, heads: Heads, geometry: FrameGeometry, index: int = 0) -> Poses:
        """Decode one image of a batch: see `Decoder`."""
        people = self._people(heads, index, self._cut)
        if not len(people.cells):
            return self._nobody()
        boxes = self._boxes(heads, index, people.cells)
        keypoints, sigma = self._spoken(heads, index, people.cells)
        if self._constants.heatmaps:
            keypoints = self._refined(heads, index, keypoints, boxes)
        kept = self._suppress(keypoints, boxes)
        corners = geometry.to_frame(boxes[..., kept].transpose(2, 0, 1)).reshape(-1, 4)
        return Poses(
            np.ascontiguousarray(geometry.to_frame(_by_pose(keypoints.take(kept, axis=2)))),
            sigmoid(people.logits[kept]),
            np.ascontiguousarray(geometry.lengths_to_frame(_by_pose(sigma.take(kept, axis=2)))),
            corners,
        )

    def alternatives(self, heads: Heads, geometry: FrameGeometry, index: int = 0) -> Alternatives:
        """Return what every component says of the people of one image, before NMS.

        Raises:
            EngineError: as for decoding.
        """
        people = self._people(heads, index, self._cut)
        said = [self._component(heads, index, number, people.cells) for number in components_of(self._constants)]
        keypoints, sigma = (np.stack([_by_pose(values) for values in kind], axis=1) for kind in zip(*said, strict=True))
        return Alternatives(
            sigmoid(people.logits),
            np.exp(self._log_weights(heads, index, people.cells)).astype(np.float32).T,
            geometry.to_frame(keypoints),
            geometry.lengths_to_frame(sigma),
        )

    def mixture(self, heads: Heads, geometry: FrameGeometry, index: int = 0, like: Heads | None = None) -> PoseMixture:
        """Return the components at the peaks of the centre map, likely or not: see `MixtureDecoder`.

        They are trained at people's centres alone: in the cells around one they say nothing, likely as these are.
        """
        cells = self._people(heads if like is None else like, index, np.float32(-np.inf)).cells
        logits = self._take(heads, "centre", index, cells)[0].astype(np.float64)
        log_scores = -np.logaddexp(0.0, -logits) + self._log_weights(heads, index, cells)
        said = [self._component(heads, index, number, cells) for number in components_of(self._constants)]
        keypoints, sigma = (np.concatenate([_by_pose(values) for values in kind]) for kind in zip(*said, strict=True))
        return PoseMixture(
            log_scores.reshape(-1), geometry.to_frame(keypoints), geometry.lengths_to_frame(sigma), "gaussian"
        )

    def _people(self, heads: Heads, index: int, cut: np.float32) -> Peaks:
        """Return the peaks of the centre map above a cut, best first, at most `pre_nms`."""
        logits = head_of(heads, self._spec, self._heads["centre"], index)
        if not usable(logits):
            self._refuse(logits, "centre")
        return best(find_peaks(logits.reshape(1, self._rows, self._columns), cut), self._options.pre_nms)

    def _spoken(
        self, heads: Heads, index: int, cells: NDArray[np.intp]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return keypoints and standard deviations (K, 2, n), px, of the component that has the largest weight."""
        chosen = self._take(heads, "alpha", index, cells).argmax(axis=0) + 1
        keypoints = np.empty((self._num_keypoints, 2, len(cells)), np.float32)
        sigma = np.empty_like(keypoints)
        for number in components_of(self._constants):
            here = np.flatnonzero(chosen == number)
            keypoints[..., here], sigma[..., here] = self._component(heads, index, number, cells[here])
        return keypoints, sigma

    def _component(
        self, heads: Heads, index: int, number: int, cells: NDArray[np.intp]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return one component's keypoints and standard deviations (K, 2, n), px of the network input."""
        keypoints = self._take(heads, f"mu_{number}", index, cells).reshape(self._num_keypoints, 2, -1)
        keypoints += cell_centers(cells, self._columns)
        keypoints *= PX
        raw = self._take(heads, f"sigma_{number}", index, cells)
        spread = np.maximum(raw, 0.0) + np.expm1(np.minimum(raw, 0.0))  # ELU
        return keypoints, (spread + np.float32(1.0 + self._constants.sigma_floor)) * self._spreads

    def _log_weights(self, heads: Heads, index: int, cells: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the logarithms of the components' weights, (M, n)."""
        alpha = self._take(heads, "alpha", index, cells).astype(np.float64)
        alpha -= alpha.max(axis=0)
        weights: NDArray[np.float64] = alpha - np.log(np.exp(alpha).sum(axis=0))
        return weights

    def _boxes(self, heads: Heads, index: int, cells: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the corners of the people's boxes, (corner, x and y, n), px of the network input."""
        center: NDArray[np.float32] = cell_centers(cells, self._columns) + self._take(heads, "offset", index, cells)
        half: NDArray[np.float32] = np.maximum(self._take(heads, "size", index, cells), 0.0)
        half *= 0.5
        corners: NDArray[np.float32] = np.stack([center - half, center + half])
        corners *= PX
        return corners

    def _refined(
        self, heads: Heads, index: int, keypoints: NDArray[np.float32], boxes: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Move each keypoint to the nearest peak of its heat map that is near enough and in the person's box."""
        heat = head_of(heads, self._spec, self._heads["heat"], index)
        if not usable(heat):
            self._refuse(heat, "heat")
        peaks = find_peaks(heat.reshape(-1, self._rows, self._columns), self._heat_cut)
        points = cell_centers(peaks.cells, self._columns) + self._take(heads, "heat_offset", index, peaks.cells)
        table = by_map(peaks, points * PX, self._num_keypoints, HEAT_PEAKS)
        found, distance = nearest(keypoints.transpose(1, 0, 2), table)
        (low, high), reach = boxes[:, :, None], np.float32(HEAT_REACH) * (boxes[1] - boxes[0]).max(axis=0)
        near = ((found >= low) & (found <= high)).all(axis=0) & (distance <= reach)
        return np.where(near[:, None], found.transpose(1, 0, 2), keypoints).astype(np.float32, copy=False)

    def _suppress(self, keypoints: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.intp]:
        """Say which people, best first, remain."""
        options = self._options
        if options.nms_threshold >= 1:
            return np.arange(min(boxes.shape[2], options.max_poses))
        corners = np.clip(boxes, 0.0, self._input_wh[:, None])
        if options.nms == "box":
            return box_nms(corners.reshape(4, -1).T, options.nms_threshold, options.max_poses)
        areas = np.prod(corners[1] - corners[0], axis=0)
        return oks_nms(_by_pose(keypoints), areas, self._sigmas, options.nms_threshold, options.max_poses)

    def _take(self, heads: Heads, name: str, index: int, cells: NDArray[np.intp]) -> NDArray[np.float32]:
        """Take the raw values of cells, (channels, n), and refuse what is not usable."""
        values = head_of(heads, self._spec, self._heads[name], index).take(cells, axis=1)
        if not usable(values):
            self._refuse(values, name)
        return values

    def _refuse(self, values: NDArray[np.float32], name: str) -> None:
        """Raise the error of raw values, not all of them usable."""
        value = values[~(np.abs(values) <= LARGEST_RAW)][0]
        raise EngineError(
            expected=f"finite head tensors (magnitudes up to {LARGEST_RAW:g})",
            got=f"{value} in {name}",
            do="export it again with --precision fp32",
        )

    def _nobody(self) -> Poses:
        nobody = Poses.empty(self._num_keypoints)
        return Poses(nobody.keypoints_xy, nobody.scores, nobody.sigma_xy, np.zeros((0, 4), np.float32))


make_decoder = MixtureDenseDecoder
"""What the registry asks of a family's decode.py: (spec, options) to a decoder."""


def _by_pose(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """View (K, 2, n) as (n, K, 2)."""
    return values.transpose(2, 0, 1)
