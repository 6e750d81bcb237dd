"""The gate on tiny real networks: what is the same holds, and each planted fault falls."""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from mdpose_edge.bundle import open_bundle
from mdpose_edge.check.gate import Check, check, record
from mdpose_edge.check.measures.accuracy import HEADLINE_FIGURES
from mdpose_edge.check.report import render
from mdpose_edge.datasets.coco import load_split, write_results
from mdpose_edge.errors import ConfigError, DataError, EngineError, InputError, MdposeError
from mdpose_edge.evaluate import FIGURES, evaluate
from mdpose_edge.families.measure import Measured
from mdpose_edge.spec import InputSpec
from tests.artifacts import SIZE, Artifacts
from tests.unit.check.faults import Edit, edited_bundle, scale_one_layer, scale_outputs, swap_colours

SHARED_LIMITS = (
    "settings",
    "nll",
    "score_distance",
    "score_shift",
    "pose_shift",
    "output_error",
    "component_kl",
    "weight_kl",
)


def run(candidate: Path, reference: Path, data: Path | None, **options: object) -> Check:
    return check(candidate, reference, data, threads=1, **options)  # type: ignore[arg-type]


def fallen(found: Check) -> set[str]:
    return {finding.key for finding in found.verdict.fallen}


def mixtures(found: Check) -> Measured:
    """What the family's own measure found."""
    return found.measurement.measured[-1]


def judged(found: Check) -> set[str]:
    return {finding.key for finding in found.verdict.findings if finding.held is not None}


def test_a_bundle_holds_against_itself_without_any_change(bundle: Path, data: Path) -> None:
    found = run(bundle, bundle, data)
    assert found.verdict.held
    assert judged(found) >= set(SHARED_LIMITS)
    assert {finding.change for finding in found.verdict.findings} <= {0.0, None}
    assert all(output.rms == 0.0 for output in found.measurement.outputs)


@pytest.mark.parametrize(("target", "precision"), [("openvino", "fp32"), ("torch", "fp32"), ("onnx", "fp16")])
def test_another_engine_or_fp16_holds(
    target: str, precision: str, artifacts: Artifacts, bundle: Path, data: Path
) -> None:
    found = run(artifacts.model(target, precision), bundle, data)
    assert found.verdict.held, found.verdict.sentence()
    assert found.candidate.engine != found.reference.engine or precision == "fp16"


def test_sides_of_different_batch_are_compared_image_by_image(artifacts: Artifacts, bundle: Path, data: Path) -> None:
    found = run(artifacts.bundle("onnx", batch=2), bundle, data)
    assert len(found.measurement.images) == 3
    assert mixtures(found).per_image.max() < 1e-6


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        pytest.param(scale_outputs("gamma", 1.7), {"component_kl"}, id="gamma scaled"),
        pytest.param(scale_outputs("gamma", 0.0), {"component_kl"}, id="gamma constant"),
        pytest.param(scale_outputs("o", 0.5), {"weight_kl", "score_distance"}, id="o scaled"),
        pytest.param(scale_outputs("mu", 1.3), {"component_kl"}, id="mu scaled"),
        pytest.param(swap_colours, {"component_kl"}, id="red and blue swapped"),
        pytest.param(scale_one_layer(4.0), {"component_kl"}, id="one layer times 4"),
    ],
)
def test_a_planted_fault_falls(edit: Edit, expected: set[str], bundle: Path, data: Path, tmp_path: Path) -> None:
    found = run(edited_bundle(bundle, tmp_path / "bundle", edit), bundle, data)
    assert fallen(found) >= expected


def test_a_broken_gamma_leaves_poses_and_scores_untouched(bundle: Path, data: Path, tmp_path: Path) -> None:
    found = run(edited_bundle(bundle, tmp_path / "bundle", scale_outputs("gamma", 0.0)), bundle, data)
    assert max(image.disagreement for image in found.measurement.images) == pytest.approx(0.0, abs=1e-6)
    changes = {finding.key: finding.change for finding in found.verdict.findings}
    assert changes["score_distance"] == changes["score_shift"] == changes["weight_kl"] == 0.0
    assert changes["nll"] != 0.0


def test_another_resize_policy_falls(bundle: Path, data: Path, tmp_path: Path) -> None:
    letterbox = dataclasses.replace(open_bundle(bundle).spec.input, resize="letterbox")
    other = edited_bundle(bundle, tmp_path / "bundle", input=letterbox)
    assert fallen(run(other, bundle, data)) >= {"settings", "component_kl"}


def test_another_resize_policy_falls_even_where_the_frames_are_square(bundle: Path, data: Path, tmp_path: Path) -> None:
    square = cv2.resize(cv2.imread(str(data / "val2017" / "000000000007.jpg")), (200, 200))
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "square.png"), square)
    letterbox = dataclasses.replace(open_bundle(bundle).spec.input, resize="letterbox")
    other = edited_bundle(bundle, tmp_path / "bundle", input=letterbox)
    assert fallen(run(other, bundle, tmp_path / "images")) == {"settings"}


