"""MDPose at 736 px (11,109 components), and its NMS beside the plain way to write it.

Few people in front of a camera, a crowd, and the many weak candidates of an evaluation at threshold 1e-4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.decoders.case import Case
from mdpose_edge.families.mdpose.heads import Level, constants_of, mdpose_spec
from mdpose_edge.families.nms import box_nms
from mdpose_edge.families.registry import make_decoder
from mdpose_edge.preprocess import frame_geometry
from mdpose_edge.spec import DecodeSpec, InputSpec, ModelSpec

SIZE = 736
FRAME_WH = (1280, 720)
EMPTY_LOGIT = -10.0
"""The highest of a cell where nobody is."""
Heads = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Scenario:
    """So many people, each seen by so many neighbouring cells."""

    name: str
    people: int
    copies: int
    height_px: tuple[float, float]
    """Smallest and largest person, in pixels of the network input."""
    jitter: float
    """Standard deviation of a copy's keypoints, as a part of the person's height."""
    options: DecodeSpec
    target_ms: float


SCENARIOS = (
    Scenario("40 survivors: 5 people x 8", 5, 8, (150, 500), 0.02, DecodeSpec(), 0.3),
    Scenario("700 survivors: 100 people x 7", 100, 7, (60, 180), 0.02, DecodeSpec(), 1.2),
    Scenario(
        "1000 survivors, spread, all kept to the last", 1000, 1, (20, 400), 0.0,
        DecodeSpec(score_threshold=1e-4, max_poses=1000), 1.4,
    ),
    Scenario("1000 survivors, spread, max_poses 100", 1000, 1, (20, 400), 0.0, DecodeSpec(score_threshold=1e-4), 1.4),
    Scenario(
        "1000 survivors: 1 person filling the frame", 1, 1000, (700, 700), 0.02,
        DecodeSpec(score_threshold=1e-4, max_poses=1000), 1.4,
    ),
)  # fmt: skip


def make_spec() -> ModelSpec:
    """Describe DLA-34's head at the paper's size."""
    return mdpose_spec(InputSpec(SIZE, SIZE))


def make_heads(spec: ModelSpec, scenario: Scenario, seed: int = 0) -> Heads:
    """Draw head tensors in which exactly people x copies components pass the threshold."""
    rng = np.random.default_rng(seed)
    heads: Heads = {}
    for level in constants_of(spec).levels:
        shape = spec.cells(level.stride)
        empty = rng.normal(-12.0, 0.5, (1, 1, *shape)).astype(np.float32)
        heads[f"o_{level.name}"] = empty.clip(-14.0, EMPTY_LOGIT)
        heads[f"mu_{level.name}"] = rng.normal(0.0, 1.0, (1, 34, *shape)).astype(np.float32)
        heads[f"gamma_{level.name}"] = rng.normal(-2.0, 1.0, (1, 34, *shape)).astype(np.float32)
    taken: set[tuple[str, int]] = set()
    for _ in range(scenario.people):
        low, high = scenario.height_px
        height = low * (high / low) ** rng.random()
        pose = rng.random((17, 2)) * (0.4 * height, height) - (0.2 * height, 0.5 * height)
        pose += rng.uniform(0.1, 0.9, 2) * spec.input.width
        logit = rng.uniform(1.0, 4.0) if scenario.copies < 100 else 2.0
        for _ in range(scenario.copies):
            place(heads, spec, taken, pose + rng.normal(0.0, scenario.jitter * height, pose.shape), height, logit, rng)
            logit -= rng.uniform(0.0, 0.2) if scenario.copies < 100 else 0.005
    return heads


def place(
    heads: Heads,
    spec: ModelSpec,
    taken: set[tuple[str, int]],
    pose: NDArray[np.float64],
    height: float,
    logit: float,
    rng: np.random.Generator,
) -> None:
    """Write a pose (17, 2), px, into the nearest free cell of the level that suits its height."""
    level = constants_of(spec).levels[min(2, max(0, int(np.log2(height / 64))))]
    reach = 0.0
    while True:
        cell = ((pose.mean(axis=0) + rng.normal(0.0, reach, 2)) / level.stride).astype(int)
        rows, columns = spec.cells(level.stride)
        column, row = np.clip(cell, 0, (columns - 1, rows - 1))
        if (level.name, row * columns + column) not in taken:
            break
        reach += 0.5 * level.stride
        if reach > spec.input.width:  # the level is full
            level, reach = finer(spec, level), 0.0
    taken.add((level.name, row * columns + column))
    center = (np.array([column, row]) + 0.5) * level.stride
    raw = (pose - center) / spec.input.width * constants_of(spec).coordinate_extent / level.scale
    heads[f"o_{level.name}"][0, 0, row, column] = logit
    heads[f"mu_{level.name}"][0, :, row, column] = raw.ravel()


def finer(spec: ModelSpec, level: Level) -> Level:
    """Give the next finer level."""
    levels = constants_of(spec).levels
    return levels[levels.index(level) - 1]


def dense_nms(boxes_xyxy: NDArray[np.floating], iou_threshold: float, max_keep: int) -> NDArray[np.intp]:
    """Do what `box_nms` does in the plain way: all IoUs, then one pass over the rows."""
    x1, y1, x2, y2 = boxes_xyxy.T
    areas = (x2 - x1) * (y2 - y1)
    width = np.minimum(x2[:, None], x2) - np.maximum(x1[:, None], x1)
    height = np.minimum(y2[:, None], y2) - np.maximum(y1[:, None], y1)
    intersection = width.clip(0.0) * height.clip(0.0)
    over = intersection > iou_threshold * (areas[:, None] + areas - intersection)
    free = np.ones(len(areas), bool)
    kept = []
    for i in range(len(areas)):
        if free[i]:
            kept.append(i)
            free &= ~over[i]
    return np.array(kept[:max_keep], np.intp)


def all_candidate_boxes(spec: ModelSpec, heads: Heads, options: DecodeSpec) -> NDArray[np.float32]:
    """Give the boxes (N, 4) of all candidates, best first: what remains where nothing overlaps enough."""
    keep_all = dataclasses.replace(options, nms_threshold=1.0, max_poses=options.pre_nms)
    geometry = frame_geometry((SIZE, SIZE), spec.input)
    return make_decoder(spec, keep_all)(heads, geometry).boxes_xyxy.clip(0, SIZE - 1)


def cases() -> Iterator[Case]:
    """Draw every scenario, and see that both NMS keep the same boxes."""
    spec = make_spec()
    for scenario in SCENARIOS:
        heads, decoder = make_heads(spec, scenario), make_decoder(spec, scenario.options)
        geometry = frame_geometry(FRAME_WH, spec.input)
        boxes = all_candidate_boxes(spec, heads, scenario.options)
        overlap = (scenario.options.nms_threshold, scenario.options.max_poses)
        if not np.array_equal(box_nms(boxes, *overlap), dense_nms(boxes, *overlap)):
            raise RuntimeError("the two NMS keep different boxes")
        yield Case(
            scenario.name,
            len(decoder(heads, geometry)),
            scenario.target_ms,
            lambda decoder=decoder, heads=heads, geometry=geometry: decoder(heads, geometry),
            {
                "NMS": lambda boxes=boxes, overlap=overlap: box_nms(boxes, *overlap),
                "dense NMS": lambda boxes=boxes, overlap=overlap: dense_nms(boxes, *overlap),
            },
        )
