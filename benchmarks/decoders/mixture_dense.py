"""Mixture dense regression at 512 px (128 x 128 cells), beside the same in plain loops.

30 people and 100, with and without refinement by heat maps, and the many weak peaks of an evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.decoders.case import Case
from mdpose_edge.families.mixture_dense.decode import EVALUATION
from mdpose_edge.families.mixture_dense.heads import HEAT_REACH, HEAT_THRESHOLD, STRIDE, Constants, mixture_dense_spec
from mdpose_edge.families.registry import make_decoder
from mdpose_edge.preprocess import frame_geometry
from mdpose_edge.spec import DecodeSpec, InputSpec, ModelSpec

SIZE = 512
FRAME_WH = (1280, 720)
COMPONENTS = 3
BLOB = 2.0
"""Cells: the spread of a peak, of a centre as of a keypoint; some twenty cells pass the threshold around each."""
PEAK, EMPTY = 3.0, -6.0
Heads = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Scenario:
    """So many people, with or without heat maps."""

    people: int
    heatmaps: bool
    options: DecodeSpec
    target_ms: float

    @property
    def name(self) -> str:
        """Say it in words."""
        kind = "refined" if self.heatmaps else "plain"
        return f"{self.people} people, {kind}, threshold {self.options.score_threshold:g}"


USE = DecodeSpec(nms_threshold=1.0)
SCENARIOS = (
    Scenario(30, False, USE, 1.0),
    Scenario(30, True, USE, 1.0),
    Scenario(100, False, USE, 2.0),
    Scenario(100, True, USE, 2.0),
    Scenario(100, True, replace(EVALUATION, max_poses=100), 2.0),
)


def make_heads(spec: ModelSpec, people: int, seed: int = 0) -> Heads:
    """Draw head tensors of so many people: a blob at each centre and, where there are heat maps, at each keypoint."""
    rng = np.random.default_rng(seed)
    heads = {head.name: rng.normal(0.0, 0.5, (1, *spec.head_shape(head))).astype(np.float32) for head in spec.heads}
    rows, columns = spec.cells(STRIDE)
    side = math.ceil(math.sqrt(people))
    for name in {"centre", "heat"} & heads.keys():
        heads[name] += EMPTY - 2.0
    for person in range(people):
        row, column = (int((index + 0.5) / side * rows) for index in divmod(person, side))
        _blob(heads["centre"][0, 0], row, column)
        heads["size"][0, :, row, column] = (12.0, 30.0)
        mu = rng.uniform((-6, -15), (6, 15), (17, 2))
        for number in range(1, COMPONENTS + 1):
            heads[f"mu_{number}"][0, :, row, column] = mu.ravel() + rng.normal(0.0, 0.5, 34)
        if "heat" in heads:
            ends = np.clip(mu + np.array([column, row]), 0, (columns - 1, rows - 1)).astype(int)
            for k, (x, y) in enumerate(ends.tolist()):
                _blob(heads["heat"][0, k], y, x)
    return heads


def _blob(logits: NDArray[np.float32], row: int, column: int) -> None:
    rows, columns = np.indices(logits.shape)
    near = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * BLOB**2))
    np.maximum(logits, EMPTY + (PEAK - EMPTY) * near, out=logits)


def loop_decode(spec: ModelSpec, heads: Heads, options: DecodeSpec) -> list[list[tuple[float, float]]]:
    """Decode keypoints in plain loops, px of the network input, best person first."""
    centre = heads["centre"][0, 0].tolist()
    peaks = loop_peaks(centre, math.log(options.score_threshold / (1 - options.score_threshold)))
    heat = {k: loop_peaks(heads["heat"][0, k].tolist(), math.log(HEAT_THRESHOLD / (1 - HEAT_THRESHOLD)))
            for k in range(17)} if spec.constants["heatmaps"] else {}  # fmt: skip
    people = []
    for _, row, column in sorted(peaks, key=lambda peak: -peak[0])[: options.max_poses]:
        alpha = heads["alpha"][0, :, row, column].tolist()
        mu = heads[f"mu_{alpha.index(max(alpha)) + 1}"][0, :, row, column].tolist()
        offset, size = heads["offset"][0, :, row, column].tolist(), heads["size"][0, :, row, column].tolist()
        low = [column + 0.5 + offset[0] - size[0] / 2, row + 0.5 + offset[1] - size[1] / 2]
        pose = [(column + 0.5 + mu[2 * k], row + 0.5 + mu[2 * k + 1]) for k in range(17)]
        for k, found in heat.items():
            points = [
                (c + 0.5 + float(heads["heat_offset"][0, 0, r, c]), r + 0.5 + float(heads["heat_offset"][0, 1, r, c]))
                for _, r, c in found
            ]
            point = min(points, key=lambda one, at=pose[k]: math.dist(one, at))  # type: ignore[misc]
            inside = all(low[d] <= point[d] <= low[d] + size[d] for d in (0, 1))
            if inside and math.dist(point, pose[k]) <= HEAT_REACH * max(size):
                pose[k] = point
        people.append([(STRIDE * x, STRIDE * y) for x, y in pose])
    return people


def loop_peaks(logits: list[list[float]], cut: float) -> list[tuple[float, int, int]]:
    """Return the height, row and column of each peak above a cut; of a plateau its first cell."""
    rows, columns, found = len(logits), len(logits[0]), []
    for row in range(rows):
        for column in range(columns):
            value = logits[row][column]
            if value > cut and all(
                logits[r][c] < value or (logits[r][c] == value and (r, c) >= (row, column))
                for r in range(max(0, row - 1), min(rows, row + 2))
                for c in range(max(0, column - 1), min(columns, column + 2))
            ):
                found.append((value, row, column))
    return found


def cases() -> Iterator[Case]:
    """Draw every scenario, and see that the plain loops find the same."""
    for scenario in SCENARIOS:
        spec = mixture_dense_spec(InputSpec(SIZE, SIZE), Constants(COMPONENTS, 1.0, scenario.heatmaps))
        heads = make_heads(spec, scenario.people)
        decoder, geometry = make_decoder(spec, scenario.options), frame_geometry(FRAME_WH, spec.input)
        found = decoder(heads, frame_geometry((SIZE, SIZE), spec.input))
        looped = np.array(loop_decode(spec, heads, scenario.options))
        if np.abs(found.keypoints_xy - looped).max() > 1e-3:
            raise RuntimeError("the decoder and the plain loops find different keypoints")
        yield Case(
            scenario.name,
            len(found),
            scenario.target_ms,
            lambda decoder=decoder, heads=heads, geometry=geometry: decoder(heads, geometry),
            {"loops": lambda spec=spec, heads=heads, options=scenario.options: loop_decode(spec, heads, options)},
        )
