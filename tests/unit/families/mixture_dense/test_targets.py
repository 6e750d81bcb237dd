"""Targets against figures of the authors' code, and the right radius against its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge.families.base import People
from mdpose_edge.families.mixture_dense.heads import Constants, mixture_dense_spec
from mdpose_edge.spec import InputSpec

pytest.importorskip("torch")

from mdpose_edge.families.mixture_dense.targets import encode_people, gaussian_radius, splat

FIGURES = dict(np.load(Path(__file__).parents[3] / "goldens" / "mixture_dense_targets.npz"))
SPEC = mixture_dense_spec(InputSpec(96, 96), Constants(2, 1.0, heatmaps=True))
SCENES = ("none", "few", "same_cell", "border", "no_keypoints", "outside_and_thin", "crowd")
LAST_PX = 92.0
"""The reference cuts boxes at its last cell, 23 of 24, where we cut them at the image's edge."""


def people_of(scene: str) -> tuple[People, NDArray[np.intp]]:
    """Return the people of a scene, and the rows, in the reference's arrays, of those whose box has an area."""
    xywh, keypoints = FIGURES[f"{scene}_boxes_xywh_px"], FIGURES[f"{scene}_keypoints_px"]
    boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).clip(0, LAST_PX).astype(np.float32)
    points = keypoints[..., :2].astype(np.float32)
    labelled = (keypoints[..., 2] > 0) & ((points >= 0) & (points < 96)).all(axis=2)
    shown = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    return People(points, labelled, boxes.reshape(-1, 2, 2).mean(axis=1), boxes), shown


@pytest.mark.parametrize("scene", SCENES)
def test_targets_are_the_authors(scene: str) -> None:
    people, shown = people_of(scene)
    got = encode_people(people, SPEC, "published")
    want = {key.removeprefix(f"{scene}_"): array for key, array in FIGURES.items() if key.startswith(f"{scene}_")}
    assert len(got["cell"]) == len(shown)
    np.testing.assert_allclose(got["centre"], want["hm"][0], atol=1e-5)
    np.testing.assert_allclose(got["heat"], want["hm_hp"], atol=1e-5)
    np.testing.assert_array_equal(got["cell"], want["ind"][shown])
    np.testing.assert_allclose(got["size"], want["wh"][shown], atol=1e-5)
    np.testing.assert_allclose(got["offset"] + 0.5, want["reg"][shown], atol=1e-5)
    seen = want["hps_mask"][shown].reshape(-1, 17, 2)[..., 0].astype(bool)
    np.testing.assert_array_equal(got["labelled"], seen)
    keypoints = want["hps"][shown].reshape(-1, 17, 2)
    np.testing.assert_allclose(got["keypoints"][seen] + 0.5, keypoints[seen], atol=1e-5)
    place = (shown[:, None] * 17 + np.arange(17))[seen]
    np.testing.assert_array_equal(got["heat_cell"][seen], want["hp_ind"][place])
    np.testing.assert_allclose(got["heat_offset"][seen] + 0.5, want["hp_offset"][place], atol=1e-5)


def test_radii_are_the_authors_and_the_right_ones() -> None:
    for height, width, code, right in zip(
        *(FIGURES[key] for key in ("box_height", "box_width", "radius_code", "radius_right")), strict=True
    ):
        assert gaussian_radius(height, width, "published") == pytest.approx(code, rel=1e-9)
        assert gaussian_radius(height, width, "exact") == pytest.approx(right, rel=1e-9)


def test_kernels_and_their_union_are_the_authors() -> None:
    for radius in (0, 1, 2, 3, 5):
        heat = np.zeros((2 * radius + 1,) * 2, np.float32)
        splat(heat, radius, radius, radius)
        np.testing.assert_allclose(heat, FIGURES[f"gaussian_r{radius}"], atol=1e-6)
    heat = np.zeros((12, 14), np.float32)
    for (x, y), radius in zip(FIGURES["splat_centres_xy"].tolist(), FIGURES["splat_radii"].tolist(), strict=True):
        splat(heat, x, y, radius)
    np.testing.assert_allclose(heat, FIGURES["splat_map"], atol=1e-6)


def test_a_decoder_that_is_given_the_targets_finds_the_people() -> None:
    """The two halves agree on cells, centres and scales: targets written into head tensors decode to the truth."""
    from mdpose_edge.families.registry import make_decoder
    from mdpose_edge.geometry import FrameGeometry

    rng = np.random.default_rng(4)
    corner = np.array([[10, 12], [50, 30]], np.float32)
    boxes = np.concatenate([corner, corner + np.float32(29)], axis=1)
    points = (corner[:, None] + rng.uniform(0, 20, (2, 17, 2))).astype(np.float32)
    people = People(points, np.ones((2, 17), np.bool_), boxes.reshape(-1, 2, 2).mean(axis=1), boxes)
    targets = encode_people(people, SPEC, "exact")
    heads = {head.name: np.zeros((1, *SPEC.head_shape(head)), np.float32) for head in SPEC.heads}
    for name, target in (("centre", targets["centre"][None]), ("heat", targets["heat"])):
        heads[name][0] = np.log(target.clip(1e-3, 0.999) / (1 - target.clip(1e-3, 0.999)))
    for person, cell in enumerate(targets["cell"]):
        row, column = divmod(int(cell), 24)
        heads["alpha"][0, person, row, column] = 3.0  # each person by another component
        heads[f"mu_{person + 1}"][0, :, row, column] = targets["keypoints"][person].ravel() + 0.3  # refined away
        heads["offset"][0, :, row, column] = targets["offset"][person]
        heads["size"][0, :, row, column] = targets["size"][person]
        for keypoint, place in enumerate(targets["heat_cell"][person]):
            heads["heat_offset"][0, :, place // 24, place % 24] = targets["heat_offset"][person, keypoint]
    poses = make_decoder(SPEC)(heads, FrameGeometry((1.0, 1.0), (0.0, 0.0)))
    np.testing.assert_allclose(poses.boxes_xyxy, boxes, atol=1e-4)
    near = np.abs(poses.keypoints_xy - points).max(axis=2)
    assert np.median(near) < 1e-3  # keypoints that share a cell share an offset
    assert near.max() < 4.0
