"""Measure head tensors to Poses, beside the plain way to write the NMS.

    python benchmarks/decode.py --json decode.json

All runs in one thread: the processor's time, over all threads, is no more than that on the wall.

The scenarios are those of the project's targets, at 736 px (11,109 components): few people in front of a camera, a
crowd, and the many weak candidates of an evaluation at threshold 1e-4.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def time_ms(call: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Time single calls, after a tenth as many to warm up.

    Beside the time on the wall stands that of the processor: equal on an idle machine, and all that a shared one tells.
    """
    wall, cpu = np.empty(repeats), np.empty(repeats)
    for i in range(-(repeats // 10), repeats):
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        call()
        cpu[i], wall[i] = time.process_time() - cpu_start, time.perf_counter() - wall_start
    figures = {"median_ms": np.median(wall), "p90_ms": np.percentile(wall, 90), "cpu_median_ms": np.median(cpu)}
    return {name: round(float(seconds) * 1e3, 4) for name, seconds in figures.items()}


def all_candidate_boxes(spec: ModelSpec, heads: Heads, options: DecodeSpec) -> NDArray[np.float32]:
    """Give the boxes (N, 4) of all candidates, best first: what remains where nothing overlaps enough."""
    keep_all = dataclasses.replace(options, nms_threshold=1.0, max_poses=options.pre_nms)
    geometry = frame_geometry((SIZE, SIZE), spec.input)
    return make_decoder(spec, keep_all)(heads, geometry).boxes_xyxy.clip(0, SIZE - 1)


def measure(scenario: Scenario, repeats: int) -> dict[str, Any]:
    """Measure one scenario: head tensors to Poses, then this NMS and the plain one on the same boxes."""
    spec = make_spec()
    heads = make_heads(spec, scenario)
    geometry = frame_geometry(FRAME_WH, spec.input)
    decoder = make_decoder(spec, scenario.options)
    decode = time_ms(lambda: decoder(heads, geometry), repeats)

    boxes = all_candidate_boxes(spec, heads, scenario.options)
    overlap = (scenario.options.nms_threshold, scenario.options.max_poses)
    if not np.array_equal(box_nms(boxes, *overlap), dense_nms(boxes, *overlap)):
        raise RuntimeError("the two NMS keep different boxes")
    nms = time_ms(lambda: box_nms(boxes, *overlap), repeats)
    dense = time_ms(lambda: dense_nms(boxes, *overlap), max(20, repeats // 20))
    return {
        "scenario": scenario.name,
        "survivors": len(boxes),
        "kept": len(decoder(heads, geometry)),
        "target_ms": scenario.target_ms,
        "decode": decode,
        "nms": nms,
        "dense_nms": dense,
        "dense_over_ours": round(dense["cpu_median_ms"] / nms["cpu_median_ms"], 2),
    }


def main() -> None:
    """Measure every scenario, print a table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--repeats", type=int, default=1000)
    args = parser.parse_args()
    rows = [measure(scenario, args.repeats) for scenario in SCENARIOS]
    print(f"{'ms':46} {'kept':>5} {'median':>8} {'p90':>8} {'cpu':>8} {'target':>7} {'NMS':>7} {'dense':>7}")
    for row in rows:
        decode = row["decode"]
        print(
            f"{row['scenario']:46} {row['kept']:5d} {decode['median_ms']:8.3f} {decode['p90_ms']:8.3f} "
            f"{decode['cpu_median_ms']:8.3f} {row['target_ms']:7.1f} {row['nms']['cpu_median_ms']:7.3f} "
            f"{row['dense_nms']['cpu_median_ms']:7.3f}"
        )
    if args.json:
        report = {
            "machine": {
                "processor": processor(),
                "cores": 1,
                "load": os.getloadavg()[0],
                "python": platform.python_version(),
            },
            "numpy": np.__version__,
            "repeats": args.repeats,
            "scenarios": rows,
        }
        args.json.write_text(json.dumps(report, indent=2) + "\n")


def processor() -> str:
    """Name the processor, as the system does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
