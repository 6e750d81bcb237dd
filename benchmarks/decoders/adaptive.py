"""Adaptive keypoints at 512 px (128 x 128 cells), beside the same in plain loops.

30 people and 100, with and without the scoring net, and the low threshold of an evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.decoders.case import Case
from benchmarks.decoders.mixture_dense import loop_peaks
from mdpose_edge.families.adaptive.decode import EVALUATION
from mdpose_edge.families.adaptive.heads import CENTRE_THRESHOLD, NEAR, STRIDE, USE, adaptive_spec, first_constants
from mdpose_edge.families.adaptive.scorer import HIDDEN, layout_of, num_features
from mdpose_edge.families.registry import make_decoder
from mdpose_edge.preprocess import frame_geometry
from mdpose_edge.spec import COCO_KEYPOINTS, DecodeSpec, InputSpec, ModelSpec

SIZE = 512
FRAME_WH = (1280, 720)
KEYPOINTS = 17
HEAT_SIGMA, CENTRE_SIGMA = 2.0, 3.0
"""Cells: of the blobs around keypoints and centres."""
NOISE = 0.01
"""Standard deviation of a map where nobody is."""
Heads = dict[str, NDArray[np.float32]]
Pose = list[tuple[float, float]]


@dataclass(frozen=True)
class Scenario:
    """So many people, with or without the scoring net."""

    people: int
    scorer: bool
    options: DecodeSpec
    target_ms: float

    @property
    def name(self) -> str:
        """Say it in words."""
        kind = "scored" if self.scorer else "plain"
        return f"{self.people} people, {kind}, threshold {self.options.score_threshold:g}"


SCENARIOS = (
    Scenario(30, False, USE, 1.0),
    Scenario(30, True, USE, 1.0),
    Scenario(100, False, USE, 2.0),
    Scenario(100, True, USE, 2.0),
    Scenario(100, True, replace(EVALUATION, pre_nms=200, max_poses=100), 2.0),
)


def make_heads(spec: ModelSpec, people: int, seed: int = 0) -> Heads:
    """Draw head tensors of so many people: a blob at each centre and keypoint, and offsets that nearly meet them."""
    rng = np.random.default_rng(seed)
    heads = {head.name: rng.normal(0.0, NOISE, (1, *spec.head_shape(head))).astype(np.float32) for head in spec.heads}
    rows, _ = spec.cells(STRIDE)
    side = math.ceil(math.sqrt(people))
    for person in range(people):
        row, column = (int((index + 0.5) / side * rows) for index in divmod(person, side))
        _blob(heads["centre"][0, 0], row + 0.5, column + 0.5, CENTRE_SIGMA)
        offset = rng.uniform((-6, -15), (6, 15), (KEYPOINTS, 2))
        heads["offset"][0, :, row, column] = (offset + rng.normal(0.0, 0.5, offset.shape)).ravel()
        for k, (x, y) in enumerate(offset + np.array([column + 0.5, row + 0.5])):
            _blob(heads["heat"][0, k], y, x, HEAT_SIGMA)
    return heads


def _blob(heat: NDArray[np.float32], y: float, x: float, sigma: float) -> None:
    rows, columns = np.indices(heat.shape) + 0.5
    np.maximum(heat, np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2)) * 0.9, out=heat)


def loop_decode(spec: ModelSpec, heads: Heads, options: DecodeSpec) -> list[Pose]:
    """Decode keypoints in plain loops, px of the network input, the best centre first; scores are not compared."""
    centre, offsets = heads["centre"][0, 0].tolist(), heads["offset"][0]
    maps = [one.tolist() for one in heads["heat"][0]]
    peaks = loop_peaks(centre, float(np.float32(max(CENTRE_THRESHOLD, options.score_threshold))))
    people: list[tuple[float, float, Pose]] = []
    for height, row, column in sorted(peaks, key=lambda peak: -peak[0])[: options.pre_nms]:
        values = offsets[:, row, column].tolist()
        pose = [(column + 0.5 + values[2 * k], row + 0.5 + values[2 * k + 1]) for k in range(KEYPOINTS)]
        mean = sum(_read(maps[k], x - 0.5, y - 0.5) for k, (x, y) in enumerate(pose)) / KEYPOINTS
        people.append((height, height * mean, pose))
    kept: list[tuple[float, float, Pose]] = []
    for person in sorted(people, key=lambda one: -one[1]):
        if not any(_shared(person[2], better[2]) > KEYPOINTS // 2 for better in kept):
            kept.append(person)
    found = [loop_peaks(one, float(np.float32(spec.constants["heat_threshold"]))) for one in maps]
    result = []
    for _, _, pose in (one for one in people if one in kept):
        reach = spec.constants["reach_of_pose"] * _diagonal(pose)
        reach = min(spec.constants["reach"] * SIZE / STRIDE, reach)
        moved = [_absorb(maps[k], found[k], point, reach) for k, point in enumerate(pose)]
        result.append([(STRIDE * x, STRIDE * y) for x, y in moved])
    return result


def _absorb(
    heat: list[list[float]], peaks: list[tuple[float, int, int]], point: tuple[float, float], reach: float
) -> tuple[float, float]:
    if not peaks:
        return point
    _, row, column = min(peaks, key=lambda peak: math.dist((peak[2] + 0.5, peak[1] + 0.5), point))
    if math.dist((column + 0.5, row + 0.5), point) > reach:
        return point
    return column + 0.5 + _step(heat, row, column, 0, 1), row + 0.5 + _step(heat, row, column, 1, 0)


def _step(heat: list[list[float]], row: int, column: int, down: int, right: int) -> float:
    if not (down <= row < len(heat) - down and right <= column < len(heat[0]) - right):
        return 0.0
    before, here, after = (math.log(max(heat[row + side * down][column + side * right], 1e-6)) for side in (-1, 0, 1))
    curvature = before + after - 2 * here
    return min(0.5, max(-0.5, (before - after) / (2 * curvature))) if curvature < 0 else 0.0


def _read(heat: list[list[float]], x: float, y: float) -> float:
    x, y = min(max(x, 0.0), len(heat[0]) - 1.0), min(max(y, 0.0), len(heat) - 1.0)
    return sum(
        heat[row][column] * max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row))
        for row in range(int(y), min(len(heat), int(y) + 2))
        for column in range(int(x), min(len(heat[0]), int(x) + 2))
    )


def _shared(pose: Pose, better: Pose) -> int:
    near = NEAR * _diagonal(better)
    return sum(math.dist(a, b) < near for a, b in zip(pose, better, strict=True))


def _diagonal(pose: Pose) -> float:
    xs, ys = zip(*pose, strict=True)
    return math.hypot(max(xs) - min(xs), max(ys) - min(ys))


def cases() -> Iterator[Case]:
    """Draw every scenario, and see that the plain loops find the same."""
    for scenario in SCENARIOS:
        layout = layout_of(COCO_KEYPOINTS)
        constants = replace(first_constants(), scorer=layout if scenario.scorer else None)
        spec = adaptive_spec(InputSpec(SIZE, SIZE), constants=constants)
        heads, net = make_heads(spec, scenario.people), _random_net(num_features(layout, KEYPOINTS))
        decoder, geometry = make_decoder(spec, scenario.options, net), frame_geometry(FRAME_WH, spec.input)
        grouped = decoder.group(heads)  # type: ignore[attr-defined]
        looped = np.array(loop_decode(spec, heads, scenario.options))
        if grouped.keypoints_xy.shape != looped.shape or np.abs(grouped.keypoints_xy - looped).max() > 2e-2:
            raise RuntimeError("the decoder and the plain loops find different keypoints")
        yield Case(
            scenario.name,
            len(decoder(heads, geometry)),
            scenario.target_ms,
            lambda decoder=decoder, heads=heads, geometry=geometry: decoder(heads, geometry),
            {"loops": lambda spec=spec, heads=heads, options=scenario.options: loop_decode(spec, heads, options)},
        )


def _random_net(width: int) -> dict[str, dict[str, NDArray[np.float32]]]:
    rng = np.random.default_rng(0)
    net = {}
    for name, (inputs, outputs) in {"l1": (width, HIDDEN), "l2": (HIDDEN, HIDDEN), "l3": (HIDDEN, 1)}.items():
        net[f"{name}.weight"] = rng.normal(0.0, 0.01, (outputs, inputs)).astype(np.float32)
        net[f"{name}.bias"] = np.full(outputs, 0.8 if name == "l3" else 0.0, np.float32)
    return {"scorer": net}
