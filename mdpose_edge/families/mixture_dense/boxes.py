"""Head tensors of mixture dense regression without keypoints become boxes of several classes.

A peak of a class's centre map is an instance; the component of the largest weight says how large its box is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.errors import SpecError
from mdpose_edge.families.alternatives import Alternatives
from mdpose_edge.families.base import Heads
from mdpose_edge.families.mixture import PoseMixture
from mdpose_edge.families.mixture_dense.heads import components_of, constants_of
from mdpose_edge.families.mixture_dense.maps import PX, Maps
from mdpose_edge.families.nms import box_nms
from mdpose_edge.families.peaks import Peaks, best
from mdpose_edge.families.scores import logit_cut, sigmoid
from mdpose_edge.geometry import FrameGeometry
from mdpose_edge.poses import Poses
from mdpose_edge.spec import DecodeSpec, ModelSpec


class BoxDecoder:
    """Decoder of boxes (Varamesh and Tuytelaars, CVPR 2020).

    Equal scores keep the order of class, then cell. At most `pre_nms` peaks are read, of all classes together. NMS runs
    within each class where its threshold is below 1. A decoder holds no state between calls: threads may share it.

    Raises:
        SpecError: the head tensors are not those of the family, or NMS is by OKS.
    """

    def __init__(self, spec: ModelSpec, options: DecodeSpec) -> None:
        if options.nms != "box" and options.nms_threshold < 1:
            do = "set it to box"
            raise SpecError("decode.nms", expected="box, of a model without keypoints", got=options.nms, do=do)
        self._maps, self._options, self._constants = Maps(spec), options, constants_of(spec)
        self._cut, self._num_classes = logit_cut(options.score_threshold), len(spec.classes)
        self._input_wh = np.array([spec.input.width, spec.input.height], np.float32)

    def __call__(self, heads: Heads, geometry: FrameGeometry, index: int = 0) -> Poses:
        """Decode one image of a batch: see `Decoder`."""
        found = self._peaks(heads, index, self._cut)
        boxes = self._maps.boxes(heads, index, found.cells, self._spoken(heads, index, found.cells))
        return self._poses(*self._kept(found, boxes), geometry)

    def alternatives(self, heads: Heads, geometry: FrameGeometry, index: int = 0) -> Alternatives:
        """Return what every component says of the boxes of one image: see `AlternativesDecoder`."""
        found = self._peaks(heads, index, self._cut)
        boxes = self._maps.boxes(heads, index, found.cells, self._spoken(heads, index, found.cells))
        found, _ = self._kept(found, boxes)
        numbers = components_of(self._constants)
        sizes = [self._maps.take(heads, f"mu_{number}", index, found.cells) for number in numbers]
        sigma = np.stack([self._maps.spread(heads, number, index, found.cells) * PX for number in numbers])
        weights = np.exp(self._maps.log_weights(heads, index, found.cells)).astype(np.float32)
        return Alternatives(
            weights.T,
            tuple(self._poses(found, self._maps.boxes(heads, index, found.cells, size), geometry) for size in sizes),
            geometry.lengths_to_frame(sigma.transpose(2, 0, 1)),
        )

    def mixture(self, heads: Heads, geometry: FrameGeometry, index: int = 0, like: Heads | None = None) -> PoseMixture:
        """Return the components at the peaks of all classes' centre maps: see `MixtureDecoder`.

        The one "keypoint" of a component is (width, height) of the box.
        """
        found = self._peaks(heads if like is None else like, index, np.float32(-np.inf))
        logits = self._maps.take(heads, "centre", index, found.cells)[found.maps, np.arange(len(found.cells))]
        weights = self._maps.log_weights(heads, index, found.cells)
        log_scores = -np.logaddexp(0.0, -logits.astype(np.float64)) + weights
        numbers = components_of(self._constants)
        sizes = np.concatenate([self._maps.take(heads, f"mu_{n}", index, found.cells).T for n in numbers])
        sigma = np.concatenate([self._maps.spread(heads, n, index, found.cells).T for n in numbers])
        lengths = [geometry.lengths_to_frame((values * PX)[:, None]) for values in (sizes, sigma)]
        return PoseMixture(log_scores.reshape(-1), lengths[0], lengths[1], "gaussian")

    def _poses(self, found: Peaks, boxes: NDArray[np.float32], geometry: FrameGeometry) -> Poses:
        count = len(found.cells)
        return Poses(
            np.zeros((count, 0, 2), np.float32),
            sigmoid(found.logits),
            np.zeros((count, 0, 2), np.float32),
            np.ascontiguousarray(geometry.to_frame(boxes.transpose(2, 0, 1)).reshape(-1, 4)),
            found.maps.astype(np.int64) if self._num_classes > 1 else None,
        )

    def _peaks(self, heads: Heads, index: int, cut: np.float32) -> Peaks:
        """Return the peaks of all classes' centre maps above a cut, best first, at most `pre_nms`."""
        return best(self._maps.peaks(heads, "centre", index, cut), self._options.pre_nms)

    def _spoken(self, heads: Heads, index: int, cells: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return width and height (2, n), cells, of the component that has the largest weight."""
        chosen = self._maps.take(heads, "alpha", index, cells).argmax(axis=0) + 1
        size = np.empty((2, len(cells)), np.float32)
        for number in components_of(self._constants):
            here = np.flatnonzero(chosen == number)
            size[:, here] = self._maps.take(heads, f"mu_{number}", index, cells[here])
        return size

    def _kept(self, found: Peaks, boxes: NDArray[np.float32]) -> tuple[Peaks, NDArray[np.float32]]:
        """Return what remains, at most `max_poses` of all classes together."""
        options = self._options
        kept = np.arange(len(found.cells))
        if options.nms_threshold < 1:
            corners = np.clip(boxes, 0.0, self._input_wh[:, None]).reshape(4, -1).T
            of_class = [np.flatnonzero(found.maps == number) for number in np.unique(found.maps)]
            each = [rows[box_nms(corners[rows], options.nms_threshold, options.max_poses)] for rows in of_class]
            kept = np.sort(np.concatenate([*each, np.zeros(0, np.intp)]))
        kept = kept[: options.max_poses]
        return found.take(kept), boxes[..., kept]
