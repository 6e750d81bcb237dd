"""Single-stage 3-D pose at 512 px (5,440 cells of four levels), beside the same in plain loops.

20 people and 100, each with nine cells above the threshold, and the many weak cells of an evaluation; camera known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.decoders.case import Case
from mdpose_edge.camera import centred_camera
from mdpose_edge.families.das.decode import EVALUATION
from mdpose_edge.families.das.heads import Constants, das_spec, pyramid
from mdpose_edge.families.nms import box_nms
from mdpose_edge.families.registry import make_decoder
from mdpose_edge.preprocess import frame_geometry
from mdpose_edge.spec import DecodeSpec, InputSpec, ModelSpec

SIZE = 512
FRAME_WH = (1280, 720)
PEAK, EMPTY = 3.0, -6.0
Heads = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Scenario:
    """So many people."""

    people: int
    options: DecodeSpec
    target_ms: float

    @property
    def name(self) -> str:
        """Say it in words."""
        return f"{self.people} people, threshold {self.options.score_threshold:g}"


USE = DecodeSpec(score_threshold=0.2)
SCENARIOS = (
    Scenario(20, USE, 1.0),
    Scenario(100, USE, 3.0),
    Scenario(20, replace(EVALUATION, max_poses=100), 3.0),
)


def make_spec() -> ModelSpec:
    """Return the spec of the models that are measured."""
    input_spec = InputSpec(SIZE, SIZE)
    return das_spec(input_spec, Constants(pyramid(input_spec), (11, 12)))


def make_heads(spec: ModelSpec, people: int, seed: int = 0) -> Heads:
    """Draw head tensors of so many people, in turn on the three finest levels; nine cells speak for each."""
    rng = np.random.default_rng(seed)
    heads = {head.name: rng.normal(0.0, 0.1, (1, *spec.head_shape(head))).astype(np.float32) for head in spec.heads}
    side = math.ceil(math.sqrt(people))
    for name in heads:
        if name.startswith("o_"):
            heads[name] += EMPTY - 2.0
    for person in range(people):
        level = ("p3", "p4", "p5")[person % 3]
        rows, columns = heads[f"o_{level}"].shape[2:]
        place = zip(divmod(person, side), (rows, columns), strict=True)
        row, column = (int((index + 0.5) / side * size) for index, size in place)
        joints = rng.uniform(-3, 3, 34)
        for r in range(max(0, row - 1), min(rows, row + 2)):
            for c in range(max(0, column - 1), min(columns, column + 2)):
                heads[f"o_{level}"][0, 0, r, c] = PEAK
                heads[f"c_{level}"][0, 0, r, c] = PEAK - math.hypot(r - row, c - column)
                heads[f"uv_{level}"][0, :, r, c] += joints + np.tile([column - c, row - r], 17)
    return heads


def loop_decode(spec: ModelSpec, heads: Heads, options: DecodeSpec) -> list[list[tuple[float, float]]]:
    """Decode keypoints in plain loops, px of the network input, best person first; NMS is the package's."""
    found = []
    for level in spec.constants["levels"]:
        name, stride = level["name"], level["stride"]
        logits, centerness = heads[f"o_{name}"][0, 0].tolist(), heads[f"c_{name}"][0, 0].tolist()
        uv = heads[f"uv_{name}"][0]
        for row, values in enumerate(logits):
            for column, logit in enumerate(values):
                score = 1 / (1 + math.exp(-logit)) / (1 + math.exp(-centerness[row][column]))
                if score > options.score_threshold:
                    pose = [_loop_joint(uv[2 * k : 2 * k + 2], row, column, stride) for k in range(17)]
                    found.append((score, pose))
    found.sort(key=lambda one: -one[0])
    found = found[: options.pre_nms]
    boxes = [
        [min(x), min(y), max(x), max(y)]
        for x, y in (([min(max(p[d], 0.0), SIZE) for p in pose] for d in (0, 1)) for _, pose in found)
    ]
    kept = box_nms(np.array(boxes, np.float32), options.nms_threshold, options.max_poses)
    return [found[index][1] for index in kept]


def _loop_joint(uv: NDArray[np.float32], row: int, column: int, stride: int) -> tuple[float, float]:
    rows, columns = uv.shape[1:]
    u, v = uv[:, row, column].tolist()
    x, y = column + u, row + v
    left, top, more = math.floor(x), math.floor(y), [0.0, 0.0]
    for r in (top, top + 1):
        for c in (left, left + 1):
            if 0 <= r < rows and 0 <= c < columns:
                weight = (1 - abs(x - c)) * (1 - abs(y - r))
                more = [more[d] + weight * float(uv[d, r, c]) for d in (0, 1)]
    return stride * (x + 0.5 + more[0]), stride * (y + 0.5 + more[1])


def cases() -> Iterator[Case]:
    """Draw every scenario, and see that the plain loops find the same."""
    spec = make_spec()
    camera = centred_camera(1100.0, FRAME_WH)
    for scenario in SCENARIOS:
        heads = make_heads(spec, scenario.people)
        decoder = make_decoder(spec, scenario.options)
        geometry = replace(frame_geometry(FRAME_WH, spec.input), camera=camera)
        found = decoder(heads, frame_geometry((SIZE, SIZE), spec.input))
        looped = np.array(loop_decode(spec, heads, scenario.options))
        if looped.shape != found.keypoints_xy.shape or np.abs(found.keypoints_xy - looped).max() > 1e-2:
            raise RuntimeError("the decoder and the plain loops find different keypoints")
        yield Case(
            scenario.name,
            len(found),
            scenario.target_ms,
            lambda decoder=decoder, heads=heads, geometry=geometry: decoder(heads, geometry),
            {"loops": lambda spec=spec, heads=heads, options=scenario.options: loop_decode(spec, heads, options)},
        )
