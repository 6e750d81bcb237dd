"""Head tensors of distribution-aware 3-D pose become poses in the frame, and in metres where the camera is known.

Work is done for cells above the score threshold only. The recursive update, which the authors run over whole maps in
the graph, is a bilinear read at these cells: the graph is left with convolutions and upsampling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.camera import Camera
from mdpose_edge.errors import EngineError
from mdpose_edge.families.base import Heads, check_heads, head_of
from mdpose_edge.families.das.heads import (
    LARGEST_DEPTH,
    LEAST_SCALE,
    Level,
    constants_of,
    head_specs,
)
from mdpose_edge.families.das.lifting import guessed_camera, lifted, network_focal
from mdpose_edge.families.das.update import updated
from mdpose_edge.families.mixture import Law, PoseMixture
from mdpose_edge.families.nms import box_nms, oks_nms
from mdpose_edge.families.peaks import cell_centers, find_peaks
from mdpose_edge.families.scores import LARGEST_RAW, largest, logit_cut, sigmoid, usable
from mdpose_edge.geometry import FrameGeometry
from mdpose_edge.poses import Poses
from mdpose_edge.spec import DecodeSpec, HeadSpec, ModelSpec

EVALUATION = DecodeSpec(score_threshold=1e-3, nms="box", nms_threshold=0.7, max_poses=20)
"""AP integrates over all scores, so that the threshold lies far below that of use; COCO's protocol counts the best 20
of an image and no more."""
LAW: Law = "laplace"
"""What a coordinate is distributed by, but for what the flow knows of it."""
LAPLACE_SIGMA = np.float32(np.sqrt(2.0))
"""Standard deviation of a Laplace distribution of scale 1."""


@dataclass(frozen=True)
class _Cells:
    """N cells of one level."""

    level: int
    cells: NDArray[np.intp]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class _People:
    """N candidates, best first, in pixels of the network input and units of the head tensors."""

    scores: NDArray[np.float32]
    """(N,)"""
    keypoints: NDArray[np.float32]
    """(K, 2, N) px"""
    dz: NDArray[np.float32]
    """(K, N)"""
    depth: NDArray[np.float32]
    """(N,)"""
    scales: NDArray[np.float32]
    """(K, 2, N) px: calibrated Laplace scales."""

    def take(self, chosen: NDArray[np.intp]) -> _People:
        return _People(*(array.take(chosen, axis=-1) for array in vars(self).values()))


class DASDecoder:
    """Decoder of distribution-aware single-stage 3-D pose (Wang et al., CVPR 2022).

    Equal scores keep the order of the cells, level by level, row by row. At most `pre_nms` candidates enter NMS. A
    decoder holds no state between calls: threads may share it.
    """

    def __init__(self, spec: ModelSpec, options: DecodeSpec) -> None:
        self._constants = constants_of(spec)
        check_heads(spec, head_specs(self._constants.levels, len(spec.keypoints.names)))
        self._spec, self._options = spec, options
        self._heads: Mapping[str, HeadSpec] = {head.name: head for head in spec.heads}
        self._cut, self._threshold = logit_cut(options.score_threshold), np.float32(options.score_threshold)
        self._num_keypoints = len(spec.keypoints.names)
        self._sigmas = np.asarray(spec.keypoints.sigmas)
        self._factors = np.array(self._constants.sigma_factors, np.float32)
        self._input_wh = np.array([spec.input.width, spec.input.height], np.float32)

    def __call__(self, heads: Heads, geometry: FrameGeometry, index: int = 0) -> Poses:
        """Decode one image of a batch: see `Decoder`.

        Where the geometry knows no camera, one is guessed that looks at the middle of the frame, and `metric` is false.
        """
        people = self._read(heads, index, self._candidates(heads, index))
        if len(people.scores):
            people = people.take(self._suppress(people.keypoints))
        keypoints = np.ascontiguousarray(geometry.to_frame(_by_pose(people.keypoints)))
        camera = geometry.camera or guessed_camera(geometry, self._spec.input)
        return Poses(
            keypoints,
            people.scores,
            np.ascontiguousarray(geometry.lengths_to_frame(_by_pose(people.scales))) * LAPLACE_SIGMA,
            keypoints_3d=lifted(keypoints, self._depths(people, geometry, camera), camera),
            metric=geometry.camera is not None,
        )

    def mixture(self, heads: Heads, geometry: FrameGeometry, index: int = 0, like: Heads | None = None) -> PoseMixture:
        """Return the poses at the peaks of the scores, likely or not: see `MixtureDecoder`.

        They are trained around people's roots alone: elsewhere they say nothing.
        """
        own = self._scores(heads, index)
        chosen = [
            find_peaks(scores.reshape(1, *self._spec.cells(level.stride)), np.float32(-np.inf)).cells
            for level, scores in zip(
                self._constants.levels, own if like is None else self._scores(like, index), strict=True
            )
        ]
        cells = [_Cells(i, here, own[i].take(here)) for i, here in enumerate(chosen)]
        people = self._read(heads, index, cells, ranked=False)
        return PoseMixture(
            np.log(np.maximum(people.scores.astype(np.float64), np.finfo(np.float32).tiny)),
            geometry.to_frame(_by_pose(people.keypoints)),
            geometry.lengths_to_frame(_by_pose(people.scales)),
            LAW,
        )

    def _scores(self, heads: Heads, index: int) -> list[NDArray[np.float32]]:
        """Return the scores of all cells, by level."""
        return [
            sigmoid(self._level(heads, "o", level, index)[0]) * sigmoid(self._level(heads, "c", level, index)[0])
            for level in self._constants.levels
        ]

    def _candidates(self, heads: Heads, index: int) -> list[_Cells]:
        """Return the cells above the threshold, by level: the score of a cell is below its sigmoid(o)."""
        found = []
        for number, level in enumerate(self._constants.levels):
            logits, centerness = (self._level(heads, kind, level, index)[0] for kind in ("o", "c"))
            cells = np.flatnonzero(logits > self._cut)
            scores = sigmoid(logits.take(cells)) * sigmoid(centerness.take(cells))
            above = scores > self._threshold
            found.append(_Cells(number, cells[above], scores[above]))
        return found

    def _read(self, heads: Heads, index: int, chosen: list[_Cells], *, ranked: bool = True) -> _People:
        """Return what cells say, best first where they are to be ranked, and then at most `pre_nms`."""
        scores = np.concatenate([cells.scores for cells in chosen])
        order = np.arange(len(scores))
        if ranked:
            if len(scores) > self._options.pre_nms:
                order = largest(scores, self._options.pre_nms)
            order = order[np.argsort(-scores[order], kind="stable")]
        kept = np.zeros(len(scores), np.bool_)
        kept[order] = True
        ends = np.cumsum([len(cells.cells) for cells in chosen])
        parts = [
            self._read_level(heads, index, cells, cells.cells[kept[end - len(cells.cells) : end]])
            for cells, end in zip(chosen, ends, strict=True)
            if len(cells.cells) or not len(scores)
        ]
        keypoints, dz, depth, scales = (np.concatenate(arrays, axis=-1) for arrays in zip(*parts, strict=True))
        people = _People(scores[kept], keypoints, dz, depth, scales)
        return people.take((np.cumsum(kept) - 1)[order])

    def _read_level(
        self, heads: Heads, index: int, of: _Cells, cells: NDArray[np.intp]
    ) -> tuple[NDArray[np.float32], ...]:
        """Return keypoints (K, 2, n) px, dz (K, n), depth (n,) and scales (K, 2, n) px of cells of a level."""
        level, count = self._constants.levels[of.level], self._num_keypoints
        rows, columns = self._spec.cells(level.stride)
        uv, dz = (self._level(heads, kind, level, index) for kind in ("uv", "dz"))
        for kind, values in (("uv", uv), ("dz", dz)):
            self._check(values.take(cells, axis=1), f"{kind}_{level.name}")  # the others, if they are read
        depth = self._take(heads, "depth", level, index, cells)[0]
        scales = self._take(heads, "sigma", level, index, cells).reshape(count, 3, -1)[:, :2]
        centers, stride = cell_centers(cells, columns), np.float32(level.stride)
        offsets, joint_dz = updated(
            uv.reshape(count, 2, rows, columns), dz.reshape(count, rows, columns), cells, self._constants.updates
        )
        for kind, values in (("uv", offsets), ("dz", joint_dz)):
            self._check(values, f"{kind}_{level.name}")
        scales = np.maximum(sigmoid(scales), np.float32(LEAST_SCALE)) * self._factors[:2, None] * stride
        return (offsets + centers) * stride, joint_dz, depth, scales

    def _depths(self, people: _People, geometry: FrameGeometry, camera: Camera) -> NDArray[np.float64]:
        """Return the joints' depths, (N, K) metres of the camera."""
        constants, raw = self._constants, people.depth.astype(np.float64)
        if constants.depth == "log":
            raw = np.exp(np.clip(raw, -LARGEST_DEPTH, LARGEST_DEPTH))
        root = raw * (network_focal(geometry, camera) / constants.reference_focal)
        depths: NDArray[np.float64] = root[:, None] + constants.z_norm * people.dz.T.astype(np.float64)
        return depths

    def _suppress(self, keypoints: NDArray[np.float32]) -> NDArray[np.intp]:
        """Run NMS over poses (K, 2, n) in order of score; overlap is judged inside the network input."""
        options, last = self._options, self._input_wh[:, None]
        corners = [np.clip(keypoints.min(axis=0), 0.0, last), np.clip(keypoints.max(axis=0), 0.0, last)]
        if options.nms_threshold >= 1:
            return np.arange(min(keypoints.shape[2], options.max_poses))
        if options.nms == "box":
            return box_nms(np.concatenate(corners).T, options.nms_threshold, options.max_poses)
        width, height = corners[1] - corners[0]
        return oks_nms(_by_pose(keypoints), width * height, self._sigmas, options.nms_threshold, options.max_poses)

    def _level(self, heads: Heads, kind: str, level: Level, index: int) -> NDArray[np.float32]:
        """Return one head tensor of an image, (channels, cells); scores are checked here, as all of them are read."""
        values = head_of(heads, self._spec, self._heads[f"{kind}_{level.name}"], index)
        if kind in ("o", "c"):
            self._check(values, f"{kind}_{level.name}")
        return values

    def _take(self, heads: Heads, kind: str, level: Level, index: int, cells: NDArray[np.intp]) -> NDArray[np.float32]:
        values = self._level(heads, kind, level, index).take(cells, axis=1)
        self._check(values, f"{kind}_{level.name}")
        return values

    def _check(self, values: NDArray[np.float32], name: str) -> None:
        """Refuse raw values that are not finite, or absurd."""
        if usable(values):
            return
        value = values[~(np.abs(values) <= LARGEST_RAW)][0]
        raise EngineError(
            expected=f"finite head tensors (magnitudes up to {LARGEST_RAW:g})",
            got=f"{value} in {name}",
            do="export it again with --precision fp32",
        )


make_decoder = DASDecoder
"""What the registry asks of a family's decode.py: (spec, options) to a decoder."""


def _by_pose(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """View (K, 2, n) as (n, K, 2)."""
    return values.transpose(2, 0, 1)
