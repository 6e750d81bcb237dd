from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge.datasets.coco import CocoSplit, load_split
from mdpose_edge.datasets.readers import select_keypoints
from mdpose_edge.errors import ConfigError, DataError
from mdpose_edge.evaluate import FIGURES, Evaluation, coco_figures, evaluate, run_estimator
from mdpose_edge.poses import Poses
from mdpose_edge.spec import COCO_KEYPOINTS
from tests.artifacts import Artifacts
from tests.unit.tiny_coco import HEIGHT, PERSON_CATEGORY, WIDTH, document, person, unlabelled, write_split

REPOSITORY = Path(__file__).parents[2]
UNIFORM_SIGMAS = (0.1,) * 17
LARGE, MEDIUM = 140, 60
"""Sides, in px, of people whose areas lie in COCO's ranges of that name."""


def split_of(tmp_path: Path, people: list[dict[str, Any]], **options: Any) -> CocoSplit:
    write_split(tmp_path, document(people, **options))
    return load_split(tmp_path, "val")


def result(record: dict[str, Any], score: float, shift: float = 0.0) -> dict[str, Any]:
    """The annotated pose as a result, moved to the right by some px."""
    triples = np.array(record["keypoints"], float).reshape(17, 3)
    triples[:, 0] += shift
    return {"image_id": record["image_id"], "category_id": 1, "keypoints": triples.ravel().tolist(), "score": score}


def shift_for(oks: float, area: float) -> float:
    """Invert OKS for 17 visible keypoints that are all off by the same distance, with UNIFORM_SIGMAS."""
    return float(np.sqrt(-np.log(oks) * 2 * area * (2 * UNIFORM_SIGMAS[0]) ** 2))


def test_perfect_results_score_one_everywhere(tmp_path: Path) -> None:
    people = [person(7, side=LARGE), person(7, x=20, side=MEDIUM), person(3, side=LARGE)]
    figures = coco_figures(split_of(tmp_path, people), [result(p, 0.9) for p in people])
    assert figures == pytest.approx(dict.fromkeys(FIGURES, 1.0))


def test_a_figure_without_ground_truth_in_its_range_is_none(tmp_path: Path) -> None:
    one = person(7, side=LARGE)
    figures = coco_figures(split_of(tmp_path, [one]), [result(one, 0.9)])
    assert {name for name, value in figures.items() if value is None} == {"APM", "ARM"}


def test_no_results_score_zero_and_no_people_none(tmp_path: Path) -> None:
    people = [person(7, side=LARGE), person(7, side=MEDIUM)]
    assert coco_figures(split_of(tmp_path / "people", people), []) == dict.fromkeys(FIGURES, 0.0)
    assert coco_figures(split_of(tmp_path / "nobody", []), []) == dict.fromkeys(FIGURES, None)


@pytest.mark.parametrize(("oks", "thresholds_met"), [(0.49, 0), (0.51, 1), (0.72, 5), (0.76, 6), (0.96, 10)])
def test_one_pose_at_a_known_oks_meets_the_thresholds_below_it(oks: float, thresholds_met: int, tmp_path: Path) -> None:
    one = person(7, side=LARGE)
    moved = result(one, 0.9, shift_for(oks, one["area"]))
    figures = coco_figures(split_of(tmp_path, [one]), [moved], sigmas=UNIFORM_SIGMAS)
    assert figures["AP"] == pytest.approx(thresholds_met / 10)
    assert figures["AR"] == pytest.approx(thresholds_met / 10)
    assert figures["AP50"] == pytest.approx(float(oks > 0.5))
    assert figures["AP75"] == pytest.approx(float(oks > 0.75))


def test_a_false_positive_above_one_of_two_people_found(tmp_path: Path) -> None:
    found, missed = person(7, side=LARGE), person(3, side=LARGE)
    results = [result(found, 0.5), result(found, 0.9, shift=1000)]
    figures = coco_figures(split_of(tmp_path, [found, missed]), results)
    # Precision is 1/2 up to recall 1/2: 51 of the 101 recall points.
    assert figures["AP"] == pytest.approx(0.5 * 51 / 101)
    assert figures["AR"] == pytest.approx(0.5)


def test_poses_on_crowds_and_on_unlabelled_people_do_not_count(tmp_path: Path) -> None:
    one, crowd, nobody = person(7, x=20), unlabelled(3, x=20, side=90, iscrowd=1), unlabelled(3, x=200, side=90)
    distractions = [result(person(3, x=x, side=80), 0.95) for x in (22, 26, 204)]
    split = split_of(tmp_path, [one, crowd, nobody])
    assert coco_figures(split, [result(one, 0.5), *distractions])["AP"] == pytest.approx(1.0)


