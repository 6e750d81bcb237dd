"""Targets and losses against figures of the authors' codes, whose values lie at whole cells."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

import torch

from mdpose_edge.families.adaptive.heads import adaptive_spec
from mdpose_edge.families.adaptive.loss import heat_loss, offset_loss
from mdpose_edge.families.adaptive.targets import TargetOptions, area_of, encode_people
from mdpose_edge.families.base import People
from mdpose_edge.families.registry import make_decoder
from mdpose_edge.geometry import FrameGeometry
from mdpose_edge.spec import InputSpec

GOLDENS = Path(__file__).parents[3] / "goldens"
TARGETS, LOSSES = np.load(GOLDENS / "adaptive_targets.npz"), np.load(GOLDENS / "adaptive_losses.npz")
SCENES = sorted(name.removesuffix("_keypoints_px") for name in TARGETS.files if name.endswith("_keypoints_px"))
SPEC = adaptive_spec(InputSpec(128, 128))
HALF = np.float32(2.0)
"""px: half a cell."""


def people_of(scene: str) -> People:
    """The people of a scene, moved by half a cell: what the authors have at a whole cell is in the middle of ours."""
    keypoints = TARGETS[f"{scene}_keypoints_px"]
    boxes = TARGETS[f"{scene}_boxes_xywh_px"].reshape(-1, 4)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)
    points, labelled = keypoints[..., :2].astype(np.float32) + HALF, keypoints[..., 2] > 0
    return People(points, labelled, corners[:, :2], corners)


def dense(targets: dict[str, NDArray[np.generic]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    offsets, weights = np.zeros((17 * 32 * 32, 2), np.float32), np.zeros(17 * 32 * 32, np.float32)
    offsets[targets["place"].astype(int)] = targets["offset"]
    weights[targets["place"].astype(int)] = targets["weight"]
    return offsets.reshape(17, 32, 32, 2).transpose(0, 3, 1, 2).reshape(34, 32, 32), weights.reshape(17, 32, 32)


def gradient_of(raw: torch.Tensor) -> torch.Tensor:
    assert raw.grad is not None
    return raw.grad


@pytest.mark.parametrize("scene", SCENES)
def test_heat_maps_and_their_weights_are_dekrs(scene: str) -> None:
    people = people_of(scene)
    inside = ((people.keypoints_xy >= HALF) & (people.keypoints_xy < 128 + HALF)).all(axis=2)
    people = dataclasses.replace(people, labelled=people.labelled & inside)
    targets = encode_people(people, SPEC, TargetOptions(least_side=0.0))
    np.testing.assert_allclose(targets["heat"], TARGETS[f"{scene}_dekr_heatmaps"][:17], atol=1e-5)
    weights = np.where(targets["heat"] > 0, 1.0, 0.1)
    np.testing.assert_allclose(weights, TARGETS[f"{scene}_dekr_mask"][:17], atol=1e-6)


@pytest.mark.parametrize("scene", SCENES)
def test_offsets_are_the_right_ones(scene: str) -> None:
    """Where both learn one: the authors' square begins four cells before the centre's and ends three after it."""
    people = people_of(scene)
    offsets, weights = dense(encode_people(people, SPEC, TargetOptions(least_side=0.0)))
    theirs, right = TARGETS[f"{scene}_right_offsets"], TARGETS[f"{scene}_right_offset_weights"][::2]
    both = (weights > 0) & (right > 0)
    assert both.sum() >= 0.6 * (right > 0).sum()
    agree = both & np.isclose(weights, right, rtol=1e-4)
    assert agree.sum() >= (0.6 if scene in ("crowd", "same_centre") or "overlap" in scene else 1.0) * both.sum()
    np.testing.assert_allclose(offsets[0::2][agree], -theirs[0::2][agree], atol=1e-4)
    np.testing.assert_allclose(offsets[1::2][agree], -theirs[1::2][agree], atol=1e-4)


def test_where_people_overlap_the_smaller_one_is_learned() -> None:
    points = np.zeros((2, 17, 2), np.float32)
    points[0] = np.linspace((20, 20), (108, 108), 17)
    points[1] = np.linspace((50, 50), (70, 78), 17)
    labelled = np.ones((2, 17), np.bool_)
    labelled[1, 3] = False
    boxes = np.array([[20, 20, 108, 108], [50, 50, 70, 78]], np.float32)
    options = TargetOptions(least_side=0.0)
    offsets, weights = dense(encode_people(People(points, labelled, points[:, 0], boxes), SPEC, options))
    assert weights[4, 16, 15] == pytest.approx(1 / np.sqrt(area_of(points[1])))
    assert offsets[8, 16, 15] == pytest.approx(points[1, 4, 0] / 4 - 15.5)
    assert weights[3, 16, 15] == pytest.approx(1 / np.sqrt(area_of(points[0]))), "whom the keypoint is labelled of"


def test_small_people_have_keypoints_and_no_centre() -> None:
    points = np.tile(np.linspace((50, 50), (60, 62), 17, dtype=np.float32), (1, 1, 1))
    box = np.array([[50, 50, 60, 62]], np.float32)
    person = People(points, np.ones((1, 17), np.bool_), box[:, :2], box)
    found, ignored = (encode_people(person, SPEC, TargetOptions(least_side=side)) for side in (10.0, 32.0))
    assert found["centre"].max() > 0.9 and len(found["place"])
    assert not ignored["centre"].any() and not len(ignored["place"]) and ignored["heat"].max() > 0.9


def test_unknown_people_are_neither_learned_nor_unlearned() -> None:
    points = np.full((1, 17, 2), 64, np.float32)
    boxes, region = np.array([[40, 40, 88, 88]], np.float32), np.array([[0, 0, 64, 128]], np.float32)
    people = People(points, np.ones((1, 17), np.bool_), boxes[:, :2], boxes, ignored_xyxy=region)
    targets = encode_people(people, SPEC, TargetOptions())
    assert not targets["known"][:, :16].any() and targets["known"][:, 16:].all()
    raw = torch.zeros(1, 17, 32, 32, requires_grad=True)
    target, known = (torch.from_numpy(targets[name])[None] for name in ("heat", "known"))
    heat_loss(raw + 0.3, target, known[:, None], 0.1).backward()  # type: ignore[no-untyped-call]
    assert raw.grad is not None
    assert not raw.grad[0, 0, 0, 0] and raw.grad[0, 0, 0, 31] > 0, "nothing is said of the crowd's cells"
    assert raw.grad[0, 0, 15, 15] < 0, "but what is known of a person among them is"


def test_losses_and_gradients_are_the_authors() -> None:
    raw = torch.from_numpy(LOSSES["heat_pred"]).requires_grad_()
    target, mask = torch.from_numpy(LOSSES["heat_gt"]), torch.from_numpy(LOSSES["heat_mask"])
    # A mask of any numbers, by runs of one weight.
    total = torch.zeros((), dtype=raw.dtype)
    for weight in set(mask.flatten().tolist()):
        chosen = mask == weight
        known = torch.ones_like(raw, dtype=torch.bool)
        part = heat_loss(torch.where(chosen, raw - target, 0.0), torch.zeros_like(raw), known, float(weight))
        total = total + part
    (total / raw.numel()).backward()  # type: ignore[no-untyped-call]
    np.testing.assert_allclose(total.item() / raw.numel(), LOSSES["heat_loss"], rtol=1e-9)
    np.testing.assert_allclose(gradient_of(raw), LOSSES["heat_grad"], atol=1e-9)

    raw = torch.from_numpy(LOSSES["offset_pred"]).requires_grad_()
    wanted, weights = torch.from_numpy(LOSSES["offset_gt"]), torch.from_numpy(LOSSES["offset_weights"])
    found = torch.zeros((), dtype=raw.dtype)
    for image in range(len(raw)):
        for axis in (0, 1):  # theirs weighs x and y apart: what is not weighed here is no error
            weight = weights[image, axis::2].flatten()
            place = torch.nonzero(weight)[:, 0]
            pairs = raw[image].detach().view(17, 2, -1).transpose(1, 2).reshape(-1, 2)[place]
            pairs[:, axis] = wanted[image, axis::2].flatten()[place]
            one = offset_loss(raw[image : image + 1], place[None], pairs[None], weight[None, place])
            found = found + one * 2 * len(place) / (weights > 0).sum()
    found.backward()  # type: ignore[no-untyped-call]
    np.testing.assert_allclose(found.item(), LOSSES["offset_loss"], rtol=1e-9)
    np.testing.assert_allclose(gradient_of(raw), LOSSES["offset_grad"], atol=1e-9)


def test_an_image_of_nobody_has_a_loss_of_zero_offsets() -> None:
    targets = encode_people(people_of("none"), SPEC, TargetOptions())
    assert not targets["heat"].any() and targets["known"].all()
    raw = torch.randn(1, 34, 32, 32)
    padding = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1, 2), torch.zeros(1, 1)
    assert offset_loss(raw, *padding).item() == 0.0


def test_the_decoder_reads_what_the_targets_say() -> None:
    rng = np.random.default_rng(0)
    points = np.stack([rng.uniform(8, 60, (17, 2)), rng.uniform(68, 120, (17, 2))]).astype(np.float32)
    boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    people = People(points, np.ones((2, 17), np.bool_), points.mean(axis=1), boxes)
    targets = encode_people(people, SPEC, TargetOptions())
    offsets, _ = dense(targets)
    heads = {"heat": targets["heat"][None], "centre": targets["centre"][None, None], "offset": offsets[None]}
    poses = make_decoder(SPEC)(heads, FrameGeometry((1.0, 1.0), (0.0, 0.0)))
    assert len(poses) == 2 and poses.scores.min() > 0.8
    order = np.argsort(poses.keypoints_xy[:, 0, 0])
    np.testing.assert_allclose(poses.keypoints_xy[order], points, atol=0.05)
