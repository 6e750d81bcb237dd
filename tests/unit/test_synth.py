from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mdpose_edge.errors import DataError
from mdpose_edge.spec import COCO_KEYPOINTS
from mdpose_edge.synth import render_scene, write_dataset
from mdpose_edge.synth.body import Build, Figure, Limb, Pose, stand
from mdpose_edge.synth.raster import rasterize
from mdpose_edge.synth.scene import DEPTH_TOLERANCE, OVERLAP_IOU
from mdpose_edge.synth.solids import Camera, Material, Solids, rot_x, rot_y
from mdpose_edge.synth.wardrobe import dress, sample_look

INDEX = {name: i for i, name in enumerate(COCO_KEYPOINTS.names)}
ADULT = Build(height=1.7, girth=1.0, shoulders=1.0, hips=1.0, head=1.0)
HANGING = Limb(0, 8, 0, 5)
UPRIGHT = Pose("stand", 0, 0, (0, 0, 0), (0, 0, 0), (HANGING, HANGING), (Limb(0, 3, 0, 2), Limb(0, 3, 0, 2)))
TOWARDS, AWAY = 180.0, 0.0


def digest(folder: Path) -> str:
    """Hash every file's place and bytes."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            whole.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return whole.hexdigest()


def camera_before(distance: float, size: int = 320) -> Camera:
    """Look along the world's z, level, from 1 m above the ground; the world's origin is `distance` m ahead."""
    flip = np.diag((-1.0, -1.0, 1.0))
    return Camera(flip, np.array((0.0, 1.0, distance)), 1.3 * size, (size, size))


def iou(a: list[float], b: list[float]) -> float:
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(wide, 0) * max(high, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def annotations_of(folder: Path, split: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / f"annotations/person_keypoints_{split}2017.json").read_text())
    return document


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "data"
    write_dataset(out, train_images=16, val_images=6, size=(160, 128), seed=3)
    return out


class TestBytes:
    def test_same_seed_gives_same_bytes_whatever_the_workers(self, dataset: Path, tmp_path: Path) -> None:
        write_dataset(tmp_path / "again", train_images=16, val_images=6, size=(160, 128), seed=3, workers=2)
        assert digest(tmp_path / "again") == digest(dataset)

    def test_another_seed_gives_other_pictures(self, dataset: Path, tmp_path: Path) -> None:
        write_dataset(tmp_path / "other", train_images=1, val_images=0, size=(160, 128), seed=4)
        name = "train2017/000000000001.jpg"
        assert (tmp_path / "other" / name).read_bytes() != (dataset / name).read_bytes()

    def test_splits_share_no_picture(self, dataset: Path) -> None:
        hashes = [hashlib.sha256(path.read_bytes()).digest() for path in dataset.rglob("*.jpg")]
        assert len(hashes) == len(set(hashes)) == 22

    def test_a_scene_depends_on_its_seed_alone(self) -> None:
        first, again = (render_scene(5, (96, 96), (1, 4), 0.5) for _ in range(2))
        assert np.array_equal(first.frame, again.frame)
        assert first.annotations == again.annotations


class TestAnnotations:
    @pytest.mark.parametrize("split", ["train", "val"])
    def test_every_record_keeps_cocos_rules(self, dataset: Path, split: str) -> None:
        document = annotations_of(dataset, split)
        sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
        assert len({annotation["id"] for annotation in document["annotations"]}) == len(document["annotations"])
        for annotation in document["annotations"]:
            width, height = sizes[annotation["image_id"]]
            x, y, w, h = annotation["bbox"]
            assert 0 <= x < x + w <= width and 0 <= y < y + h <= height
            assert 0 < annotation["area"] <= w * h
            points = np.array(annotation["keypoints"]).reshape(17, 3)
            assert set(points[:, 2]) <= {0, 1, 2}
            assert annotation["num_keypoints"] == (points[:, 2] > 0).sum()
            assert (points[points[:, 2] == 0] == 0).all()
            seen = points[points[:, 2] > 0]
            assert ((seen[:, :2] >= 0) & (seen[:, :2] < (width, height))).all()

    def test_each_image_has_the_size_it_says(self, dataset: Path) -> None:
        for split in ("train", "val"):
            for image in annotations_of(dataset, split)["images"]:
                frame = cv2.imread(str(dataset / f"{split}2017" / image["file_name"]))
                assert frame is not None and frame.shape == (image["height"], image["width"], 3)

    def test_keypoints_are_the_projected_3d_joints(self, dataset: Path) -> None:
        document = annotations_of(dataset, "train")
        cameras = {image["id"]: image["camera"] for image in document["images"]}
        for annotation in document["annotations"]:
            camera, joints = cameras[annotation["image_id"]], np.array(annotation["keypoints_3d"])
            points = np.array(annotation["keypoints"]).reshape(17, 3)
            projected = camera["focal"] * joints[:, :2] / joints[:, 2:] + camera["principal_point"]
            labelled = points[:, 2] > 0
            assert np.abs(projected - points[:, :2])[labelled].max(initial=0) < 0.05

    def test_pycocotools_loads_it_and_scores_the_truth_as_perfect(self, dataset: Path) -> None:
        coco_module = pytest.importorskip("pycocotools.coco")
        evaluation = pytest.importorskip("pycocotools.cocoeval")
        truth = coco_module.COCO(str(dataset / "annotations/person_keypoints_val2017.json"))
        results = [{**record, "score": 1.0} for record in truth.loadAnns(truth.getAnnIds())]
        run = evaluation.COCOeval(truth, truth.loadRes(results), "keypoints")
        run.evaluate(), run.accumulate(), run.summarize()
        assert run.stats[0] == pytest.approx(1.0)

    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools on numpy 2
    def test_the_outline_encloses_the_area(self, dataset: Path) -> None:
        coco_module = pytest.importorskip("pycocotools.coco")
        coco = coco_module.COCO(str(dataset / "annotations/person_keypoints_train2017.json"))
        large = [record for record in coco.loadAnns(coco.getAnnIds()) if record["area"] > 500]
        ratios = [coco.annToMask(record).sum() / record["area"] for record in large]
        assert len(ratios) > 10
        assert 0.8 < np.median(ratios) < 1.2


class TestBody:
    def figure(self, yaw: float, pose: Pose = UPRIGHT) -> Figure:
        return stand(ADULT, pose, yaw)

    @pytest.mark.parametrize("yaw", [0, 37, 180, 263])
    def test_bones_keep_their_lengths(self, yaw: float) -> None:
        bent = Pose("sit", 10, 5, (20, 30, 5), (10, 40, 0), (Limb(90, 30, 20, 70),) * 2, (Limb(85, 10, 0, 90),) * 2)
        rest, moved = (self.figure(0).keypoints(), self.figure(yaw, bent).keypoints())
        for a, b in COCO_KEYPOINTS.skeleton[:4]:
            lengths = [np.linalg.norm(points[a] - points[b]) for points in (rest, moved)]
            assert lengths[0] == pytest.approx(lengths[1])

    def test_an_adult_is_as_tall_as_said(self) -> None:
        solids = Solids()
        dress(self.figure(0), sample_look(np.random.default_rng(0)), solids, 0, np.zeros(3), fine=True)
        tops = [
            c[1] + np.linalg.norm(f[1] * r) for c, f, r in zip(solids.centres, solids.frames, solids.radii, strict=True)
        ]
        assert 1.62 < max(tops) < 1.85

    def test_the_mirrored_pose_is_the_mirrored_body(self) -> None:
        left, right = Limb(60, 20, 15, 50), Limb(10, 5, 0, 15)
        one = stand(ADULT, Pose("x", 5, 4, (6, 7, 8), (1, 2, 3), (left, right), (left, right)), 20).keypoints()
        other = stand(ADULT, Pose("x", 5, -4, (6, -7, -8), (1, -2, -3), (right, left), (right, left)), -20).keypoints()
        swapped = np.arange(17)
        for a, b in COCO_KEYPOINTS.flip_pairs:
            swapped[[a, b]] = b, a
        assert np.allclose(one * (-1, 1, 1), other[swapped])

    @pytest.mark.parametrize(("yaw", "left_is_right_of"), [(TOWARDS, 1), (AWAY, -1)], ids=["facing", "turned away"])
    def test_left_is_on_the_right_of_the_picture_for_one_who_faces_the_camera(
        self, yaw: float, left_is_right_of: int
    ) -> None:
        pixels = camera_before(4.0).project(self.figure(yaw).keypoints())
        for left, right in COCO_KEYPOINTS.flip_pairs:
            assert left_is_right_of * (pixels[left, 0] - pixels[right, 0]) > 0

    @pytest.mark.parametrize(("yaw", "shown"), [(TOWARDS, True), (AWAY, False)], ids=["facing", "turned away"])
    def test_the_face_is_seen_from_the_front_only(self, yaw: float, shown: bool) -> None:
        seen = visible_keypoints(self.figure(yaw))
        assert all(seen[INDEX[name]] == shown for name in ("nose", "left_eye", "right_eye"))
        assert all(seen[INDEX[name]] for name in ("left_shoulder", "right_hip", "left_knee", "right_ankle"))

    def test_the_far_side_is_hidden_in_profile(self) -> None:
        seen = visible_keypoints(self.figure(90.0))  # looks to the left of the picture, the left side away from us
        assert seen[INDEX["right_ear"]] != seen[INDEX["left_ear"]]
        assert seen[INDEX["right_shoulder"]] != seen[INDEX["left_shoulder"]]


def visible_keypoints(figure: Figure) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Apply the depth test to one person 4 m ahead."""
    camera, solids = camera_before(4.0), Solids()
    dress(figure, sample_look(np.random.default_rng(1)), solids, 0, np.zeros(3), fine=True)
    raster = rasterize(solids, camera)
    points = figure.keypoints()
    depth = camera.to_camera(points)[:, 2]
    columns, rows = camera.project(points).astype(int).T
    return np.asarray(raster.inverse_depth[rows, columns] * (depth - DEPTH_TOLERANCE) <= 1)