def test_only_the_best_20_of_an_image_count(tmp_path: Path) -> None:
    one = person(7)
    better = [result(one, 0.9, shift=1000 + i) for i in range(20)]
    split = split_of(tmp_path, [one])
    assert coco_figures(split, [*better[1:], result(one, 0.5)])["AR"] == pytest.approx(1.0)
    assert coco_figures(split, [*better, result(one, 0.5)])["AR"] == 0.0


def test_annotation_ids_from_zero_lose_no_match(tmp_path: Path) -> None:
    people = [person(7), person(3)]
    figures = coco_figures(split_of(tmp_path, people, first_id=0), [result(p, 0.9) for p in people])
    assert figures["AP"] == pytest.approx(1.0)


def test_images_beyond_the_limit_are_not_missed(tmp_path: Path) -> None:
    people = [person(7), person(3)]
    split = split_of(tmp_path, people)
    assert coco_figures(split, [result(people[0], 0.9)], num_images=1)["AR"] == pytest.approx(1.0)
    assert coco_figures(split, [result(people[0], 0.9)])["AR"] == pytest.approx(0.5)


def test_results_are_not_modified_and_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one = person(7)
    rows = [result(one, 0.9)]
    before = json.dumps(rows)
    coco_figures(split_of(tmp_path, [one]), rows)
    assert json.dumps(rows) == before
    assert capfd.readouterr() == ("", "")


def test_results_for_other_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="image_id 8"):
        coco_figures(split_of(tmp_path, [person(7)]), [result(person(8), 0.9)])


def reference_figures(annotation_file: Path, results: list[dict[str, Any]]) -> list[float]:
    """The ten figures by pycocotools, from the file itself."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO(str(annotation_file))
        protocol = cocoeval.COCOeval(truth, truth.loadRes([dict(row) for row in results]), "keypoints")
        protocol.evaluate()
        protocol.accumulate()
        protocol.summarize()
    return [float(value) for value in protocol.stats]


def perturbed_results(split: CocoSplit, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Results around the people of a split: some near, some off, some doubled, some missing."""
    results = []
    for image, index in zip(split.images, range(len(split.images)), strict=True):
        people = split.persons(index)
        for triples, box in zip(people.keypoints, people.boxes_xywh, strict=True):
            for _ in range(rng.integers(0, 3)):
                labelled = triples[:, 2:] > 0
                anywhere = box[:2] + rng.uniform(0, 1, (17, 2)) * box[2:]
                xy = np.where(labelled, triples[:, :2], anywhere)
                xy += rng.normal(0, rng.choice([0.005, 0.02, 0.1]) * box[2:].max(), (17, 2))
                keypoints = np.column_stack([xy, np.ones(17)]).ravel().tolist()
                score = round(float(rng.random()), 2)
                results.append({"image_id": image.id, "category_id": 1, "keypoints": keypoints, "score": score})
    return results


@pytest.mark.parametrize("name", ["train", "val"])
def test_figures_on_real_annotations_are_those_of_pycocotools(name: str, shared_data: Path) -> None:
    split = load_split(shared_data / "coco-mini", name)
    results = perturbed_results(split, np.random.default_rng(0))
    figures = coco_figures(split, results)
    assert 0.1 < (figures["AP"] or 0) < 0.9
    assert list(figures.values()) == pytest.approx(reference_figures(split.annotation_file, results), abs=1e-6)


