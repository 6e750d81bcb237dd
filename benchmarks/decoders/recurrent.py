"""The recurrent family at 512 px (128 x 128 cells), T = 8, of one, four and eight people, beside plain loops."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.decoders.case import Case
from mdpose_edge.families.heat_sigma import prior
from mdpose_edge.families.recurrent.decode import LEAST_HEAT
from mdpose_edge.families.recurrent.heads import (
    HEAT_THRESHOLD,
    STOP_THRESHOLD,
    STRIDE,
    Constants,
    heat_names,
    recurrent_spec,
)
from mdpose_edge.families.registry import make_decoder
from mdpose_edge.preprocess import frame_geometry
from mdpose_edge.spec import COCO_KEYPOINTS, InputSpec, ModelSpec

SIZE = 512
FRAME_WH = (1280, 720)
STEPS = 8
BLOB = 2.0
"""Cells: the spread of a keypoint's peak."""
TARGET_MS = 2.0
Heads = dict[str, NDArray[np.float32]]


def make_heads(spec: ModelSpec, people: int, seed: int = 0) -> Heads:
    """Draw maps of so many people: a blob at each keypoint, noise of a hundredth elsewhere."""
    rng = np.random.default_rng(seed)
    heads = {head.name: rng.normal(0.0, 0.01, (1, *spec.head_shape(head))).astype(np.float32) for head in spec.heads}
    heads["stop"][0, :, 0, 0] = np.where(np.arange(STEPS) < people, 4.0, -4.0)
    rows, columns = (np.arange(size) + 0.5 for size in spec.cells(STRIDE))
    for name in heat_names(people):
        points = rng.uniform(20, 108, 2) + rng.uniform(-15, 15, (17, 2))
        for heat, (x, y) in zip(heads[name][0], points, strict=True):
            near = np.exp(-((rows[:, None] - y) ** 2 + (columns - x) ** 2) / (2 * BLOB**2))
            heat += (0.8 * near).astype(np.float32)
    return heads


def loop_decode(heads: Heads) -> list[list[tuple[float, float]]]:
    """Decode keypoints in plain loops, px of the network input, in the order of the steps."""
    people = []
    for step, logit in enumerate(heads["stop"].ravel().tolist()):
        if 1 / (1 + math.exp(-logit)) < STOP_THRESHOLD:
            break
        people.append([_peak(heat) for heat in heads[f"heat_{step + 1}"][0].tolist()])
    return people


def _peak(heat: list[list[float]]) -> tuple[float, float]:
    last_row, last_column, best = len(heat) - 1, len(heat[0]) - 1, (-math.inf, 0, 0)
    for row, values in enumerate(heat):
        for column, value in enumerate(values):
            if value > best[0]:
                best = (value, row, column)
    _, row, column = best
    right, left = heat[row][min(column + 1, last_column)], heat[row][max(column - 1, 0)]
    below, above = heat[min(row + 1, last_row)][column], heat[max(row - 1, 0)][column]
    x = _vertex(left, best[0], right) if 0 < column < last_column else 0.0
    y = _vertex(above, best[0], below) if 0 < row < last_row else 0.0
    return STRIDE * (column + 0.5 + x), STRIDE * (row + 0.5 + y)


def _vertex(before: float, peak: float, after: float) -> float:
    low, middle, high = (math.log(max(value, LEAST_HEAT)) for value in (before, peak, after))
    bend = 2 * middle - low - high
    return min(0.5, max(-0.5, (high - low) / (2 * bend))) if bend > 1e-9 else 0.0


def cases() -> Iterator[Case]:
    """Draw every case, and see that the plain loops find the same."""
    constants = Constants(STEPS, STOP_THRESHOLD, HEAT_THRESHOLD, prior(COCO_KEYPOINTS.sigmas))
    spec = recurrent_spec(InputSpec(SIZE, SIZE), constants)
    decoder, geometry = make_decoder(spec), frame_geometry(FRAME_WH, spec.input)
    for people in (1, 4, STEPS):
        heads = make_heads(spec, people)
        found = decoder(heads, frame_geometry((SIZE, SIZE), spec.input)).keypoints_xy
        looped = np.array(loop_decode(heads))
        if np.abs(np.sort(found, axis=0) - np.sort(looped, axis=0)).max() > 1e-3:
            raise RuntimeError("the decoder and the plain loops find different keypoints")
        yield Case(
            f"{people} of {STEPS} people",
            len(found),
            TARGET_MS,
            lambda heads=heads: decoder(heads, geometry),
            {"loops": lambda heads=heads: loop_decode(heads)},
        )
