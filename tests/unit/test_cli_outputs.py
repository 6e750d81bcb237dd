"""Where the command line's results go: never over what it reads, never half of them, and no work for nothing."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mdpose_edge.datasets.images import write_image
from tests.artifacts import Artifacts
from tests.command import Run, command_runner
from tests.unit.tiny_coco import document, person, write_split

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return command_runner(monkeypatch, capsys)


@pytest.mark.parametrize(
    "command", [["synth", "--images", "2", "OUT"], ["export", "--target", "openvino", "--out", "OUT"]]
)
def test_a_system_that_takes_no_more_bytes_is_one_sentence(
    artifacts: Artifacts, tmp_path: Path, command: list[str]
) -> None:
    words = [str(tmp_path / "out") if word == "OUT" else word for word in command]
    words += [str(artifacts.checkpoint())] if command[0] == "export" else []
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "from mdpose_edge.cli import main; sys.argv[0] = 'mdpose-edge'; main()"
    )
    done = subprocess.run([sys.executable, "-c", limited, *words], capture_output=True, text=True, check=False)
    sentences = [line for line in done.stderr.splitlines() if line.startswith("mdpose-edge:")]
    assert done.returncode == 2 and len(sentences) == 1 and "Traceback" not in done.stderr
    assert "expected a place to write" in sentences[0] and "free some space" in sentences[0]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "command",
    [
        ("infer", "BUNDLE", "a.png", "--out", "painted"),
        ("infer", "BUNDLE", "a.png", "--out", "painted", "--json", "poses.json"),
        ("infer", "BUNDLE", "a.png", "--track", "--out", "painted"),
        ("infer", "BUNDLE", "a.png", "--jsonl", "lines.jsonl"),
        ("infer", "BUNDLE", "a.png", "--csv", "rows.csv"),
        ("infer", "BUNDLE", "a.png", "--coco", "results.json"),
        ("data", "check", "data", "--out", "sheet.png"),
        ("data", "check", "data", "--json", "faults.json"),
        ("calib", "make", "--data", "data/val2017", "--out", "set", "--like", "BUNDLE", "--num", "1", "--allow-few"),
        ("eval", "BUNDLE", "--data", "data", "--results", "results.json"),
        ("eval", "BUNDLE", "--data", "data", "--json", "figures.json"),
        ("check", "BUNDLE", "--data", "data", "--record", "recording.npz"),
        ("bench", "BUNDLE", "--frames", "1", "--warmup", "1", "--json", "bench.json"),
        ("nvdla", "BUNDLE", "--json", "nvdla.json"),
        ("triton", "BUNDLE", "--out", "repository"),
        ("models", "--json", "models.json"),
    ],
    ids=" ".join,
)
def test_a_full_disk_is_one_sentence_whatever_is_written(
    run: Run, artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = artifacts.bundle("onnx")
    write_image(Path("a.png"), np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    write_split(tmp_path / "data", document([person(7), person(3)]), "val")
    before = sorted(path for path in Path().rglob("*"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        code, _, error = run(*(str(bundle) if word == "BUNDLE" else word for word in command))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    sentences = [line for line in error.splitlines() if line.startswith("mdpose-edge:")]
    assert code == 2 and len(sentences) == 1 and "Traceback" not in error, error
    assert re.search("expected a (place to write|folder for them)", sentences[0]), sentences
    assert not re.search(r"/\.\w+\.\w{6,}", sentences[0])  # no temporary folder, which is gone
    assert sorted(path for path in Path().rglob("*")) == before


@pytest.mark.parametrize(
    "command",
    [
        ("infer", "BUNDLE", "PICTURE", "--out", "painted", "--json", "PICTURE"),
        ("infer", "BUNDLE", "*.png", "--jsonl", "lines.jsonl", "--json", "PICTURE"),
        ("bench", "BUNDLE", "--frames", "1", "--json", "SPEC"),
        ("nvdla", "BUNDLE", "--json", "SPEC"),
        ("view", "BUNDLE", "PICTURE", "--json", "PICTURE"),
        ("eval", "BUNDLE", "--data", "absent", "--json", "SPEC"),
        ("check", "BUNDLE", "--reference", "absent", "--json", "SPEC"),
        ("data", "check", ".", "--json", "PICTURE"),
    ],
    ids=" ".join,
)
def test_json_takes_no_inputs_place(
    run: Run, artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(artifacts.bundle("onnx"), "bundle")
    write_image(Path("picture.png"), np.zeros((8, 8, 3), np.uint8))
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    names = {"BUNDLE": "bundle", "PICTURE": "picture.png", "SPEC": "bundle/spec.json"}
    code, out, error = run(*(names.get(word, word) for word in command))
    assert (code, out) == (2, "") and "--json" in error and "expected a file of its own" in error
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (("eval", "absent", "--data", "absent", "--results", "FILE/results.json"), "file"),
        (("eval", "absent", "--data", "absent", "--results", "."), "file"),
        (("data", "check", "absent", "--out", "FILE/sheet.png"), "file"),
        (("calib", "show", "absent", "--out", "FILE/sheet.png"), "file"),
        (("doctor", "--json", "FILE/doctor.json"), "file"),
        (("check", "absent", "--reference", "absent", "--report", "FILE"), "folder"),
        (("train", "absent.yaml", "--data", "absent", "--out", "FILE"), "folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_a_place_where_nothing_can_be_is_told_before_the_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").touch()
    code, out, error = run(*command)
    assert (code, out) == (2, "") and f"expected a place for a {kind}" in error


FOREIGN = {
    "annotations.json": b'{"images": [], "annotations": [], "categories": []}\n',
    "detections.json": b'[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.9}]\n',
    "notes.txt": b"mine\n",
    "recording.npz": b"PK\x03\x04 another archive",
    "report/index.html": b"<!doctype html><title>mine</title>",
    "run/config.yaml": b"# mine\nlr: 1\n",
}


@pytest.mark.parametrize(
    "command",
    [
        ("eval", "absent", "--data", "absent", "--results", "annotations.json"),
        ("eval", "absent", "--data", "absent", "--results", "detections.json"),
        ("eval", "absent", "--data", "absent", "--json", "notes.txt"),
        ("check", "absent", "--reference", "absent", "--report", "report"),
        ("check", "absent", "--data", "absent", "--record", "recording.npz"),
        ("data", "check", "absent", "--out", "photo.jpg"),
        ("data", "check", "absent", "--out", "photo.png"),
        ("calib", "show", "absent", "--out", "photo.jpg"),
        ("infer", "absent", "photo.png", "--jsonl", "notes.txt"),
        ("infer", "absent", "photo.png", "--csv", "notes.txt"),
        ("infer", "absent", "photo.png", "--coco", "annotations.json"),
        ("infer", "absent", "photo.png", "--out", "clip.mp4"),
        ("infer", "absent", "photo.png", "--out", "album"),
        ("infer", "absent", "photo.png", "--out", "album", "--track"),
        ("view", "absent", "photo.png", "--json", "annotations.json"),
        ("bench", "absent", "--json", "notes.txt"),
        ("models", "--json", "notes.txt"),
        ("nvdla", "absent", "--json", "notes.txt"),
        ("build", "absent", "--json", "notes.txt"),
        ("doctor", "--json", "notes.txt"),
        ("export", "absent", "--out", "o", "--target", "onnx", "--val-data", "absent", "--report", "report"),
        ("train", "config.yaml", "--data", "absent", "--out", "run"),
    ],
    ids=" ".join,
)
def test_no_output_replaces_a_file_that_no_command_made(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in FOREIGN.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(content)
    Path("album").mkdir()
    grey = np.full((48, 64, 3), 90, np.uint8)
    for name in ("photo.jpg", "photo.png", "album/photo.png"):
        assert cv2.imwrite(name, grey)
    Path("clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    code, out, error = run(*command)
    assert (code, out) == (2, "") and "expected a new file or an earlier result" in error and "--force" in error
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("option", ["--jsonl", "--csv", "--coco", "--json", "--out"])
def test_an_earlier_result_is_replaced_and_with_force_any_file(
    run: Run, artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_image(Path("picture.png"), np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    target = "painted" if option == "--out" else "result"
    words = ["infer", artifacts.bundle("onnx"), "picture.png", option, target]
    words += ["--csv", "lines.csv"] if option == "--json" else []
    assert run(*words)[0] == run(*words)[0] == 0
    file = Path("painted/picture.png") if option == "--out" else Path(target)
    made = file.read_bytes()
    foreign = cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes() if option == "--out" else b"mine\n"
    file.write_bytes(foreign)
    assert run(*words)[0] == 2 and file.read_bytes() == foreign
    assert run(*words, "--force")[0] == 0
    assert file.read_bytes()[:20] == made[:20]


def test_eval_keeps_the_ground_truth_even_by_force(
    run: Run, artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    truth = write_split(Path("data"), document([person(7), person(3)]))
    content = truth.read_bytes()
    words = ["eval", artifacts.bundle("onnx"), "--data", "data", "--results"]
    code, _, error = run(*words, truth, "--force")
    assert code == 2 and "a file of data, which is read" in error and truth.read_bytes() == content
    assert run(*words, "data/results.json")[0] == run(*words, "data/results.json")[0] == 0


@pytest.mark.parametrize("place", ["figures.json", "below/figures.json"])
def test_nothing_is_put_into_a_bundle(
    run: Run, artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(artifacts.bundle("onnx"), "bundle")
    code, _, error = run("doctor", "--json", f"bundle/{place}", "--force")
    assert code == 2 and "which may hold nothing but its own files" in error
    assert not Path("bundle", place).exists()


def test_the_gates_page_is_not_put_into_the_bundle(run: Run, tmp_path: Path) -> None:
    words = ["export", "absent.safetensors", "--target", "onnx", "--out", tmp_path / "b", "--val-data", tmp_path]
    code, _, error = run(*words, "--report", tmp_path / "b" / "page")
    assert code == 2 and "--report: expected a place apart from --out" in error
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("option", ["--out", "--json", "--csv"])
def test_an_output_is_no_url(
    run: Run, artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_image(Path("picture.png"), np.zeros((8, 8, 3), np.uint8))
    code, out, error = run("infer", artifacts.bundle("onnx"), "picture.png", option, "http://127.0.0.1:9/x.mp4")
    assert (code, out) == (2, "") and f"{option}: expected a file or a folder, got a URL" in error
    assert os.listdir() == ["picture.png"]


@pytest.mark.parametrize(
    "words",
    [
        ("synth", "images", "OUT", "--images", "2"),
        ("synth", "video", "OUT", "--seconds", "1"),
        ("train", "CONFIG", "--data", "data", "--out", "OUT"),
        ("export", "CHECKPOINT", "--target", "onnx", "--out", "OUT"),
        ("calib", "make", "--data", "data/val2017", "--out", "OUT", "--like", "BUNDLE", "--num", "1", "--allow-few"),
        ("triton", "BUNDLE", "--out", "OUT"),
    ],
)
def test_a_folder_to_write_is_no_url(
    run: Run, artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        write_split(tmp_path / "data", document([person(1)]), split)
    named = {
        "OUT": "s3://place/out",
        "BUNDLE": str(artifacts.bundle("onnx")),
        "CHECKPOINT": str(artifacts.checkpoint()),
        "CONFIG": str(CONFIGS / "finetune.yaml"),
    }
    code, out, error = run(*(named.get(word, word) for word in words))
    assert (code, out) == (2, "") and "expected a file or a folder, got a URL, s3:/" in error
    assert os.listdir() == ["data"]
