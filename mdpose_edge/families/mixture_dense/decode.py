"""Head tensors of mixture dense regression become poses.

A peak of the centre map is a person; the component of the largest weight says where its keypoints are, which is better
than the mixture's mean (the paper). Work is done for peaks above the score threshold only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.families.alternatives import Alternatives
from mdpose_edge.families.base import Heads
from mdpose_edge.families.mixture import PoseMixture
from mdpose_edge.families.mixture_dense.boxes import BoxDecoder
from mdpose_edge.families.mixture_dense.heads import (
    HEAT_PEAKS,
    HEAT_REACH,
    HEAT_THRESHOLD,
    components_of,
    constants_of,
)
from mdpose_edge.families.mixture_dense.maps import PX, Maps
from mdpose_edge.families.nms import box_nms, oks_nms
from mdpose_edge.families.peaks import Peaks, best, by_map, cell_centers, nearest
from mdpose_edge.families.scores import logit_cut, sigmoid
from mdpose_edge.geometry import FrameGeometry
from mdpose_edge.poses import Poses
from mdpose_edge.spec import DecodeSpec, ModelSpec

EVALUATION = DecodeSpec(score_threshold=1e-3, nms_threshold=1.0, max_poses=20)
"""AP integrates over all scores, so that the threshold lies far below that of use; COCO's protocol counts the best 20
of an image and no more."""
BOX_EVALUATION = DecodeSpec(score_threshold=1e-3, nms_threshold=1.0, max_poses=100)
"""Of boxes COCO's protocol counts the best 100 of an image."""


class MixtureDenseDecoder:
    """Decoder of mixture dense regression (Varamesh and Tuytelaars, CVPR 2020).

    Equal scores keep the order of the cells, row by row. At most `pre_nms` peaks are read. NMS runs where its threshold
    is below 1. A decoder holds no state between calls: threads may share it.
    """

    def __init__(self, spec: ModelSpec, options: DecodeSpec) -> None:
        self._maps, self._options, self._constants = Maps(spec), options, constants_of(spec)
        self._cut, self._heat_cut = logit_cut(options.score_threshold), logit_cut(HEAT_THRESHOLD)
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
        """Return what every component says of the people of one image: see `AlternativesDecoder`."""
        people = self._people(heads, index, self._cut)
        boxes = self._boxes(heads, index, people.cells)
        kept = self._suppress(self._spoken(heads, index, people.cells)[0], boxes)
        people, scores = people.take(kept), sigmoid(people.logits[kept])
        corners = geometry.to_frame(boxes[..., kept].transpose(2, 0, 1)).reshape(-1, 4)
        said = (self._component(heads, index, number, people.cells) for number in components_of(self._constants))
        weights = np.exp(self._maps.log_weights(heads, index, people.cells)).astype(np.float32)
        poses = [
            Poses(
                np.ascontiguousarray(geometry.to_frame(_by_pose(keypoints))),
                scores,
                np.ascontiguousarray(geometry.lengths_to_frame(_by_pose(sigma))),
                corners,
            )
            for keypoints, sigma in said
        ]
        return Alternatives(weights.T, tuple(poses))

    def mixture(self, heads: Heads, geometry: FrameGeometry, index: int = 0, like: Heads | None = None) -> PoseMixture:
        """Return the components at the peaks of the centre map, likely or not: see `MixtureDecoder`.

        They are trained at people's centres alone: in the cells around one they say nothing, likely as these are.
        """
        cells = self._people(heads if like is None else like, index, np.float32(-np.inf)).cells
        logits = self._maps.take(heads, "centre", index, cells)[0].astype(np.float64)
        log_scores = -np.logaddexp(0.0, -logits) + self._maps.log_weights(heads, index, cells)
        said = [self._component(heads, index, number, cells) for number in components_of(self._constants)]
        keypoints, sigma = (np.concatenate([_by_pose(values) for values in kind]) for kind in zip(*said, strict=True))
        return PoseMixture(
            log_scores.reshape(-1), geometry.to_frame(keypoints), geometry.lengths_to_frame(sigma), "gaussian"
        )

    def _people(self, heads: Heads, index: int, cut: np.float32) -> Peaks:
        """Return the peaks of the centre map above a cut, best first, at most `pre_nms`."""
        return best(self._maps.peaks(heads, "centre", index, cut), self._options.pre_nms)

    def _spoken(
        self, heads: Heads, index: int, cells: NDArray[np.intp]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return keypoints and standard deviations (K, 2, n), px, of the component that has the largest weight."""
        chosen = self._maps.take(heads, "alpha", index, cells).argmax(axis=0) + 1
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
        keypoints = self._maps.take(heads, f"mu_{number}", index, cells).reshape(self._num_keypoints, 2, -1)
        keypoints += cell_centers(cells, self._maps.columns)
        keypoints *= PX
        return keypoints, self._maps.spread(heads, number, index, cells) * self._spreads

    def _boxes(self, heads: Heads, index: int, cells: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the corners of the people's boxes, (corner, x and y, n), px of the network input."""
        return self._maps.boxes(heads, index, cells, self._maps.take(heads, "size", index, cells))

    def _refined(
        self, heads: Heads, index: int, keypoints: NDArray[np.float32], boxes: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Move each keypoint to the nearest peak of its heat map that is near enough and in the person's box."""
        peaks = self._maps.peaks(heads, "heat", index, self._heat_cut)
        points = cell_centers(peaks.cells, self._maps.columns)
        points += self._maps.take(heads, "heat_offset", index, peaks.cells)
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

    def _nobody(self) -> Poses:
        nobody = Poses.empty(self._num_keypoints)
        return Poses(nobody.keypoints_xy, nobody.scores, nobody.sigma_xy, np.zeros((0, 4), np.float32))


def make_decoder(spec: ModelSpec, options: DecodeSpec) -> MixtureDenseDecoder | BoxDecoder:
    """Return the decoder of poses, or of boxes where a model has no keypoints: see registry.make_decoder."""
    return MixtureDenseDecoder(spec, options) if spec.keypoints.names else BoxDecoder(spec, options)


def _by_pose(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """View (K, 2, n) as (n, K, 2)."""
    return values.transpose(2, 0, 1)
