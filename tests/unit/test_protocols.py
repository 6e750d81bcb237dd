"""CrowdPose's and OCHuman's protocols, on cases worked out by hand and against the library's own CrowdPose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import faster_coco_eval
import numpy as np
import pytest

from mdpose_edge.datasets.coco import CocoSplit
from mdpose_edge.datasets.keypoints import CROWDPOSE_KEYPOINTS
from mdpose_edge.datasets.readers import open_split
from mdpose_edge.errors import ConfigError, DataError
from mdpose_edge.evaluate import CROWD_LEVELS, CROWDPOSE_FIGURES, FIGURES, evaluate, figure_names, protocol_figures
from mdpose_edge.spec import COCO_KEYPOINTS
from tests.artifacts import Artifacts
from tests.unit.datasets.public_formats import write_crowdpose, write_ochuman


def truth_as_results(split: CocoSplit, images: range, shift: float = 0.0, score: float = 0.9) -> list[dict[str, Any]]:
    """Return the annotated people of some images as results, moved to the right by some px."""
    results = []
    for index in images:
        for triples in split.keypoints[split.first_person[index] : split.first_person[index + 1]]:
            moved = np.column_stack([triples[:, 0] + shift, triples[:, 1], np.ones(len(triples))])
            row = {"image_id": split.images[index].id, "category_id": 1, "score": score}
            results.append({**row, "keypoints": moved.ravel().tolist()})
    return results


def crowdpose(tmp_path: Path) -> CocoSplit:
    write_crowdpose(tmp_path)
    return open_split(tmp_path, "test")


def test_each_crowd_level_is_an_ap_over_its_own_images(tmp_path: Path) -> None:
    split = crowdpose(tmp_path)  # crowd indices 0.05, 0.15, 0.5, 0.9
    found = truth_as_results(split, range(0, 2)) + truth_as_results(split, range(3, 4))  # nobody on the third
    figures = protocol_figures(split, found, sigmas=CROWDPOSE_KEYPOINTS.sigmas)
    assert tuple(figures) == figure_names(split) == (*CROWDPOSE_FIGURES, *CROWD_LEVELS)
    assert figures["AP_easy"] == figures["AP_hard"] == figures["AP_easy_0.2"] == pytest.approx(1.0)
    # Two of four people: precision 1 up to recall 1/2, 51 of the 101 recall points.
    assert figures["AP_medium"] == pytest.approx(51 / 101)
    assert figures["AP_medium_0.2"] == 0.0
    assert figures["AR"] == pytest.approx(6 / 8)
    assert figures["AP"] == pytest.approx(76 / 101)  # recall 0.75


def test_a_level_without_images_or_people_is_none(tmp_path: Path) -> None:
    split = crowdpose(tmp_path)
    figures = protocol_figures(split, [], sigmas=CROWDPOSE_KEYPOINTS.sigmas, num_images=1)
    assert {name for name, value in figures.items() if value is None} == {"AP_medium", "AP_hard", "AP_medium_0.2"}
    assert figures["AP_easy"] == 0.0


def test_crowdpose_measures_oks_by_its_own_sigmas_and_53_percent_of_the_box(tmp_path: Path) -> None:
    split = crowdpose(tmp_path)
    person = split.keypoints[0]
    labelled = person[:, 2] > 0
    width, height = split.boxes_xywh[0, 2:]
    shift = 0.08 * np.sqrt(width * height)
    spread = 2 * 0.53 * width * height * (2 * np.array(CROWDPOSE_KEYPOINTS.sigmas)[labelled]) ** 2
    oks = float(np.exp(-(shift**2) / spread).mean())
    thresholds_met = int((np.linspace(0.5, 0.95, 10) <= oks).sum())
    assert 0 < thresholds_met < 10
    moved = truth_as_results(split, range(1), shift)[:1] + truth_as_results(split, range(1))[1:]
    figures = protocol_figures(split, moved, sigmas=CROWDPOSE_KEYPOINTS.sigmas, num_images=1)
    assert figures["AR"] == pytest.approx((thresholds_met / 10 + 1) / 2)


def test_crowdposes_figures_are_those_of_the_librarys_own_port(tmp_path: Path) -> None:
    path = write_crowdpose(tmp_path)
    split = open_split(tmp_path, "test")
    rng = np.random.default_rng(0)
    results = []
    for index in range(4):
        results += truth_as_results(split, range(index, index + 1), rng.uniform(0, 6), rng.uniform(0.1, 1))
    results += truth_as_results(split, range(2), 30, 0.5)
    truth = faster_coco_eval.COCO(str(path))
    found = truth.loadRes([dict(row) for row in results])
    reference = faster_coco_eval.COCOeval_faster(
        truth, found, "keypoints_crowd", kpt_oks_sigmas=list(CROWDPOSE_KEYPOINTS.sigmas), use_area=False
    )
    reference.evaluate()
    reference.accumulate()
    reference.summarize()
    figures = protocol_figures(split, results, sigmas=CROWDPOSE_KEYPOINTS.sigmas)
    assert [figures[name] for name in CROWDPOSE_FIGURES] == pytest.approx(reference.stats[:6].tolist())
    levels = [figures["AP_easy_0.2"], figures["AP_medium_0.2"], figures["AP_hard"]]
    assert levels == pytest.approx(reference.stats[6:9].tolist(), abs=5e-5)  # which are rounded to four digits
    assert 0 < min(reference.stats[6:9]) < 1


def test_ochuman_has_cocos_ten_figures_and_a_perfect_result_scores_one(tmp_path: Path) -> None:
    write_ochuman(tmp_path)
    split = open_split(tmp_path, "val")
    figures = protocol_figures(split, truth_as_results(split, range(3)), sigmas=COCO_KEYPOINTS.sigmas)
    assert tuple(figures) == figure_names(split) == FIGURES
    measured = [value for value in figures.values() if value is not None]
    assert measured == pytest.approx([1.0] * len(measured)) and figures["AP"] is not None


def test_a_model_is_evaluated_on_ochuman_end_to_end(artifacts: Artifacts, tmp_path: Path) -> None:
    write_ochuman(tmp_path)
    found = evaluate(artifacts.checkpoint(), tmp_path, "val", threads=1)
    assert (found.format, found.images) == ("ochuman", 3)
    assert json.loads(json.dumps(found.to_json_dict()))["format"] == "ochuman"
    assert {row["image_id"] for row in found.results} <= {1, 2, 3}


def test_keypoints_that_are_not_the_models_are_refused(artifacts: Artifacts, tmp_path: Path) -> None:
    write_crowdpose(tmp_path)
    with pytest.raises(DataError, match=r"expected the keypoints nose, .*got left_shoulder"):
        evaluate(artifacts.checkpoint(), tmp_path, "test")
    with pytest.raises(ConfigError, match=r"--keypoints: expected the keypoints that .* predicts"):
        evaluate(artifacts.checkpoint(), tmp_path, "test", keypoints=CROWDPOSE_KEYPOINTS)