def test_figures_on_synthetic_annotations_are_those_of_pycocotools() -> None:
    pytest.importorskip("pycocotools")
    command = [sys.executable, "benchmarks/coco_eval.py", "--images", "150", "--repeats", "1", "--seed", "1"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert json.loads(done.stdout)["largest_difference"] <= 1e-6


class Oracle:
    """An estimator that knows the answer to each image, in the order in which a split is run."""

    def __init__(self, split: CocoSplit) -> None:
        people = [split.persons(index) for index in range(len(split.images))]
        self.answers = [people[0], *people]  # the first image is shown twice: see run_estimator

    def __call__(self, frame: NDArray[np.uint8]) -> Poses:
        assert frame.shape == (HEIGHT, WIDTH, 3)
        xy = np.ascontiguousarray(self.answers.pop(0).keypoints[..., :2])
        return Poses(xy, np.linspace(0.9, 0.8, len(xy), dtype=np.float32), np.ones_like(xy))


def test_an_estimator_is_run_over_all_images_in_order(tmp_path: Path) -> None:
    split = split_of(tmp_path, [person(7), person(3, x=30), person(3, x=150)])
    seen: list[tuple[int, int]] = []
    results, milliseconds = run_estimator(Oracle(split), split, progress=lambda done, total: seen.append((done, total)))
    assert [row["image_id"] for row in results] == [7, 3, 3]
    assert len(milliseconds) == 2
    assert min(milliseconds) > 0
    assert seen == [(1, 2), (2, 2)]
    assert coco_figures(split, results)["AP"] == pytest.approx(1.0)


def test_results_can_be_evaluated_with_the_annotation_file_itself(artifacts: Artifacts, tmp_path: Path) -> None:
    data = document([person(7), person(3)])
    names = list(reversed(COCO_KEYPOINTS.names))
    data["categories"] = [{**PERSON_CATEGORY, "id": 7, "keypoints": names}]
    for record in data["annotations"]:
        record["category_id"] = 7
    path = write_split(tmp_path, data)
    found = evaluate(artifacts.checkpoint(), tmp_path, "val", threads=1)
    assert {row["category_id"] for row in found.results} == {7}
    library = pytest.importorskip("faster_coco_eval")
    truth = library.COCO(str(path))
    reversed_sigmas = list(reversed(COCO_KEYPOINTS.sigmas))
    judge = library.COCOeval_faster(
        truth, truth.loadRes(found.results), iouType="keypoints", kpt_oks_sigmas=reversed_sigmas
    )
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert judge.stats[5] == pytest.approx(found.figures["AR"])
    own = load_split(tmp_path, "val")
    assert found.figures == coco_figures(own, found.results, sigmas=reversed_sigmas)
    selected = select_keypoints(own, COCO_KEYPOINTS.names)
    assert selected.in_file_order(selected.from_file_order(found.results)) == found.results


def test_people_without_an_area_are_not_measured(artifacts: Artifacts, tmp_path: Path) -> None:
    write_split(tmp_path, document([person(7), person(3, area=0)]))
    with pytest.raises(DataError, match="expected an area above 0 of each person, by which OKS is measured, got 1"):
        evaluate(artifacts.checkpoint(), tmp_path)


def test_a_limit_takes_the_first_images(tmp_path: Path) -> None:
    split = split_of(tmp_path, [person(7), person(3)])
    results, milliseconds = run_estimator(Oracle(split), split, limit=1)
    assert ([row["image_id"] for row in results], len(milliseconds)) == ([7], 1)
    with pytest.raises(ConfigError, match="limit"):
        run_estimator(Oracle(split), split, limit=0)


def test_the_summary_is_json_without_the_results() -> None:
    evaluation = Evaluation("m", "torch", "d", "val", 1, {"AP": None}, {"median": 1.0}, {"cores": 2}, [{"score": 1.0}])
    summary = json.loads(json.dumps(evaluation.to_json_dict()))
    assert summary["figures"] == {"AP": None}
    assert "results" not in summary


def test_a_checkpoint_is_evaluated_end_to_end(artifacts: Artifacts, tmp_path: Path) -> None:
    write_split(tmp_path, document([person(7), person(3)]))
    model = artifacts.checkpoint()
    found = evaluate(model, tmp_path, "val", threads=1)
    assert (found.model, found.engine, found.data, found.split) == (str(model), "torch", str(tmp_path), "val")
    assert found.images == 2
    assert tuple(found.figures) == FIGURES
    assert 0 < found.ms["median"] <= found.ms["p90"]
    per_image = Counter(row["image_id"] for row in found.results)
    assert set(per_image) == {7, 3}
    # A random network finds people everywhere, so that the bound on poses shows.
    assert max(per_image.values()) <= 20
    assert found.figures == coco_figures(load_split(tmp_path, "val"), found.results)


@pytest.mark.parametrize(
    ("people", "limit", "where"),
    [
        pytest.param([], None, "the split", id="no annotations"),
        pytest.param([unlabelled(7), person(3, iscrowd=1)], None, "the split", id="none to measure on"),
        pytest.param([person(3)], 1, "the first 1 of 2 images", id="none in the first image"),
    ],
)
def test_a_split_of_nobody_is_refused(
    artifacts: Artifacts, tmp_path: Path, people: list[Any], limit: int | None, where: str
) -> None:
    write_split(tmp_path, document(people))
    seen: list[int] = []
    with pytest.raises(DataError, match=f"people with annotated keypoints to measure on, got none in {where}"):
        evaluate(artifacts.checkpoint(), tmp_path, limit=limit, progress=lambda done, _: seen.append(done))
    assert seen == []


def test_data_with_other_keypoints_than_the_model_predicts_is_refused(artifacts: Artifacts, tmp_path: Path) -> None:
    birds = {**PERSON_CATEGORY, "keypoints": ["beak", *COCO_KEYPOINTS.names[1:]]}
    write_split(tmp_path, {**document([person(7)]), "categories": [birds]})
    with pytest.raises(DataError, match="got beak"):
        evaluate(artifacts.checkpoint(), tmp_path, "val")