class TestRaster:
    def test_a_ball_has_the_depth_and_the_outline_of_a_ball(self) -> None:
        camera, solids = camera_before(5.0), Solids()
        solids.ball(0, np.array((0.3, 1.2, 0.0)), np.eye(3), 0.4, Material((1, 1, 1)))
        raster = rasterize(solids, camera)
        centre, focal = camera.to_camera(np.array((0.3, 1.2, 0.0))), camera.focal_px
        rows, columns = np.mgrid[:320, :320] + 0.5
        rays = np.stack(((columns - 160) / focal, (rows - 160) / focal, np.ones((320, 320))), axis=-1)
        a, b = (rays**2).sum(-1), rays @ centre
        root = b**2 - a * (centre @ centre - 0.4**2)
        assert (raster.solid >= 0).sum() == pytest.approx((root > 0).sum(), abs=4)
        sure = root > 0.01
        depth = (b - np.sqrt(np.maximum(root, 0))) / a
        assert np.abs(1 / raster.inverse_depth[sure] - depth[sure]).max() < 1e-3

    def test_the_nearer_solid_wins_whatever_the_order(self) -> None:
        for order in ((0, 1), (1, 0)):
            solids = Solids()
            for owner in order:
                solids.ball(owner, np.array((0.0, 1.0, -0.5 * owner)), np.eye(3), 0.3, Material((1, 1, 1)))
            assert rasterize(solids, camera_before(4.0)).owner()[160, 160] == 1

    @pytest.mark.parametrize("turn", [0.0, 30.0, 75.0])
    def test_a_cone_covers_what_balls_along_its_axis_cover(self, turn: float) -> None:
        camera, frame = camera_before(4.0), rot_x(turn) @ rot_y(10)
        start, length, radius = np.array((0.1, 0.8, 0.0)), 0.7, 0.12
        cone, balls = Solids(), Solids()
        cone.cone(0, start, frame, length, (radius, radius), 0.999, Material((1, 1, 1)))
        for end in (0.0, length):
            cone.ball(0, start + end * frame[:, 1], frame, radius, Material((1, 1, 1)))
        for step in np.linspace(0, length, 200):
            balls.ball(0, start + step * frame[:, 1], frame, radius, Material((1, 1, 1)))
        ours, expected = (rasterize(solids, camera).inverse_depth for solids in (cone, balls))
        assert ((ours > 0) != (expected > 0)).mean() < 1e-3
        both = (ours > 0) & (expected > 0)
        assert np.abs(ours - expected)[both].max() < 5e-3

    def test_a_box_hides_what_is_behind_it(self) -> None:
        solids = Solids()
        solids.ball(0, np.array((0.0, 1.0, 0.0)), np.eye(3), 0.2, Material((1, 1, 1)))
        solids.box(np.array((0.0, 1.0, -1.0)), rot_y(20), (0.4, 0.4, 0.2), Material((1, 1, 1)))
        assert (rasterize(solids, camera_before(4.0)).owner() == -1).all()


