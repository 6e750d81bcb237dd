"""Head tensors of adaptive keypoints become poses.

A peak of the centre map is a person, whom the offsets there give a whole pose; each keypoint of it is then moved to the
nearest peak of its own heat map, if one is near. So heat maps say where keypoints are, and offsets whose they are. Work
is done at peaks above the thresholds only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.side_files import SideFiles
from mdpose_edge.errors import EngineError
from mdpose_edge.families.adaptive.heads import (
    CENTRE_THRESHOLD,
    HEAT_PEAKS,
    NEAR,
    PEAK,
    REGRESSED,
    STRIDE,
    constants_of,
    head_specs,
)
from mdpose_edge.families.adaptive.scorer import scorer_of
from mdpose_edge.families.base import Heads, check_heads, head_of
from mdpose_edge.families.heat_sigma import sigma_of, sizes_of
from mdpose_edge.families.mixture import Law
from mdpose_edge.families.nms import box_nms, oks_nms
from mdpose_edge.families.peaks import best, by_map, find_peaks, nearest
from mdpose_edge.families.scores import LARGEST_RAW, usable
from mdpose_edge.geometry import FrameGeometry
from mdpose_edge.poses import Poses
from mdpose_edge.spec import DecodeSpec, HeadSpec, ModelSpec

EVALUATION = DecodeSpec(score_threshold=1e-3, nms_threshold=1.0, pre_nms=30, max_poses=20)
"""The authors' 30 centres; AP integrates over all scores, and COCO's protocol counts the best 20 of an image."""
LAW: Law = "laplace"
"""See `heat_sigma.fit`."""
SIDE_FILES = ("scorer",)
"""What `make_decoder` reads beside the spec."""
PX = np.float32(STRIDE)
SMALLEST_HEAT = np.float32(1e-6)
"""Under a logarithm."""


@dataclass(frozen=True)
class Grouped:
    """N people, best centre first, near duplicates suppressed; in pixels of the network input."""

    cells: NDArray[np.intp]
    """(N,): flat, of the centre."""
    centre: NDArray[np.float32]
    """(N,): height of the centre map there, in [0, 1]."""
    regressed_xy: NDArray[np.float32]
    """(N, K, 2): what the offsets say."""
    keypoints_xy: NDArray[np.float32]
    """(N, K, 2): the peaks that absorbed it, where one did."""
    absorbed: NDArray[np.bool_]
    """(N, K)"""
    heat: NDArray[np.float32]
    """(N, K): of the peak, or read at the regressed keypoint; in [0, 1]."""

    def take(self, chosen: NDArray[np.intp]) -> Grouped:
        """Return some of the people, in another order."""
        return Grouped(**{name: values[chosen] for name, values in vars(self).items()})


class AdaptiveDecoder:
    """Decoder of adaptive keypoints (Geng et al., CVPR 2021, "DEKR", and its journal article).

    Equal scores keep the order of the cells, row by row. At most `pre_nms` peaks of the centre map are read. A decoder
    holds no state between calls: threads may share it.
    """

    def __init__(self, spec: ModelSpec, options: DecodeSpec, side: SideFiles | None = None) -> None:
        constants, count = constants_of(spec), len(spec.keypoints.names)
        check_heads(spec, head_specs(count))
        self._spec, self._options, self._constants, self._num_keypoints = spec, options, constants, count
        self._heads: Mapping[str, HeadSpec] = {head.name: head for head in spec.heads}
        self._scorer = scorer_of(constants.scorer, side, count)
        self._rows, self._columns = spec.cells(STRIDE)
        self._origin = np.float32(constants.cell_origin)
        self._reach = np.float32(constants.reach * min(spec.input.height, spec.input.width))
        # No score is above that of the centre: heat and predicted OKS, in [0, 1], only lower it.
        self._cut = np.float32(max(CENTRE_THRESHOLD, options.score_threshold))

    def __call__(self, heads: Heads, geometry: FrameGeometry, index: int = 0) -> Poses:
        """Decode one image of a batch: see `Decoder`."""
        people = self.group(heads, index)
        scores = self.scores(people)
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] > np.float32(self._options.score_threshold)]
        kept = self._suppress(people.keypoints_xy[order])
        people, scores = people.take(order[kept]), scores[order[kept]]
        return Poses(geometry.to_frame(people.keypoints_xy), scores, geometry.lengths_to_frame(self._sigma(people)))

    def group(self, heads: Heads, index: int = 0) -> Grouped:
        """Return the people of one image of a batch, before scores are compared with a threshold.

        Raises:
            EngineError: as for decoding.
        """
        heat = self._read(heads, "heat", index)
        cells, centre, regressed = self._regressed(heads, index)
        values = self._heat_at(heat, regressed)
        order = np.argsort(-centre * values.mean(axis=1), kind="stable")
        kept = np.sort(order[_distinct(regressed[order])])
        cells, centre, regressed, values = cells[kept], centre[kept], regressed[kept], values[kept]
        found, absorbed, peak = self._absorbed(heat, regressed)
        return Grouped(
            cells,
            centre,
            regressed,
            np.where(absorbed[..., None], found, regressed),
            absorbed,
            np.clip(np.where(absorbed, peak, values), 0.0, 1.0),
        )

    def scores(self, people: Grouped) -> NDArray[np.float32]:
        """Return the scores (N,) in [0, 1]: of the centre, times the mean heat, times the predicted OKS."""
        scores: NDArray[np.float32] = people.centre * people.heat.mean(axis=1)
        if self._scorer is not None:
            scores = scores * np.clip(self._scorer(people.keypoints_xy, people.heat), 0.0, 1.0)
        return scores.astype(np.float32, copy=False)

    def _regressed(self, heads: Heads, index: int) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]:
        """Return cells, heights and regressed keypoints (N, K, 2) px of the centre map's peaks, best first."""
        centre = self._read(heads, "centre", index)
        peaks = best(find_peaks(centre.reshape(1, self._rows, self._columns), self._cut), self._options.pre_nms)
        offset = head_of(heads, self._spec, self._heads["offset"], index).take(peaks.cells, axis=1)
        self._check(offset, "offset")
        pose = offset.reshape(self._num_keypoints, 2, -1).transpose(2, 0, 1) + self._places(peaks.cells)[:, None]
        return peaks.cells, np.minimum(peaks.logits, np.float32(1.0)), pose * PX

    def _absorbed(
        self, heat: NDArray[np.float32], regressed: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]:
        """Return the nearest peak of each keypoint (N, K, 2) px, whether it is near enough, and its height (N, K)."""
        maps = heat.reshape(-1, self._rows, self._columns)
        peaks = find_peaks(maps, np.float32(self._constants.heat_threshold))
        table = by_map(peaks, self._places(peaks.cells).T, self._num_keypoints, HEAT_PEAKS)
        found, distance = nearest(np.ascontiguousarray(regressed.transpose(2, 1, 0)) / PX, table)
        diagonal = _diagonals(regressed)
        reach = np.minimum(self._reach, np.float32(self._constants.reach_of_pose) * diagonal)
        near = distance * PX <= reach
        there = np.where(near, found - self._origin, 0.0)
        column, row = (np.rint(axis).astype(np.intp) for axis in there)
        flat = np.arange(self._num_keypoints)[:, None] * (self._rows * self._columns) + row * self._columns + column
        step = self._subpixel(heat.reshape(-1), flat, row, column)
        point = (np.stack([column, row]) + self._origin + step) * PX
        return point.transpose(2, 1, 0).astype(np.float32), near.T, heat.reshape(-1).take(flat).T

    def _subpixel(
        self, heat: NDArray[np.float32], flat: NDArray[np.intp], row: NDArray[np.intp], column: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Return how far from a cell its peak is, (2, ...), in cells: Newton's step on the logarithm, half at most.

        It is exact for a Gaussian. There is no step along an axis where the map ends or is not a peak.
        """
        sides = np.array([0, -1, 1, -self._columns, self._columns]).reshape(-1, *[1] * flat.ndim)
        read = np.log(np.maximum(heat.take(flat + sides, mode="clip"), SMALLEST_HEAT))
        before, after = read[1::2], read[2::2]
        curvature = before + after - 2 * read[0]
        inside = np.stack([(column > 0) & (column < self._columns - 1), (row > 0) & (row < self._rows - 1)])
        inside &= curvature < 0
        step = (before - after) / np.where(inside, 2 * curvature, np.float32(-1.0))
        return np.where(inside, np.clip(step, -0.5, 0.5), np.float32(0.0))

    def _heat_at(self, heat: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Read each keypoint's map at points (N, K, 2) px, between cells linearly, beyond the last ones as there."""
        limits = np.array([self._columns - 1, self._rows - 1], np.float32)
        place = np.clip(points / PX - self._origin, 0.0, limits)
        low = np.minimum(place.astype(np.intp), np.maximum(limits.astype(np.intp) - 1, 0))
        part = place - low
        flat = np.arange(self._num_keypoints) * (self._rows * self._columns) + low[..., 1] * self._columns + low[..., 0]
        values, (x, y) = heat.reshape(-1), (part[..., 0], part[..., 1])
        down = self._columns if self._rows > 1 else 0
        right = 1 if self._columns > 1 else 0
        top = values.take(flat) * (1 - x) + values.take(flat + right) * x
        bottom = values.take(flat + down) * (1 - x) + values.take(flat + down + right) * x
        read: NDArray[np.float32] = top * (1 - y) + bottom * y
        return read

    def _sigma(self, people: Grouped) -> NDArray[np.float32]:
        kinds = np.where(people.absorbed, PEAK, REGRESSED)
        sigma = sigma_of(self._constants.sigma, sizes_of(people.keypoints_xy), people.heat, kinds)
        return np.repeat(sigma[..., None], 2, axis=2)

    def _suppress(self, keypoints: NDArray[np.float32]) -> NDArray[np.intp]:
        """Say which people, best first, remain; the family's own suppression is done."""
        options = self._options
        if options.nms_threshold >= 1 or not len(keypoints):
            return np.arange(min(len(keypoints), options.max_poses))
        low, high = keypoints.min(axis=1), keypoints.max(axis=1)
        if options.nms == "box":
            return box_nms(np.concatenate([low, high], axis=1), options.nms_threshold, options.max_poses)
        areas = (high - low).prod(axis=1)
        sigmas = np.asarray(self._spec.keypoints.sigmas)
        return oks_nms(keypoints, areas, sigmas, options.nms_threshold, options.max_poses)

    def _places(self, cells: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return where the values of flat cells lie, (N, 2) in cells."""
        row, column = np.divmod(cells, self._columns)
        return np.stack([column, row], axis=1).astype(np.float32) + self._origin

    def _read(self, heads: Heads, name: str, index: int) -> NDArray[np.float32]:
        values = head_of(heads, self._spec, self._heads[name], index)
        self._check(values, name)
        return values

    def _check(self, values: NDArray[np.float32], name: str) -> None:
        """Refuse raw values that are not usable.

        Raises:
            EngineError: one is not finite, or absurd.
        """
        if usable(values):
            return
        value = values[~(np.abs(values) <= LARGEST_RAW)][0]
        raise EngineError(
            expected=f"finite head tensors (magnitudes up to {LARGEST_RAW:g})",
            got=f"{value} in {name}",
            do="export it again with --precision fp32",
        )


make_decoder = AdaptiveDecoder
"""What the registry asks of a family's decode.py: (spec, options, side files) to a decoder."""


def _diagonals(poses: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the diagonals of the boxes around keypoints (N, K, 2)."""
    sides = poses.max(axis=1) - poses.min(axis=1)
    diagonals: NDArray[np.float32] = np.hypot(sides[:, 0], sides[:, 1])
    return diagonals


def _distinct(poses: NDArray[np.float32]) -> NDArray[np.intp]:
    """Say which poses (N, K, 2), best first, share more than half of their keypoints with no better one that is kept.

    Here greedily; in the authors' code a pose can fall to one that has fallen itself.
    """
    count, num_keypoints = poses.shape[:2]
    if count < 2:
        return np.arange(count)
    points = np.ascontiguousarray(poses.transpose(2, 1, 0))
    near = np.square(NEAR * _diagonals(poses))
    # More than half are shared only if one of any K - K // 2 is: few pairs have to be looked at further.
    probes = num_keypoints - num_keypoints // 2
    x, y = points[:, :probes]
    dx, dy = x[:, :, None] - x[:, None], y[:, :, None] - y[:, None]
    dx *= dx
    dy *= dy
    dx += dy
    better, worse = np.nonzero(np.triu((dx < near[:, None]).any(axis=0), 1))
    squared = np.square(points[:, :, better] - points[:, :, worse]).sum(axis=0)
    duplicate = (squared < near[better]).sum(axis=0) > num_keypoints // 2
    alive = np.ones(count, np.bool_)
    for first, second in zip(better[duplicate].tolist(), worse[duplicate].tolist(), strict=True):
        alive[second] &= not alive[first]
    return np.flatnonzero(alive)