def test_plain_images_are_judged_without_accuracy(bundle: Path, data: Path, tmp_path: Path) -> None:
    plain = data / "val2017"
    assert judged(run(bundle, bundle, plain)) == set(SHARED_LIMITS) - {"nll"}
    broken = edited_bundle(bundle, tmp_path / "bundle", scale_outputs("gamma", 0.0))
    assert fallen(run(broken, bundle, plain)) == {"component_kl", "output_error"}


def test_a_recording_stands_for_the_artifact_on_a_machine_without_data(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    recording = tmp_path / "heads.npz"
    assert record(bundle, recording, data, threads=1, limit=2) == 2
    found = run(bundle, recording, None)
    assert found.verdict.held
    assert (len(found.images), found.reference.engine) == (2, "onnxruntime, recorded")
    assert {finding.change for finding in found.verdict.findings} == {0.0}
    broken = edited_bundle(bundle, tmp_path / "bundle", swap_colours)
    assert not run(broken, recording, None).verdict.held
    assert judged(run(bundle, recording, data, limit=2)) >= set(SHARED_LIMITS)


def test_a_recording_of_other_images_is_refused(bundle: Path, data: Path, tmp_path: Path) -> None:
    record(bundle, tmp_path / "heads.npz", data, threads=1, limit=1)
    with pytest.raises(DataError, match=r"head tensors of .*000003\.jpg"):
        run(bundle, tmp_path / "heads.npz", data)


def test_results_stand_for_the_artifact_that_made_them(bundle: Path, data: Path, tmp_path: Path) -> None:
    made = evaluate(bundle, data, threads=1)
    write_results(tmp_path / "results.json", made.results)
    found = run(bundle, tmp_path / "results.json", data)
    assert found.verdict.held
    points = {finding.key: finding.reference for finding in found.verdict.findings if finding.unit == "AP points"}
    percent = {name: None if value is None else 100.0 * value for name, value in made.figures.items()}
    assert {name: points[name] for name in ("AP", *HEADLINE_FIGURES)}.items() <= percent.items()
    changes = {finding.key: finding.change for finding in found.verdict.findings}
    assert (changes["score_distance"], changes["score_shift"]) == (0.0, 0.0)
    assert {f.note for f in found.verdict.findings if f.key in ("nll", "coverage_50")} >= {"one side has no mixture"}
    worse = edited_bundle(bundle, tmp_path / "bundle", scale_outputs("o", 0.5))
    assert fallen(run(worse, tmp_path / "results.json", data)) >= {"score_distance"}


def _perfect_results(data: Path) -> list[dict[str, object]]:
    split = load_split(data, "val")
    return [
        {"image_id": image.id, "category_id": 1, "keypoints": keypoints.ravel().tolist(), "score": 0.9}
        for index, image in enumerate(split.images)
        for keypoints in split.persons(index).keypoints
    ]


def test_a_candidate_that_finds_nobody_falls_behind_perfect_results(bundle: Path, data: Path, tmp_path: Path) -> None:
    write_results(tmp_path / "results.json", _perfect_results(data))
    found = run(bundle, tmp_path / "results.json", data)
    (ap,) = (finding for finding in found.verdict.findings if finding.key == "AP")
    assert ap.reference == pytest.approx(100.0)
    assert fallen(found) >= {"AP", "AP50", "AP75", "AR", "AP_deployed"}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(lambda rows: {"figures": {}}, "a list of COCO results", id="the figures instead"),
        pytest.param(lambda rows: [{**rows[0], "score": float("nan")}], "results with image_id", id="NaN"),
        pytest.param(lambda rows: [{**rows[0], "keypoints": [1, 2]}], "51 keypoint numbers", id="other keypoints"),
        pytest.param(
            lambda rows: [rows[0], {**rows[0], "keypoints": [1, 2]}],
            r"got keypoints of shape \(2,\) in result 1, counted from 0; give",
            id="keypoints of another length",
        ),
        pytest.param(lambda rows: [{**rows[0], "keypoints": ["x"]}], "got keypoints of other than numbers", id="words"),
        pytest.param(lambda rows: [{**rows[0], "score": [1]}], "got score of shape", id="a list of scores"),
        pytest.param(lambda rows: [{"image_id": 7, "score": 1}], "got no keypoints in result 0", id="no keypoints"),
        pytest.param(lambda rows: [{**rows[0], "image_id": "7"}], "got image_id '7', a str, in result 0", id="text id"),
        pytest.param(lambda rows: [7], "got a int in result 0", id="a number"),
        pytest.param(lambda rows: [{**rows[0], "image_id": 99}], "image_id 99", id="other images"),
        pytest.param(lambda rows: [r for r in rows if r["image_id"] == 7], "none for 2 of them", id="fewer images"),
    ],
)
def test_unfit_results_are_refused(spoil: object, words: str, bundle: Path, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(spoil(_perfect_results(data))))  # type: ignore[operator]
    with pytest.raises(DataError, match=words):
        run(bundle, path, data)


def test_results_need_annotated_images(bundle: Path, data: Path, tmp_path: Path) -> None:
    write_results(tmp_path / "results.json", _perfect_results(data))
    with pytest.raises(DataError, match="annotated images"):
        run(bundle, tmp_path / "results.json", data / "val2017")