class TestOcclusion:
    def overlaps(self, occlusion: float) -> list[float]:
        best = []
        for seed in range(12):
            boxes = [record["bbox"] for record in render_scene(seed, (192, 192), (2, 6), occlusion).annotations]
            best += [max(iou(a, b) for b in boxes if b is not a) for a in boxes]
        return best

    def test_at_one_everybody_overlaps_somebody_by_more_than_half(self) -> None:
        assert min(self.overlaps(1.0)) > OVERLAP_IOU

    def test_at_zero_people_stand_mostly_apart(self) -> None:
        assert np.median(self.overlaps(0.0)) < 0.1

    def test_at_one_there_are_at_least_two_people(self) -> None:
        assert all(len(render_scene(seed, (128, 128), (1, 1), 1.0).annotations) == 2 for seed in range(4))

    @pytest.mark.parametrize("count", [0, 1, 5])
    def test_the_number_of_people_is_as_asked(self, count: int) -> None:
        assert all(len(render_scene(seed, (160, 160), (count, count), 0.2).annotations) == count for seed in range(4))

    @pytest.mark.parametrize("occlusion", [0.0, 1.0])
    def test_where_nobody_is_asked_for_there_are_a_place_and_things(self, occlusion: float) -> None:
        frames = [render_scene(seed, (96, 96), (0, 0), occlusion).frame for seed in range(4)]
        assert all(frame.std() > 5 for frame in frames)
        assert not render_scene(0, (96, 96), (0, 0), occlusion).annotations


