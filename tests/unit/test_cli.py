"""The command line: what it prints, what it writes, and one sentence for each bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from mdpose_edge import __version__
from tests.artifacts import SIZE, Artifacts
from tests.command import Run, command_runner
from tests.unit.check.faults import edited_bundle, scale_outputs
from tests.unit.tiny_coco import document, person, write_split


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; give its exit code, stdout and stderr."""
    return command_runner(monkeypatch, capsys)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    assert cv2.imwrite(str(path), noise)
    return path


def test_version_and_help(run: Run) -> None:
    assert run("--version") == (0, __version__ + "\n", "")
    code, out, _ = run("--help")
    assert code == 0
    commands = (
        "synth",
        "train",
        "import",
        "export",
        "build",
        "eval",
        "check",
        "infer",
        "calib",
        "nvdla",
        "triton",
        "demo",
    )
    assert all(command in out for command in commands)


def test_nvdla_lists_what_would_leave_it(run: Run, artifacts: Artifacts, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    code, out, _ = run("nvdla", artifacts.bundle("onnx"), "--precision", "int8", "--trt", "8.5.2", "--json", file)
    assert code == 0
    assert "in 1 loadable\n" in out
    assert "gpu       1 Cast: image is uint8: NVDLA computes FP16 and INT8 (/network/normalize/Cast)\n" in out
    found = json.loads(file.read_text())
    assert (found["precision"], found["tensorrt"], found["loadables"]) == ("int8", "8.5.2", 1)
    for trt, message in (
        ("10.13", "expected TensorRT 10.7 or older, the last that builds for NVDLA"),
        ("ten", "--trt: expected a version from 8.5 to 11, got ten"),
    ):
        code, out, error = run("nvdla", tmp_path / "not-read", "--trt", trt)
        assert (code, out) == (2, "")
        assert message in error


def test_nvdla_asks_what_a_bundle_for_it_was_made_for(run: Run, artifacts: Artifacts, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    wish = ("--target", "jetson", "--jetpack", "6.0", "--device", "agx-orin", "--nvdla", 0)
    int8 = ("--precision", "int8", "--calib", artifacts.calibration(), "--allow-few")
    assert run("export", artifacts.checkpoint(), *wish, *int8, "--out", out)[0] == 0
    code, text, _ = run("nvdla", out)
    assert code == 0
    assert text.startswith(f"{out}, int8, TensorRT 8.6.2: ")
    code, text, _ = run("nvdla", out, "--precision", "fp16", "--trt", "8.5.2")
    assert text.startswith(f"{out}, fp16, TensorRT 8.5.2: ")


@pytest.mark.parametrize(
    ("option", "value", "targets"),
    [
        ("--device", "agx-orin", "--target jetson"),
        ("--jetpack", "6.2", "--target jetson"),
        ("--nvdla", 0, "--target jetson"),
        ("--trt", "10.3", "--target tensorrt or jetson"),
    ],
)
def test_an_option_of_tensorrt_names_the_targets_that_take_it(
    run: Run, tmp_path: Path, option: str, value: object, targets: str
) -> None:
    code, _, error = run("export", "absent", "--target", "openvino", option, value, "--out", tmp_path / "out")
    assert code == 2
    assert f"{option}: expected {targets}, got --target openvino; leave it out" in error


def test_triton_writes_a_repository(run: Run, artifacts: Artifacts, tmp_path: Path) -> None:
    out = tmp_path / "repository"
    code, text, _ = run("triton", artifacts.bundle("onnx"), "--out", out, "--name", "people", "--max-batch", 2)
    assert (code, text) == (0, f"{out}\n")
    assert {path.name for path in out.iterdir()} == {"manifest.json", "people", "people_decode", "people_graph"}
    assert "max_batch_size: 2" in (out / "people" / "config.pbtxt").read_text()
    out = tmp_path / "exported"
    code, text, _ = run("export", artifacts.checkpoint(), "--target", "triton", "--out", out)
    assert (code, text) == (0, f"{out}\n")
    assert {path.name for path in out.iterdir()} == {"manifest.json", "pose", "pose_decode", "pose_graph"}
    code, _, error = run("export", artifacts.checkpoint(), "--target", "triton", "--out", out, "--batch", 2)
    assert code == 2
    assert "--batch: expected none: Triton batches by itself, got 2" in error
    (tmp_path / "thesis.txt").touch()
    code, _, error = run("export", artifacts.checkpoint(), "--target", "triton", "--out", tmp_path)
    assert code == 2
    assert "expected a new path or an earlier repository, got a directory that is no repository" in error
    assert "tracing" not in error  # it is told before the work
    code, text, error = run("triton", artifacts.checkpoint(), "--out", tmp_path / "other")
    assert (code, text) == (2, "")
    assert "expected a bundle directory" in error


def test_synth_splits_its_images(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    code, out, _ = run("synth", data, "--images", 11, "--size", 64, "--people", "1-2", "--seed", 3)
    assert (code, out) == (0, f"{data}: 10 images in train2017, 1 in val2017\n")
    assert len(list((data / "train2017").iterdir())) == 10
    assert len(list((data / "val2017").iterdir())) == 1


def test_synth_draws_places_without_people(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert run("synth", data, "--images", 3, "--size", 64, "--people", 0)[0] == 0
    content = json.loads((data / "annotations" / "person_keypoints_train2017.json").read_text())
    assert len(content["images"]) == 2 and content["annotations"] == []


def test_infer_paints_and_tells(run: Run, artifacts: Artifacts, picture: Path, tmp_path: Path) -> None:
    model, record = artifacts.bundle("onnx"), tmp_path / "poses.json"
    code, out, _ = run(
        "infer", model, picture, "--out", tmp_path / "painted", "--threshold", 0, "--sigma", "--json", record
    )
    (image,) = json.loads(record.read_text())["images"]
    assert code == 0
    assert out == f"{tmp_path / 'painted'}: {len(image['poses'])} poses in 1 images\n"
    assert (image["width"], image["height"]) == (120, 90)
    assert len(image["poses"]) > 0
    assert len(image["poses"][0]["sigma_xy"]) == 17
    assert cv2.imread(str(tmp_path / "painted" / "picture.png")).shape == (90, 120, 3)


def test_eval_prints_ten_figures_and_writes_results(run: Run, artifacts: Artifacts, tmp_path: Path) -> None:
    write_split(tmp_path / "data", document([person(7), person(3)]))
    results, record = tmp_path / "results.json", tmp_path / "eval.json"
    words = ("--data", tmp_path / "data", "--results", results, "--json", record, "--threads", 1)
    code, out, _ = run("eval", artifacts.bundle("openvino"), *words)
    figures = json.loads(record.read_text())["figures"]
    assert code == 0
    assert list(figures) == ["AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL"]
    assert all(name in out for name in figures)
    assert {row["image_id"] for row in json.loads(results.read_text())} <= {3, 7}


def test_eval_tells_what_it_takes_though_it_seems_wrong(run: Run, artifacts: Artifacts, tmp_path: Path) -> None:
    write_split(tmp_path / "data", document([person(7), person(7), person(3)]))
    words = ("--data", tmp_path / "data", "--results", tmp_path / "r.json", "--json", tmp_path / "e.json")
    code, _, error = run("eval", artifacts.bundle("onnx"), *words, "--threads", 1)
    said = (
        f"{tmp_path / 'data'}: annotations that seem wrong are taken as they stand: person twice (1); mdpose-edge data"
    )
    assert code == 0 and said in error
    assert json.loads((tmp_path / "e.json").read_text())["doubts"] == {"person twice": 1}


def test_a_limit_on_ap_that_nothing_would_heed_is_refused(run: Run, artifacts: Artifacts, picture: Path) -> None:
    bundle, folder = artifacts.bundle("onnx"), picture.parent
    words = ("check", bundle, "--data", folder, "--threads", 1, "--max-drop", 2)
    code, _, error = run(*words, "--reference", bundle, "--json", folder / "c.json")
    assert code == 2 and f"--max-drop: expected annotations that AP can be measured on, got {folder} without" in error
    code, _, error = run(*words, "--record", folder / "r.npz")
    assert code == 2 and "--max-drop: expected a comparison, got --record; leave it out" in error
    assert sorted(path.name for path in folder.iterdir()) == [picture.name]


def test_a_place_where_no_file_can_be_is_refused_before_the_work(
    run: Run, artifacts: Artifacts, tmp_path: Path
) -> None:
    sheet = tmp_path / "sheet.png"
    code, _, error = run("calib", "show", artifacts.calibration(), "--out", sheet, "--json", "/proc/absent/x")
    assert code == 2 and "/proc, where nothing can be written" in error
    assert not sheet.exists()


def test_check_tells_held_from_fallen_by_its_exit_code(run: Run, artifacts: Artifacts, tmp_path: Path) -> None:
    write_split(tmp_path / "data", document([person(7), person(3)]))
    bundle, record = artifacts.bundle("onnx"), tmp_path / "check.json"
    options = ("--reference", bundle, "--data", tmp_path / "data", "--json", record, "--report", tmp_path / "report")
    code, out, _ = run("check", artifacts.bundle("openvino"), *options)
    assert (code, json.loads(record.read_text())["held"]) == (0, True)
    assert out.splitlines()[-1].startswith("held: ")
    assert out.splitlines()[-2].startswith("figures of only 2 images scatter")
    broken = edited_bundle(bundle, tmp_path / "broken", scale_outputs("gamma", 0.0))
    code, out, _ = run("check", broken, *options)
    assert (code, json.loads(record.read_text())["held"]) == (1, False)
    assert out.splitlines()[-1].startswith("fell short in ")
    assert "Fell short" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


def test_check_against_a_recording_needs_no_data(run: Run, artifacts: Artifacts, tmp_path: Path) -> None:
    write_split(tmp_path / "data", document([person(7), person(3)]))
    bundle, heads = artifacts.bundle("onnx"), tmp_path / "heads.npz"
    code, out, _ = run("check", bundle, "--record", heads, "--data", tmp_path / "data", "--limit", 1)
    assert (code, out) == (0, f"{heads}: head tensors of 1 images\n")
    assert run("check", bundle, "--reference", heads)[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param([], ["--reference", "neither"], id="nothing to compare with"),
        pytest.param(["--reference", "x", "--record", "y.npz"], ["--reference", "both"], id="compare and record"),
        pytest.param(["--record", "y.npz"], ["--data"], id="nothing to record"),
        pytest.param(["--reference", "none.npz"], ["none.npz"], id="no recording"),
        pytest.param(["--reference", "none.json", "--data", "."], ["none.json", "no such file"], id="no results"),
        pytest.param(["--reference", "none", "--data", "."], ["none: ", "no such file"], id="no reference"),
    ],
)
def test_check_that_cannot_measure_exits_with_2(
    run: Run, artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: list[str]
) -> None:
    bundle = artifacts.bundle("onnx")
    monkeypatch.chdir(tmp_path)
    _assert_one_sentence(*run("check", bundle, *words), said)
    assert list(tmp_path.iterdir()) == []


def test_export_makes_a_bundle_that_opens(run: Run, artifacts: Artifacts, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    code, printed, _ = run("export", artifacts.checkpoint(), "--target", "onnx", "--out", out)
    assert (code, printed) == (0, f"{out}\n")
    assert json.loads((out / "spec.json").read_text())["target"] == "onnx"


def test_calib_makes_a_set_like_a_model_and_shows_it(run: Run, artifacts: Artifacts, tmp_path: Path) -> None:
    write_split(tmp_path / "data", document([person(7)], image_ids=[7]))
    calib, sheet, record = tmp_path / "calib", tmp_path / "sheet.png", tmp_path / "calib.json"
    picked = ("--data", tmp_path / "data", "--split", "val", "--num", 1, "--allow-few")
    code, out, _ = run("calib", "make", *picked, "--like", artifacts.checkpoint(), "--out", calib)
    digest = json.loads((calib / "calib.json").read_text())["digest"]
    assert code == 0
    assert out == f"{calib}: 1 images, 0 unreadable skipped, 0 duplicates passed over; digest {digest}\n"
    assert np.load(calib / "inputs.npy").shape == (1, SIZE, SIZE, 3)
    code, out, _ = run("calib", "show", calib, "--out", sheet, "--json", record)
    assert code == 0
    assert digest in out and "brightness, median" in out and "people 5 and more" in out
    assert json.loads(record.read_text())["people"] == {"0": 0, "1": 1, "2 to 4": 0, "5 and more": 0}
    assert cv2.imread(str(sheet)).shape[1] == 200


def test_calib_takes_a_size_instead_of_a_model(run: Run, picture: Path, tmp_path: Path) -> None:
    words = ("--num", 1, "--allow-few", "--height", 32, "--width", 64, "--resize", "letterbox")
    code, _, _ = run("calib", "make", "--data", picture.parent, *words, "--out", tmp_path / "calib")
    record = json.loads((tmp_path / "calib" / "calib.json").read_text())
    assert code == 0
    assert [record["input"][key] for key in ("height", "width", "resize")] == [32, 64, "letterbox"]


def _save(name: str, image: np.ndarray) -> Callable[[Path], object]:
    return lambda folder: cv2.imwrite(str(folder / name), image)


def _truncated_jpeg(folder: Path) -> None:
    data = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))[1].tobytes()
    (folder / "x.jpg").write_bytes(data[: len(data) // 2])


def test_infer_gives_poses_as_json_alone(run: Run, artifacts: Artifacts, picture: Path, tmp_path: Path) -> None:
    model, both, alone = artifacts.bundle("onnx"), tmp_path / "both.json", tmp_path / "alone.json"
    assert run("infer", model, picture, "--out", tmp_path / "painted", "--threshold", 0, "--json", both)[0] == 0
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = run("infer", model, picture, "--threshold", 0, "--json", alone)
    assert code == 0 and f"{alone}: " in out
    assert set(tmp_path.rglob("*")) - set(before) == {alone}
    (with_copy,), (without,) = (json.loads(path.read_text())["images"] for path in (both, alone))
    assert without["poses"] and without["painted"] is None
    assert without == {**with_copy, "painted": None}
    code, out, _ = run("infer", model, picture, "--threshold", 0, "--json", "-")
    assert code == 0 and json.loads(out)["images"] == [without]


@pytest.mark.parametrize(
    ("prepare", "source", "words"),
    [
        pytest.param(lambda folder: None, "x.jpg", ["x.jpg", "no such file"], id="no such file"),
        pytest.param(lambda folder: (folder / "x.jpg").write_text("hello"), "x.jpg", ["x.jpg"], id="no image"),
        pytest.param(_truncated_jpeg, "x.jpg", ["x.jpg", "breaks off"], id="truncated JPEG"),
        pytest.param(_save("x.png", np.zeros((1, 1, 3), np.uint8)), "x.png", ["at least 16 px", "1x1"], id="1x1"),
        pytest.param(_save("x.png", np.zeros((20, 20000, 3), np.uint8)), "x.png", ["20000x20"], id="20000x20"),
        pytest.param(_save("x.png", np.zeros((90, 90, 4), np.uint8)), "x.png", ["transparent"], id="transparent RGBA"),
        pytest.param(_save("x.png", np.zeros((90, 90, 3), np.uint16)), "x.png", ["16"], id="16 bit"),
        pytest.param(lambda folder: (folder / "x").mkdir(), "x", ["image"], id="empty folder"),
    ],
)
def test_infer_refuses_a_bad_source_in_one_sentence(
    run: Run, artifacts: Artifacts, tmp_path: Path, prepare: Callable[[Path], object], source: str, words: list[str]
) -> None:
    prepare(tmp_path)
    code, out, err = run("infer", artifacts.bundle("onnx"), tmp_path / source, "--out", tmp_path / "out")
    _assert_one_sentence(code, out, err, words)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.full((90, 120), 80, np.uint8), id="grey"),
        pytest.param(np.full((90, 120, 4), 255, np.uint8), id="opaque RGBA"),
    ],
)
def test_infer_takes_what_loses_nothing_as_bgr(
    run: Run, artifacts: Artifacts, tmp_path: Path, image: np.ndarray
) -> None:
    cv2.imwrite(str(tmp_path / "x.png"), image)
    code, _, _ = run("infer", artifacts.bundle("onnx"), tmp_path / "x.png", "--out", tmp_path / "out")
    assert code == 0
    assert (tmp_path / "out" / "x.png").is_file()


def _changed_byte(bundle: Path) -> None:
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(bytes(data))


def _edit_spec(**changes: object) -> Callable[[Path], object]:
    def edit(bundle: Path) -> None:
        spec = json.loads((bundle / "spec.json").read_text())
        (bundle / "spec.json").write_text(json.dumps({**spec, **changes}))

    return edit


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(_changed_byte, ["model.onnx", "sha256"], id="one byte changed"),
        pytest.param(lambda bundle: (bundle / "model.onnx").unlink(), ["model.onnx"], id="a file missing"),
        pytest.param(_edit_spec(colour="BGR"), ["unknown key colour"], id="an unknown spec key"),
        pytest.param(_edit_spec(spec_version=99), ["spec_version", "99"], id="a newer spec version"),
        pytest.param(lambda bundle: (bundle / "spec.json").write_text("{"), ["spec.json"], id="a truncated spec"),
        pytest.param(shutil.rmtree, ["bundle"], id="no bundle"),
    ],
)
def test_a_damaged_bundle_is_refused_in_one_sentence(
    run: Run, artifacts: Artifacts, picture: Path, tmp_path: Path, damage: Callable[[Path], object], words: list[str]
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(artifacts.bundle("onnx"), bundle)
    damage(bundle)
    _assert_one_sentence(*run("infer", bundle, picture, "--out", tmp_path / "out"), words)
    assert not (tmp_path / "out").exists()


def test_a_pickle_is_never_loaded(run: Run, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "model.safetensors")
    words = ("export", tmp_path / "model.safetensors", "--target", "onnx", "--out", tmp_path / "bundle")
    _assert_one_sentence(*run(*words), ["pickle"])
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        pytest.param(["synth", "OUT", "--people", "many"], ["--people", "many"], id="people"),
        pytest.param(["synth", "OUT", "--images", "5", "--val-images", "5"], ["--val-images"], id="val images"),
        pytest.param(["train", "none.yaml", "--data", "D", "--out", "OUT"], ["none.yaml", "no such file"], id="config"),
        pytest.param(
            ["calib", "make", "--data", ".", "--out", "OUT", "--height", "64", "--width", "64", "--num", "99"],
            ["--num", "at least 100 images", "99", "--allow-few"],
            id="few calibration images",
        ),
        pytest.param(["calib", "make", "--data", ".", "--out", "OUT"], ["--like", "none of them"], id="no input size"),
        pytest.param(
            ["calib", "make", "--data", ".", "--out", "OUT", "--height", "64"],
            ["--width", "--height"],
            id="half a size",
        ),
        pytest.param(
            ["calib", "make", "--data", ".", "--out", "OUT", "--like", "M", "--resize", "stretch"],
            ["--like", "--resize"],
            id="a model and a policy",
        ),
        pytest.param(["calib", "show", "."], ["a calibration set", "calib.json"], id="no calibration set"),
        pytest.param(["calib", "show", ".", "--out", "OUT.gif"], ["--out", ".png or .jpg"], id="no sheet's suffix"),
        pytest.param(["demo", "--out", "."], ["an earlier demo's"], id="demo into a used folder"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").touch()
    _assert_one_sentence(*run(*command), words)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(
            lambda data: {**data, "categories": [{"id": 1, "name": "person"}]}, ["keypoints"], id="without keypoints"
        ),
        pytest.param(lambda data: {"images": []}, ["annotations"], id="without annotations"),
    ],
)
def test_eval_refuses_other_annotations(
    run: Run, artifacts: Artifacts, tmp_path: Path, make: Callable[[dict[str, object]], object], words: list[str]
) -> None:
    path = write_split(tmp_path / "data", document([person(7)]))
    path.write_text(json.dumps(make(json.loads(path.read_text()))))
    command = ("eval", artifacts.bundle("onnx"), "--data", tmp_path / "data", "--results", tmp_path / "results.json")
    _assert_one_sentence(*run(*command), words)
    assert not (tmp_path / "results.json").exists()


def _assert_one_sentence(code: int, out: str, err: str, words: list[str]) -> None:
    assert (code, out) == (2, "")
    sentence = err.splitlines()[-1]
    assert sentence.startswith("mdpose-edge: ")
    assert "expected" in sentence and ", got " in sentence and "; " in sentence and sentence.endswith(".")
    assert "Traceback" not in err
    for word in words:
        assert word in sentence


def test_a_sigterm_leaves_nothing_behind(artifacts: Artifacts, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mdpose_edge", "export", str(artifacts.checkpoint()), "--target", "onnx"]
    with subprocess.Popen([*command, "--out", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "tracing" in line:
                break
        assert os.listdir(tmp_path) != []
        process.terminate()
        process.stderr.read()
    assert process.returncode == 128 + signal.SIGTERM
    assert os.listdir(tmp_path) == []