@pytest.mark.parametrize(
    ("reference", "options", "error", "words"),
    [
        pytest.param("none", {}, MdposeError, "no such file", id="no reference"),
        pytest.param("none.json", {}, DataError, "none.json: .* no such file", id="no results"),
        pytest.param("none.npz", {}, DataError, "none.npz: .* no such file", id="no recording"),
        pytest.param("none.txt", {}, MdposeError, "none.txt: .* no such file", id="no file of any kind"),
        pytest.param("heads.npz", {"reference_runtime": "openvino"}, ConfigError, "--reference-runtime", id="runtime"),
        pytest.param("BUNDLE", {"limit": 0}, ConfigError, "at least 1", id="limit"),
        pytest.param("BUNDLE", {"runtime": "torch"}, EngineError, "torch", id="engine"),
    ],
)
def test_what_cannot_be_measured_is_an_error(
    reference: str, options: dict[str, object], error: type[Exception], words: str, bundle: Path, data: Path
) -> None:
    with pytest.raises(error, match=words):
        run(bundle, bundle if reference == "BUNDLE" else Path(reference), data, **options)


def test_a_reference_that_is_missing_is_told_before_all_else(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for candidate, data in ((bundle, tmp_path / "frames"), (bundle, None), (tmp_path / "none", tmp_path / "frames")):
        with pytest.raises(DataError, match=r"nofile\.json: expected .* got no such file"):
            run(candidate, tmp_path / "nofile.json", data)


def test_data_is_needed_unless_the_reference_carries_it(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--data"):
        run(bundle, bundle, None)
    with pytest.raises(InputError, match="with images"):
        run(bundle, bundle, tmp_path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-100]), "a recording", id="cut short"),
        pytest.param(lambda path: path.write_text("no"), "a recording", id="no recording"),
        pytest.param(lambda path: np.savez(path, other=np.zeros(3)), "meta in the recording", id="another npz"),
        pytest.param(lambda path: _flip(path), "undamaged", id="a changed byte"),
        pytest.param(lambda path: _break_a_header(path), "undamaged", id="a broken header"),
    ],
)
def test_a_damaged_recording_is_refused(damage: object, words: str, bundle: Path, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "heads.npz"
    record(bundle, path, data, threads=1, limit=1)
    damage(path)  # type: ignore[operator]
    with pytest.raises(DataError, match=words):
        run(bundle, path, None)


def test_a_recording_that_fails_leaves_no_file(bundle: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes((data / "val2017" / "000000000007.jpg").read_bytes())
    (tmp_path / "images" / "b.jpg").write_text("no image")
    with pytest.raises(InputError, match=r"b\.jpg"):
        record(bundle, tmp_path / "heads.npz", tmp_path / "images", threads=1)
    with pytest.raises(ConfigError, match=r"\.npz"):
        record(bundle, tmp_path / "heads.bin", data, threads=1)
    assert os.listdir(tmp_path) == ["images"]


def test_artifacts_of_other_cells_are_compared_by_poses_alone(
    artifacts: Artifacts, bundle: Path, data: Path, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    from mdpose_edge.checkpoint import save_checkpoint
    from mdpose_edge.families.mdpose.network import MDPoseNetwork, NetworkConfig, make_spec

    torch.manual_seed(0)
    spec = make_spec(NetworkConfig("test_resnet", channels=16, head_convs=2), InputSpec(SIZE, 2 * SIZE))
    save_checkpoint(tmp_path / "wide.safetensors", spec, MDPoseNetwork(spec, auxiliary_center=True).state_dict())
    found = run(tmp_path / "wide.safetensors", bundle, data)
    assert found.measurement.outputs == () and mixtures(found).per_image is None
    assert judged(found) >= {"nll", "settings"}
    states = {finding.key: finding.state for finding in found.verdict.findings}
    assert states["component_kl"] == states["weight_kl"] == states["output_error"] == "not judged: different cells"
    assert "Not known: different cells." in render(found)
    settings = dataclasses.replace(spec.input, resize="letterbox")
    boxed = dataclasses.replace(spec, input=settings)
    save_checkpoint(tmp_path / "boxed.safetensors", boxed, MDPoseNetwork(boxed, auxiliary_center=True).state_dict())
    (fell,) = (f for f in run(tmp_path / "boxed.safetensors", bundle, data).verdict.fallen if f.key == "settings")
    assert fell.label == "settings that differ: input.resize"


def test_the_document_says_who_was_compared_and_on_what(bundle: Path, data: Path) -> None:
    document = json.loads(json.dumps(run(bundle, bundle, data).to_json_dict(), allow_nan=False))
    assert document["held"] is True
    assert document["candidate"]["engine"] == "onnxruntime"
    assert (document["images"], document["labelled"]) == (3, True)
    assert set(document["outputs"]) == set(open_bundle(bundle).spec.outputs)
    assert set(FIGURES[:6]) <= {finding["key"] for finding in document["findings"]}


def _break_a_header(path: Path) -> None:
    """Leave a bracket of an array's header open, in an archive that is whole."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data.replace(b"}", b" ", 1) if name == "meta.npy" else data)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
