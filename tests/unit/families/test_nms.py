"""NMS against plain loops in float64, and what must hold of any result."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mdpose_edge.families.nms import box_nms, oks_nms
from mdpose_edge.spec import COCO_KEYPOINTS

Array = NDArray[np.float32]
SIGMAS = np.array(COCO_KEYPOINTS.sigmas)
IOU_THRESHOLDS = st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 0.7, 0.9, 1.0])
OKS_THRESHOLDS = st.sampled_from([0.02, 0.1, 0.3, 0.5, 0.7, 0.9])
SEEDS = st.integers(0, 2**32 - 1)
NEAR_TIE = 1e-9
"""An OKS so close to the threshold may fall on either side, by the order of summation."""


def iou_above(a: list[float], b: list[float], threshold: float) -> bool:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height > threshold * (areas - width * height)


def oks(a: Array, b: Array, area_a: float, area_b: float) -> float:
    total, area = 0.0, (area_a + area_b) / 2
    for (xa, ya), (xb, yb), sigma in zip(a.tolist(), b.tolist(), SIGMAS.tolist(), strict=True):
        squared = (xa - xb) ** 2 + (ya - yb) ** 2
        if squared == 0.0:
            total += 1.0
        elif area > 0.0:
            total += math.exp(-squared / (2 * (2 * sigma) ** 2 * area))
    return total / len(a)


def greedy(count: int, overlap: Callable[[int, int], bool], max_keep: int) -> list[int]:
    kept: list[int] = []
    for j in range(count):
        if len(kept) < max_keep and not any(overlap(i, j) for i in kept):
            kept.append(j)
    return kept


def greedy_boxes(boxes: Array, threshold: float, max_keep: int) -> list[int]:
    corners = boxes.astype(float).tolist()
    return greedy(len(boxes), lambda i, j: iou_above(corners[i], corners[j], threshold), max_keep)


def clustered_boxes(seed: int, count: int, unit: float = 1.0) -> Array:
    """Boxes (count, 4): near-duplicates of a few, of sizes over three decades, some without area."""
    rng = np.random.default_rng(seed)
    people = rng.integers(1, count + 1)
    centers, sides = rng.uniform(0, 700, (people, 2)), np.exp(rng.uniform(np.log(0.5), np.log(500), (people, 2)))
    who = rng.integers(0, people, count)
    centers = centers[who] + rng.normal(0, 0.05, (count, 2)) * sides[who]
    sides = sides[who] * np.exp(rng.normal(0, 0.1, (count, 2)))
    sides[rng.random((count, 2)) < 0.02] = 0.0
    return (unit * np.concatenate([centers - sides / 2, centers + sides / 2], axis=1)).astype(np.float32)


def clustered_poses(seed: int, count: int, unit: float = 1.0) -> tuple[Array, Array]:
    """Poses (count, 17, 2) and areas (count,): near-duplicates of a few, some with an area of 0."""
    rng = np.random.default_rng(seed)
    people = rng.integers(1, count + 1)
    heights = np.exp(rng.uniform(np.log(5), np.log(500), (people, 1, 1)))
    poses = rng.uniform(0, 700, (people, 1, 2)) + rng.uniform(-0.5, 0.5, (people, 17, 2)) * heights
    who = rng.integers(0, people, count)
    noise = rng.normal(0, 1, (count, 17, 2)) * rng.choice([0.0, 0.01, 0.03, 0.1], (count, 1, 1)) * heights[who]
    areas = np.where(rng.random(count) < 0.05, 0.0, 0.5 * heights[who, 0, 0] ** 2)
    return (unit * (poses[who] + noise)).astype(np.float32), (unit**2 * areas).astype(np.float32)


# Small integers make coincident sides, boxes without area and IoUs that equal the threshold.
small_boxes = st.lists(st.tuples(*[st.integers(0, 6)] * 4), max_size=40).map(
    lambda rows: np.sort(np.array(rows, np.float32).reshape(-1, 2, 2), axis=1).reshape(-1, 4)
)


@given(small_boxes, IOU_THRESHOLDS, st.integers(1, 40))
def test_small_boxes_as_in_plain_loops(boxes: Array, threshold: float, max_keep: int) -> None:
    assert box_nms(boxes, threshold, max_keep).tolist() == greedy_boxes(boxes, threshold, max_keep)


@given(SEEDS, st.integers(1, 250), IOU_THRESHOLDS, st.sampled_from([1e-6, 1.0, 1e6]))
def test_many_boxes_as_in_plain_loops(seed: int, count: int, threshold: float, unit: float) -> None:
    boxes = clustered_boxes(seed, count, unit)
    assert box_nms(boxes, threshold, count).tolist() == greedy_boxes(boxes, threshold, count)


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.7, 0.95])
def test_no_pair_above_the_threshold_escapes_the_screen(threshold: float) -> None:
    """Pairs drawn around the limit of what the screen may let pass: nested, shifted, of other proportions."""
    rng = np.random.default_rng(0)
    grow = threshold ** -rng.uniform(0, 1.05, (4000, 2))
    shift = rng.uniform(-1, 1, (4000, 2)) * (1 - threshold) / threshold
    first = np.tile([-0.5, -0.5, 0.5, 0.5], (4000, 1))
    second = np.concatenate([shift - grow / 2, shift + grow / 2], axis=1)
    for a, b in zip(first, second, strict=True):
        a, b = a * [37, 11, 37, 11] + 300, b * [37, 11, 37, 11] + 300
        dropped = len(box_nms(np.stack([a, b]), threshold, 2)) == 1
        assert dropped == iou_above(a.tolist(), b.tolist(), threshold)


@given(SEEDS, st.integers(1, 120), IOU_THRESHOLDS)
def test_kept_boxes_do_not_overlap_and_dropped_ones_do(seed: int, count: int, threshold: float) -> None:
    boxes = clustered_boxes(seed, count)
    kept = box_nms(boxes, threshold, count).tolist()
    assert kept == sorted(set(kept))
    for j in range(count):
        overlapped = any(iou_above(boxes[i].tolist(), boxes[j].tolist(), threshold) for i in kept if i < j)
        assert overlapped == (j not in kept)


@given(SEEDS, st.integers(1, 200), IOU_THRESHOLDS)
def test_box_nms_of_its_own_result_changes_nothing(seed: int, count: int, threshold: float) -> None:
    boxes = clustered_boxes(seed, count)
    kept = boxes[box_nms(boxes, threshold, count)]
    assert box_nms(kept, threshold, count).tolist() == list(range(len(kept)))


@given(SEEDS, st.integers(1, 200), IOU_THRESHOLDS)
def test_axes_mirror_and_unit_do_not_matter_to_boxes(seed: int, count: int, threshold: float) -> None:
    boxes = clustered_boxes(seed, count)
    kept = box_nms(boxes, threshold, count).tolist()
    assert box_nms(boxes[:, [1, 0, 3, 2]], threshold, count).tolist() == kept
    assert box_nms(-boxes[:, [2, 3, 0, 1]], threshold, count).tolist() == kept
    assert box_nms(boxes * np.float32(2.0**-20), threshold, count).tolist() == kept


@given(SEEDS, st.integers(1, 200), st.integers(1, 60))
def test_max_keep_gives_the_beginning_of_the_whole(seed: int, count: int, max_keep: int) -> None:
    boxes, (poses, areas) = clustered_boxes(seed, count), clustered_poses(seed, count)
    assert box_nms(boxes, 0.7, max_keep).tolist() == box_nms(boxes, 0.7, count)[:max_keep].tolist()
    whole = oks_nms(poses, areas, SIGMAS, 0.7, count)
    assert oks_nms(poses, areas, SIGMAS, 0.7, max_keep).tolist() == whole[:max_keep].tolist()


@given(SEEDS, st.integers(1, 80), OKS_THRESHOLDS, st.sampled_from([1e-6, 1.0, 1e6]))
@example(seed=0, count=80, threshold=1.0, unit=1.0)
def test_oks_nms_as_in_plain_loops(seed: int, count: int, threshold: float, unit: float) -> None:
    poses, areas = clustered_poses(seed, count, unit)

    def overlap(i: int, j: int) -> bool:
        similarity = oks(poses[i], poses[j], float(areas[i]), float(areas[j]))
        assume(threshold == 1.0 or abs(similarity - threshold) > NEAR_TIE)
        return similarity > threshold

    assert oks_nms(poses, areas, SIGMAS, threshold, count).tolist() == greedy(count, overlap, count)


@given(SEEDS, st.integers(1, 100), OKS_THRESHOLDS)
def test_oks_nms_of_its_own_result_changes_nothing(seed: int, count: int, threshold: float) -> None:
    poses, areas = clustered_poses(seed, count)
    kept = oks_nms(poses, areas, SIGMAS, threshold, count)
    assert oks_nms(poses[kept], areas[kept], SIGMAS, threshold, count).tolist() == list(range(len(kept)))


@pytest.mark.parametrize("threshold", [0.0, 0.7, 0.999])
def test_of_coinciding_poses_the_first_is_kept(threshold: float) -> None:
    pose = np.random.default_rng(0).uniform(0, 100, (17, 2))
    poses = np.stack([pose, pose, pose + 1e6, pose]).astype(np.float32)
    boxes = np.concatenate([poses.min(axis=1), poses.max(axis=1)], axis=1)
    for area in (0.0, 5000.0):
        assert oks_nms(poses, np.full(4, area, np.float32), SIGMAS, threshold, 4).tolist() == [0, 2]
    assert box_nms(boxes, threshold, 4).tolist() == [0, 2]


def test_boxes_without_area_are_all_kept() -> None:
    point, line, box = [5, 5, 5, 5], [0, 5, 10, 5], [0, 0, 10, 10]
    assert box_nms(np.array([point, point, line, line, box, point], np.float32), 0.0, 9).tolist() == [0, 1, 2, 3, 4, 5]


def test_nothing_in_nothing_out() -> None:
    assert box_nms(np.zeros((0, 4), np.float32), 0.7, 5).tolist() == []
    assert oks_nms(np.zeros((0, 17, 2), np.float32), np.zeros(0, np.float32), SIGMAS, 0.7, 5).tolist() == []