class TestVariety:
    def people(self, variety: float) -> list[np.ndarray]:
        """Return the 3-D keypoints of many people, (17, 3) in camera coordinates (x right, y down, z away)."""
        scenes = [render_scene(seed, (96, 96), (2, 4), 0.0, variety) for seed in range(12)]
        return [np.array(record["keypoints_3d"]) for scene in scenes for record in scene.annotations]

    def share_facing_us(self, variety: float) -> float:
        left, right = COCO_KEYPOINTS.names.index("left_hip"), COCO_KEYPOINTS.names.index("right_hip")
        return float(np.mean([person[left, 0] > person[right, 0] for person in self.people(variety)]))

    def test_without_it_everybody_faces_us_upright(self) -> None:
        ankles = [index for index, name in enumerate(COCO_KEYPOINTS.names) if "ankle" in name]
        assert self.share_facing_us(0.0) > 0.95
        assert all((person[0, 1] < person[ankles, 1]).all() for person in self.people(0.0))

    def test_with_it_many_do_not(self) -> None:
        assert self.share_facing_us(1.0) < 0.9

    def test_it_leaves_the_pictures_of_its_default_alone(self) -> None:
        assert (render_scene(3, (96, 96), (1, 3), 0.2).frame == render_scene(3, (96, 96), (1, 3), 0.2, 1.0).frame).all()


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            pytest.param({"people": (0, 31)}, "--people", id="too many people"),
            pytest.param({"people": (5, 2)}, "--people", id="range reversed"),
            pytest.param({"occlusion": 2.0}, "--occlusion", id="occlusion above one"),
            pytest.param({"occlusion": float("nan")}, "--occlusion", id="occlusion not a number"),
            pytest.param({"variety": -0.1}, "--variety", id="negative variety"),
            pytest.param({"size": 8}, "--size", id="too small"),
            pytest.param({"size": (64, 10**6)}, "--size", id="too large"),
            pytest.param({"train_images": 0, "val_images": 0}, "--images", id="no images"),
            pytest.param({"seed": -1}, "--seed", id="negative seed"),
            pytest.param({"workers": 0}, "--workers", id="no workers"),
        ],
    )
    def test_a_wrong_argument_is_named_and_nothing_is_written(
        self, tmp_path: Path, change: dict[str, Any], said: str
    ) -> None:
        arguments: dict[str, Any] = {"train_images": 1, "val_images": 1, "size": 96, **change}
        with pytest.raises(DataError, match=said):
            write_dataset(tmp_path / "out", **arguments)
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_with_files_in_it_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "precious.txt").write_text("keep")
        with pytest.raises(DataError, match="folder with files"):
            write_dataset(tmp_path, train_images=1, val_images=0, size=96)
        assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]

    def test_nothing_appears_when_drawing_breaks_off(self, tmp_path: Path) -> None:
        def interrupt(done: int, total: int) -> None:
            if done == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_dataset(tmp_path / "out", train_images=3, val_images=0, size=96, progress=interrupt)
        assert list(tmp_path.iterdir()) == []


def test_progress_counts_every_image(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    write_dataset(
        tmp_path / "out",
        train_images=2,
        val_images=1,
        size=96,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(1, 3), (2, 3), (3, 3)]
