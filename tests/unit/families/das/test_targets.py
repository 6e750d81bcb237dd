"""Which cells speak for whom: the authors' scenes, and what they have none of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

from mdpose_edge.families.base import People
from mdpose_edge.families.das.heads import Constants, Level, das_spec, pyramid
from mdpose_edge.families.das.targets import IGNORED, POSITIVE, encode_people
from mdpose_edge.spec import COCO_KEYPOINTS, InputSpec, KeypointSpec, ModelSpec

GOLDENS = Path(__file__).parents[3] / "goldens"
SCENES = (
    "none",
    "two_levels",
    "close_roots_same_level",
    "same_root",
    "close_roots_two_levels",
    "border_and_outside",
)
LEVELS = (Level("p3", 8, 80.0), Level("p4", 16, 160.0), Level("p5", 32, 320.0), Level("p6", 64, None))


def fifteen_joints() -> ModelSpec:
    keypoints = KeypointSpec(tuple(f"joint{k}" for k in range(15)), (), (), (0.08,) * 15)
    return das_spec(InputSpec(256, 320), Constants(LEVELS, (2,), depth="linear"), keypoints)


def flat_people(rows: NDArray[np.float64]) -> People:
    joints, visible = rows[:, 3:48].reshape(-1, 15, 3), rows[:, 48:] > 0
    points = joints[..., :2].astype(np.float32)
    points[:, 2] = rows[:, :2]
    visible[:, 2] = True
    boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1) if len(rows) else np.zeros((0, 4))
    return People(points, visible, points[:, 2], boxes.astype(np.float32))


@pytest.mark.parametrize("scene", SCENES)
def test_the_cells_are_those_of_the_authors_code(scene: str) -> None:
    """It measures a person by all joints, seen or not; so these are all labelled here."""
    golden, spec = np.load(GOLDENS / "das_targets.npz"), fifteen_joints()
    rows = golden[f"{scene}_people"].copy()
    rows[:, 48:] = 1
    found = encode_people(flat_people(rows), spec)
    order = np.argsort(found["cell"])
    np.testing.assert_array_equal(found["cell"][order], golden[f"{scene}_positive_index"])
    np.testing.assert_array_equal(found["labels"] == POSITIVE, golden[f"{scene}_labels"] == 0)
    np.testing.assert_allclose(found["centerness"][order], golden[f"{scene}_centerness"], rtol=1e-5)
    targets = golden[f"{scene}_targets"]
    strides = np.concatenate([np.full(np.prod(spec.cells(s)), s) for s in (8, 16, 32, 64)])[found["cell"][order]]
    wanted = targets[:, 3:48].reshape(-1, 15, 3)[..., :2]  # px, from the root
    to_root = -targets[:, :2][:, None] * strides[:, None, None]
    ours = found["uv"][order] * strides[:, None, None] - to_root
    others = [k for k in range(15) if k != 2]
    np.testing.assert_allclose(ours[:, others], wanted[:, others], atol=1e-2)


def coco_spec(**constants: object) -> ModelSpec:
    input_spec = InputSpec(128, 128)
    return das_spec(input_spec, Constants(pyramid(input_spec), (11, 12), **constants))  # type: ignore[arg-type]


def solid_people(focal: float = 200.0, scale: float = 1.0) -> People:
    """Two people of 3-D, the second behind; and one of 2-D without hips."""
    rng = np.random.default_rng(0)
    joints = rng.normal(0.0, 0.25, (2, 17, 3)) + np.array([[[-0.5, 0.0, 4.0]], [[1.0, 0.2, 8.0]]])
    camera = np.diag([scale, scale, 1.0]) @ np.array([[focal, 0, 64.0], [0, focal, 64.0], [0, 0, 1.0]])
    seen = joints @ camera.T
    points = np.zeros((3, 17, 2), np.float32)
    points[:2] = seen[..., :2] / seen[..., 2:]
    points[2] = rng.uniform(90, 110, (17, 2))
    labelled = np.ones((3, 17), np.bool_)
    labelled[2, 11] = False
    labelled[0, :5] = False
    boxes = np.array([[0, 0, 60, 128], [70, 40, 90, 100], [88, 88, 112, 112]], np.float32)
    unknown = np.full((1, 17, 3), np.nan)
    return People(
        points,
        labelled,
        boxes[:, :2],
        boxes,
        keypoints_3d=np.concatenate([joints, unknown]).astype(np.float32),
        cameras=np.stack([camera, camera, np.full((3, 3), np.nan)]),
    )


@pytest.mark.parametrize("form", ["log", "linear"])
def test_depths_are_over_the_focal_length_of_the_view(form: str) -> None:
    spec, people = coco_spec(depth=form), solid_people()
    found = encode_people(people, spec)
    assert people.keypoints_3d is not None
    roots = people.keypoints_3d[:2, 11:13].mean(axis=1)
    depths = roots[:, 2] / 200.0 * 1000.0
    wanted = np.log(depths) if form == "log" else depths
    for value in wanted:
        assert np.isclose(found["depth"], value, rtol=1e-5).any()
    assert found["solid"].all() and found["known"].all()  # hidden joints of 3-D are known too
    half = encode_people(solid_people(scale=0.5), spec)
    gained = half["depth"].max() - found["depth"].max() if form == "log" else half["depth"].max() / found["depth"].max()
    assert gained == pytest.approx(np.log(2) if form == "log" else 2.0, rel=1e-4)
    best = found["centerness"].argmax()
    person = int(np.isclose(wanted, found["depth"][best], rtol=1e-5).argmax())
    dz = (people.keypoints_3d[person, :, 2] - roots[person, 2]) / 0.5
    np.testing.assert_allclose(found["dz"][best], dz, atol=1e-4)


def test_people_whose_root_nobody_knows_are_ignored_and_weights_are_a_person() -> None:
    found = encode_people(solid_people(), coco_spec())
    assert found["person_mask"].tolist() == [True, True, False]
    assert found["weight"].sum() == pytest.approx(2.0, rel=1e-6)
    assert (found["labels"] == POSITIVE).sum() == len(found["cell"])
    assert (found["labels"][: 16 * 16].reshape(16, 16)[11:14, 11:14] == IGNORED).all()
    assert (found["labels"] == IGNORED).sum() < 30


def test_boxes_may_be_the_centre_instead() -> None:
    people = solid_people()
    by_root, by_box = (encode_people(people, coco_spec(), center) for center in ("root", "box"))
    assert not np.array_equal(by_root["cell"], by_box["cell"]) and len(by_box["cell"])


def test_two_dimensions_teach_no_depth() -> None:
    people = solid_people()
    flat = People(people.keypoints_xy, people.labelled, people.centers_xy, people.boxes_xyxy)
    found = encode_people(flat, coco_spec())
    assert len(found["cell"]) and not found["solid"].any() and not found["dz"].any() and not found["depth"].any()
    assert not found["known"].all()


def test_an_image_of_nobody() -> None:
    nobody = np.zeros((0, 17, 2), np.float32)
    people = People(nobody, np.zeros((0, 17), np.bool_), nobody[:, 0], np.zeros((0, 4), np.float32))
    found = encode_people(people, coco_spec())
    assert not len(found["cell"]) and not found["labels"].any() and len(COCO_KEYPOINTS.names) == found["uv"].shape[1]
