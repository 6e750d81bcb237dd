"""MDPose's head tensors become poses.

Work is done for survivors only: raw logits are compared with the logit of the score threshold, and the coordinates of
what passes are gathered; the uncertainties are computed for the poses that NMS keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.errors import EngineError
from mdpose_edge.families.base import Heads, check_heads, head_of
from mdpose_edge.families.mdpose.heads import GAMMA_FLOOR, Level, constants_of, head_specs
from mdpose_edge.families.merge import merged, owners
from mdpose_edge.families.mixture import Law, PoseMixture
from mdpose_edge.families.nms import box_nms, oks_nms
from mdpose_edge.families.scores import LARGEST_RAW, largest, logit_cut, sigmoid, usable
from mdpose_edge.geometry import FrameGeometry
from mdpose_edge.poses import Poses
from mdpose_edge.spec import DecodeSpec, HeadSpec, ModelSpec

EVALUATION = DecodeSpec(score_threshold=1e-4, nms="box", nms_threshold=0.7, max_poses=20)
"""As the paper evaluates: AP integrates over all scores, so that the threshold lies far below that of use, and COCO's
protocol counts the best 20 of an image and no more."""
MERGES = True
"""Knows `DecodeSpec.nms` "merge"."""
MERGED_FROM = 0.01
"""Score from which on a candidate takes part in merging, whatever the threshold: what shares a person with others is
small. Down to 0.001 it changes AP and AP50 of the people model by 0.002 at most."""
LAW: Law = "laplace"
"""What a coordinate is distributed by."""
LAPLACE_SIGMA = np.float32(np.sqrt(2.0))
"""Standard deviation of a Laplace distribution of scale 1."""


@dataclass(frozen=True)
class _Level:
    """Where the components of one level are: `start` to `stop` in the list of all, the levels being end to end."""

    level: Level
    heads: Mapping[str, HeadSpec]
    """By kind."""
    shape: tuple[int, int]
    start: int
    stop: int


class MDPoseDecoder:
    """Decoder of MDPose: a mixture component per cell, of which the likely ones are people (Seo et al., UAI 2023).

    Components are numbered level by level, finest first, row by row. Equal scores keep that order. Only the first
    `pre_nms` candidates in order of score enter NMS. A decoder holds no state between calls: threads may share it.
    """

    def __init__(self, spec: ModelSpec, options: DecodeSpec) -> None:
        constants = constants_of(spec)
        check_heads(spec, head_specs(constants.levels, len(spec.keypoints.names)))
        self._spec = spec
        self._options = options
        self._merges = options.nms == "merge"
        least = min(options.score_threshold, MERGED_FROM) if self._merges else options.score_threshold
        self._cut = logit_cut(least)
        self._num_keypoints = len(spec.keypoints.names)
        self._sigmas = np.asarray(spec.keypoints.sigmas)
        self._input_wh = np.array([spec.input.width, spec.input.height], np.float32)
        self._px_per_unit = (self._input_wh / constants.coordinate_extent).astype(np.float32)
        self._levels = _number_components(spec, constants.levels)
        self._centers = np.concatenate([_cell_centers(level) for level in self._levels], axis=1)
        self._factors = np.concatenate(
            [
                np.repeat(level.level.scale * self._px_per_unit[:, None], level.stop - level.start, axis=1)
                for level in self._levels
            ],
            axis=1,
        ).astype(np.float32)

    def __call__(self, heads: Mapping[str, NDArray[np.float32]], geometry: FrameGeometry, index: int = 0) -> Poses:
        """Decode one image of a batch: see `Decoder`."""
        candidates, scores = self._candidates(heads, index)
        if not len(candidates):
            return Poses.empty(self._num_keypoints)
        keypoints = self._keypoints(heads, index, candidates)
        kept = self._suppress(keypoints)
        if self._merges:
            scales = self._scales(heads, index, candidates, keypoints)
            return self._merged(keypoints, scales, scores, kept, geometry)
        keypoints = keypoints.take(kept, axis=2)
        scales = self._scales(heads, index, candidates[kept], keypoints)
        sigma = np.ascontiguousarray(geometry.lengths_to_frame(_by_pose(scales)))
        sigma *= LAPLACE_SIGMA
        return Poses(np.ascontiguousarray(geometry.to_frame(_by_pose(keypoints))), scores[kept], sigma)

    def _merged(
        self,
        keypoints: NDArray[np.float32],
        scales: NDArray[np.float32],
        scores: NDArray[np.float32],
        kept: NDArray[np.intp],
        geometry: FrameGeometry,
    ) -> Poses:
        """Merge all candidates, keypoints and scales (K, 2, n), into those that were kept; see merge.py."""
        poses = _by_pose(keypoints)
        owner = owners(poses, self._areas(keypoints), self._sigmas, kept, self._options.nms_threshold)
        variances = np.square(LAPLACE_SIGMA * _by_pose(scales))
        means, variances, sums = merged(poses, variances, scores, owner, len(kept))
        order = np.argsort(-sums, kind="stable")
        order = order[sums[order] > self._options.score_threshold]
        sigma = geometry.lengths_to_frame(np.sqrt(variances[order]))
        return Poses(np.ascontiguousarray(geometry.to_frame(means[order])), sums[order], np.ascontiguousarray(sigma))

    def mixture(self, heads: Heads, geometry: FrameGeometry, index: int = 0, like: Heads | None = None) -> PoseMixture:
        """Return all components of one image of a batch, whatever another artifact says: see `MixtureDecoder`."""
        everything = np.arange(self._levels[-1].stop)
        logits = self._logits(heads, index)
        keypoints = self._keypoints(heads, index, everything)
        scales = geometry.lengths_to_frame(_by_pose(self._scales(heads, index, everything, keypoints)))
        log_scores: NDArray[np.float64] = -np.logaddexp(0.0, -logits.astype(np.float64))
        return PoseMixture(log_scores, geometry.to_frame(_by_pose(keypoints)), scales)

    def _logits(self, heads: Mapping[str, NDArray[np.float32]], index: int) -> NDArray[np.float32]:
        logits = np.concatenate([self._raw(heads, "o", level, index)[0] for level in self._levels])
        if not usable(logits):
            self._refuse(logits, np.arange(len(logits)), "o")
        return logits

    def _candidates(
        self, heads: Mapping[str, NDArray[np.float32]], index: int
    ) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Return the components above the threshold and their scores, best first, at most `pre_nms`."""
        logits = self._logits(heads, index)
        candidates = np.flatnonzero(logits > self._cut)
        scores = sigmoid(logits.take(candidates))
        if len(candidates) > self._options.pre_nms:
            best = largest(scores, self._options.pre_nms)
            candidates, scores = candidates[best], scores[best]
        order = np.argsort(-scores, kind="stable")
        return candidates[order], scores[order]

    def _keypoints(
        self, heads: Mapping[str, NDArray[np.float32]], index: int, components: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Return the poses of components, (K, 2, n) in pixels of the network input."""
        keypoints = self._gather(heads, "mu", index, components)
        keypoints *= self._factors.take(components, axis=1)
        keypoints += self._centers.take(components, axis=1)
        return keypoints

    def _suppress(self, keypoints: NDArray[np.float32]) -> NDArray[np.intp]:
        """Run NMS over poses (K, 2, n) in order of score."""
        options = self._options
        if options.nms == "box":
            corners = np.concatenate(self._corners(keypoints)).T
            return box_nms(corners, options.nms_threshold, options.max_poses)
        areas = self._areas(keypoints)
        return oks_nms(_by_pose(keypoints), areas, self._sigmas, options.nms_threshold, options.max_poses)

    def _areas(self, keypoints: NDArray[np.float32]) -> NDArray[np.float32]:
        low, high = self._corners(keypoints)
        width, height = high - low
        areas: NDArray[np.float32] = width * height
        return areas

    def _corners(self, keypoints: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the corners (2, n) of the boxes around poses (K, 2, n).

        Overlap is judged inside the network input, as in the authors' code, which clips to its first and last pixel.
        """
        last_pixel = self._input_wh[:, None] - 1.0
        return np.clip(keypoints.min(axis=0), 0.0, last_pixel), np.clip(keypoints.max(axis=0), 0.0, last_pixel)

    def _scales(
        self,
        heads: Mapping[str, NDArray[np.float32]],
        index: int,
        components: NDArray[np.intp],
        keypoints: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Return the Laplace scales of components, (K, 2, n) in pixels of the network input."""
        scales = _softplus(self._gather(heads, "gamma", index, components))
        scales *= self._px_per_unit[:, None]
        floor = GAMMA_FLOOR * (keypoints.max(axis=0) - keypoints.min(axis=0))
        np.maximum(scales, floor, out=scales)
        return scales

    def _gather(
        self, heads: Mapping[str, NDArray[np.float32]], kind: str, index: int, components: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Take the raw values of components from all levels, (K, 2, n), and refuse what is not usable."""
        values = np.empty((2 * self._num_keypoints, len(components)), np.float32)
        for level in self._levels:
            raw = self._raw(heads, kind, level, index)
            here = np.flatnonzero((components >= level.start) & (components < level.stop))
            values[:, here] = raw.take(components[here] - level.start, axis=1)
        if not usable(values):
            self._refuse(values, components, kind)
        return values.reshape(self._num_keypoints, 2, -1)

    def _raw(
        self, heads: Mapping[str, NDArray[np.float32]], kind: str, level: _Level, index: int
    ) -> NDArray[np.float32]:
        return head_of(heads, self._spec, level.heads[kind], index)

    def _refuse(self, values: NDArray[np.float32], components: NDArray[np.intp], kind: str) -> None:
        """Raise the error of raw values (..., n) of components, not all of them usable."""
        values = values.reshape(-1, len(components))
        channel, position = np.argwhere(~(np.abs(values) <= LARGEST_RAW))[0]
        (level,) = (level for level in self._levels if level.start <= components[position] < level.stop)
        raise EngineError(
            expected=f"finite head tensors (magnitudes up to {LARGEST_RAW:g})",
            got=f"{values[channel, position]} in {level.heads[kind].name}",
            do="export it again with --precision fp32",
        )


make_decoder = MDPoseDecoder
"""What the registry asks of a family's decode.py: (spec, options) to a decoder."""


def _number_components(spec: ModelSpec, levels: Sequence[Level]) -> tuple[_Level, ...]:
    numbered, start = [], 0
    for level in levels:
        rows, columns = spec.cells(level.stride)
        (o, mu, gamma) = head_specs([level], len(spec.keypoints.names))
        heads = {"o": o, "mu": mu, "gamma": gamma}
        numbered.append(_Level(level, heads, (rows, columns), start, start + rows * columns))
        start += rows * columns
    return tuple(numbered)


def _cell_centers(level: _Level) -> NDArray[np.float32]:
    """Return the centres of a level's cells, (2, cells) in pixels of the network input."""
    rows, columns = np.indices(level.shape, np.float32).reshape(2, -1)
    return (np.stack([columns, rows]) + np.float32(0.5)) * np.float32(level.level.stride)


def _by_pose(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """View (K, 2, n) as (n, K, 2); arithmetic on the view keeps the memory order, in which it is ten times as fast."""
    return values.transpose(2, 0, 1)


def _softplus(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute log(1 + exp(x)) without overflow, in one array: fresh memory costs as much as the arithmetic."""
    result: NDArray[np.float32] = -np.abs(x)
    np.exp(result, out=result)
    np.log1p(result, out=result)
    result += np.maximum(x, np.float32(0.0))
    return result
