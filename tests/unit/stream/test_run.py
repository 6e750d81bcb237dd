"""The command from end to end, in a process of its own where signals and pipes matter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from mdpose_edge.commands.infer import _summary_lines
from mdpose_edge.stream.result import Report
from tests.architecture.package import REPOSITORY
from tests.artifacts import Artifacts
from tests.command import Run, command_runner
from tests.unit.stream.media import network_camera, picture, read_video, write_video
from tests.unit.tiny_coco import document

pytest.importorskip("onnxruntime")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command; give its exit code, stdout and stderr, as the system sees them."""
    return command_runner(monkeypatch, capfd)


@pytest.fixture(scope="module")
def model(artifacts: Artifacts) -> Path:
    return artifacts.bundle("onnx")


def start(*words: object, **options: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "mdpose_edge", *map(str, words)]
    return subprocess.Popen(command, env=environment, **options)  # type: ignore[call-overload, no-any-return]


def test_a_video_into_everything(run: Run, model: Path, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.avi", 15)
    names = {kind: tmp_path / name for kind, name in (("out", "o.mp4"), ("jsonl", "o.jsonl"), ("csv", "o.csv"))}
    words = [word for kind, path in names.items() for word in (f"--{kind}", path)]
    code, out, err = run(
        "infer", model, clip, *words, "--coco", tmp_path / "o.json", "--threshold", 0, "--track", "--smooth", "--sigma",
        "--json", tmp_path / "summary.json",
    )  # fmt: skip
    assert code == 0
    lines = [json.loads(line) for line in names["jsonl"].read_text().splitlines()]
    poses = sum(len(line["poses"]) for line in lines)
    assert [line["frame"] for line in lines] == list(range(15))
    assert all("track_id" in pose for line in lines for pose in line["poses"])
    assert len(json.loads((tmp_path / "o.json").read_text())) == poses
    assert len(names["csv"].read_text().splitlines()) == poses + 1
    assert len(read_video(names["out"])) == 15
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["frames"], summary["people"], summary["stopped"]) == (15, poses, False)
    video = next(output for output in summary["outputs"] if output["kind"] == "video")
    assert video["codec"] == "H.264" or f"{names['out']}: {video['codec']}, because" in err
    assert out.startswith(f"{clip}: {poses} poses in 15 frames")
    assert f"{names['out']}: video, {video['codec']}" in out


def test_stdout_is_the_results_alone(run: Run, model: Path, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.avi", 4)
    code, out, err = run("infer", model, clip, "--jsonl", "-")
    assert code == 0
    assert [json.loads(line)["frame"] for line in out.splitlines()] == [0, 1, 2, 3]
    assert "4 frames" in err


def test_two_images_never_share_an_id(run: Run, model: Path, tmp_path: Path) -> None:
    for name in ("2.png", "cat.png"):
        cv2.imwrite(str(tmp_path / name), picture(3))
    words = ("infer", model, tmp_path / "2.png", tmp_path / "cat.png", "--threshold", 0, "--coco", tmp_path / "r.json")
    assert run(*words)[0] == 0
    assert {row["image_id"] for row in json.loads((tmp_path / "r.json").read_text())} == {1, 2}
    listed = json.loads((tmp_path / "r.images.json").read_text())["images"]
    assert [(image["id"], Path(image["file_name"]).name) for image in listed] == [(1, "2.png"), (2, "cat.png")]
    truth = document([], image_ids=(70, 71))
    truth["images"][0]["file_name"], truth["images"][1]["file_name"] = "cat.png", "2.png"
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    assert run(*words, "--ids-from", tmp_path / "truth.json")[0] == 0
    assert {row["image_id"] for row in json.loads((tmp_path / "r.json").read_text())} == {70, 71}


def test_ids_from_is_for_images_and_coco(run: Run, model: Path, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.avi", 2)
    code, _, err = run("infer", model, clip, "--coco", tmp_path / "r.json", "--ids-from", tmp_path / "truth.json")
    assert code == 2 and "--ids-from: expected images as the source" in err
    code, _, err = run("infer", model, clip, "--jsonl", tmp_path / "r", "--ids-from", tmp_path / "truth.json")
    assert code == 2 and "--ids-from: expected --coco" in err


def test_images_can_be_streamed_and_keep_their_ids(run: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in (7, 9):
        cv2.imwrite(str(tmp_path / "in" / f"{number:012d}.png"), picture(number))
    words = ("--coco", tmp_path / "r.json", "--out", tmp_path / "out", "--threshold", 0)
    assert run("infer", model, tmp_path / "in", *words)[0] == 0
    assert {row["image_id"] for row in json.loads((tmp_path / "r.json").read_text())} == {7, 9}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000000000007.png", "000000000009.png"]


@pytest.mark.parametrize(
    "words, sentence",
    [
        ((), "expected --out, --jsonl, --csv or --coco, got none"),
        (("--jsonl", "-", "--csv", "-"), "one writer on stdout"),
        (("--frame-size", "0x5", "--jsonl", "-"), "--frame-size"),
        (("--jsonl", "one.txt", "--csv", "./one.txt"), "--csv: expected another file than --jsonl"),
        (("--jsonl", "one.txt", "--json", "one.txt"), "--json: expected another file than --jsonl"),
        (("--out", "painted.webm"), "--out: expected a folder, or a video (.mp4"),
    ],
)
def test_options_that_make_no_sense_are_told(
    run: Run, model: Path, tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    code, _, err = run("infer", model, write_video(tmp_path / "clip.avi", 2), *words)
    assert code == 2
    assert sentence in err


def test_painting_over_the_sources_is_refused(run: Run, model: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture(1))
    code, _, err = run("infer", model, tmp_path, "--out", tmp_path, "--track")
    assert code == 2
    assert "a folder apart from the sources" in err


@pytest.mark.parametrize("option", ["--out", "--jsonl", "--csv", "--coco"])
def test_writing_over_the_source_is_refused(run: Run, model: Path, tmp_path: Path, option: str) -> None:
    clip = write_video(tmp_path / "clip.mp4", 3)
    before = clip.read_bytes()
    code, _, err = run("infer", model, clip, option, tmp_path / "." / "clip.mp4")
    assert code == 2
    assert f"mdpose-edge: {option} " in err and "expected a file of its own, got the source itself" in err
    assert clip.read_bytes() == before


def test_another_name_of_the_source_is_the_source(run: Run, model: Path, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", 3)
    (tmp_path / "link.jsonl").hardlink_to(clip)
    code, _, err = run("infer", model, clip, "--jsonl", tmp_path / "link.jsonl")
    assert code == 2 and "expected a file of its own, got the source itself" in err


def test_lines_over_an_image_are_refused(run: Run, model: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture(1))
    code, _, err = run("infer", model, tmp_path, "--jsonl", tmp_path / "a.png")
    assert code == 2
    assert "expected a file of its own" in err and "which is read" in err
    assert cv2.imread(str(tmp_path / "a.png")) is not None


def test_an_image_painted_into_a_file_is_refused(run: Run, model: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture(1))
    code, _, err = run("infer", model, tmp_path / "a.png", "--out", tmp_path / "b.png")
    assert code == 2
    assert "--out: expected a folder, or a video" in err


def test_a_devices_file_may_take_several(run: Run, model: Path, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.avi", 2)
    assert run("infer", model, clip, "--jsonl", "/dev/null", "--csv", "/dev/null")[0] == 0


def test_a_corrupt_tail_keeps_the_results_and_exits_with_2(run: Run, model: Path, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.avi", 20, size_wh=(640, 480))
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 6 // 10])
    code, _, err = run("infer", model, clip, "--out", tmp_path / "o.mp4", "--jsonl", tmp_path / "o.jsonl")
    lines = (tmp_path / "o.jsonl").read_text().splitlines()
    assert code == 2
    assert f"expected 20 frames, as its header says, got {len(lines)} before the data breaks off" in err
    assert len(read_video(tmp_path / "o.mp4")) == len(lines) > 0

    assert f"; the results of the {len(lines)} frames before that are kept." in err


def outputs_in(folder: Path) -> tuple[list[object], dict[str, Path]]:
    """Name every kind of output, and put an older file where each goes."""
    folder.mkdir()
    paths = {kind: folder / f"o.{kind}" for kind in ("mp4", "jsonl", "csv", "coco")}
    for path in paths.values():
        path.write_text("older")
    options = ("--out", "--jsonl", "--csv", "--coco")
    words = [word for option, path in zip(options, paths.values(), strict=True) for word in (option, path)]
    return ["--force", *words], paths


def images_with_a_bad_one(folder: Path, good: int) -> Path:
    folder.mkdir()
    for number in range(good):
        cv2.imwrite(str(folder / f"{number}.png"), picture(number))
    (folder / "zz.png").write_bytes(b"no image")
    return folder


def test_a_bad_image_on_the_way_is_told_with_what_is_kept(run: Run, model: Path, tmp_path: Path) -> None:
    words, paths = outputs_in(tmp_path / "out")
    code, out, err = run("infer", model, images_with_a_bad_one(tmp_path / "in", 3), *words, "--strict")
    assert (code, out) == (2, "")
    assert "zz.png: expected an image, got a file that OpenCV cannot decode" in err
    assert err.endswith("; the results of the 3 frames before that are kept.\n")
    assert len(paths["jsonl"].read_text().splitlines()) == len(read_video(paths["mp4"])) == 3
    assert isinstance(json.loads(paths["coco"].read_text()), list)


@pytest.mark.parametrize("words", [(), ("--jsonl", "lines.jsonl")], ids=["a folder", "frame by frame"])
def test_a_bad_image_in_a_folder_leaves_the_others_done_and_exit_code_1(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    images_with_a_bad_one(tmp_path / "in", 2)
    (tmp_path / "in" / "._0.png").write_bytes(b"\0\5\26\7")
    code, out, err = run("infer", model, "in", "--out", "out", *words, "--json", "found.json")
    assert code == 1 and "1 skipped" in out
    assert "skipped: in/zz.png: expected an image, got a file that OpenCV cannot decode" in err
    assert "left out: 1 hidden file (._0.png)" in err
    assert sorted(path.name for path in Path("out").iterdir()) == ["0.png", "1.png"]


def test_a_name_that_is_not_utf_8_is_written_so_that_all_can_read_it(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    name = os.fsdecode(b"caf\xe9.png")
    cv2.imwrite("in/a.png", picture(1))
    os.rename("in/a.png", f"in/{name}")
    words = ("--jsonl", "r.jsonl", "--csv", "r.csv", "--coco", "r.json", "--threshold", 0)
    assert run("infer", model, "in", *words, "--out", "streamed", "--json", "run.json")[0] == 0
    assert run("infer", model, "in", "--out", "painted", "--json", "found.json")[0] == 0
    assert os.listdir("painted") == os.listdir("streamed") == [name]
    told = "in/caf\\udce9.png"
    assert json.loads(Path("r.jsonl").read_text())["source"] == told
    assert told in Path("r.csv").read_text(encoding="utf-8")
    assert json.loads(Path("r.images.json").read_text())["images"][0]["file_name"] == told
    assert json.loads(Path("found.json").read_text())["images"][0]["file"] == told
    assert json.loads(Path("run.json").read_text())["source"] == told
    Path(f"in/{name}").write_bytes(b"")
    code, _, err = run("infer", model, "in", "--out", "again")
    assert code == 2 and err.encode("utf-8", "backslashreplace")


def test_a_heic_is_refused_by_name_with_the_remedy(run: Run, model: Path, tmp_path: Path) -> None:
    heic = tmp_path / "IMG_0001.HEIC"
    heic.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    for words in (("--out", tmp_path / "out"), ("--jsonl", tmp_path / "r.jsonl")):
        code, _, err = run("infer", model, heic, *words)
        assert code == 2 and "got HEIC, which OpenCV cannot decode; convert it to JPEG" in err
    assert [path.name for path in tmp_path.iterdir()] == ["IMG_0001.HEIC"]


def test_a_run_that_ends_before_its_first_frame_leaves_every_file_as_it_was(
    run: Run, model: Path, tmp_path: Path
) -> None:
    source = images_with_a_bad_one(tmp_path / "in", 0)
    words, paths = outputs_in(tmp_path / "old")
    code, _, err = run("infer", model, source, *words)
    assert code == 2
    assert err.endswith("; no result was written.\n")
    assert {path.read_text() for path in (tmp_path / "old").iterdir()} == {"older"}
    assert len(list((tmp_path / "old").iterdir())) == len(paths)
    new = tmp_path / "new"
    words = ["--out", new / "painted", "--jsonl", new / "o.jsonl", "--csv", new / "o.csv", "--coco", new / "o.json"]
    assert run("infer", model, source, *words)[0] == 2
    assert not list(new.iterdir())


@pytest.mark.parametrize(
    "source, words, sentence",
    [
        ("clip.avi", ("--frame-size", "10x10"), "--frame-size: expected a camera, or raw frames on stdin, got a video"),
        ("clip.avi", ("--fps", 5), "--fps: expected a camera, raw frames on stdin, or images whose times are written"),
        ("clip.avi", ("--reconnect", 3), "--reconnect: expected a camera, or a stream"),
        ("in", ("--frame-size", "10x10"), "--frame-size: expected a camera, or raw frames on stdin, got images"),
        ("in", ("--frame-size", "10x10", "--track"), "--frame-size: expected a camera, or raw frames"),
        ("in", ("--fps", 5), "got images; leave --fps out"),
        ("in", ("--fps", 5, "--frames", 1), "got images; leave --fps out"),
        ("in", ("--reconnect", 5), "--reconnect: expected a camera, or a stream"),
        ("in", ("--stall", 5), "--stall: expected a camera, or a stream"),
    ],
)
def test_an_option_that_the_source_does_not_heed_is_refused(
    run: Run, model: Path, tmp_path: Path, source: str, words: tuple[object, ...], sentence: str
) -> None:
    write_video(tmp_path / "clip.avi", 2)
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), picture(1))
    code, out, err = run("infer", model, tmp_path / source, "--out", tmp_path / "out", *words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert not (tmp_path / "out").exists()


def test_no_file_is_named_that_a_run_without_a_frame_did_not_write() -> None:
    report = Report("camera 0", "onnxruntime", live=True, stopped=True, outputs=[{"kind": "jsonl", "file": "o.jsonl"}])
    assert "o.jsonl" not in _summary_lines(report)
    assert "o.jsonl: jsonl" in _summary_lines(replace(report, frames=1))


def test_times_of_images_count_where_they_are_written(run: Run, model: Path, tmp_path: Path) -> None:
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(number))
    assert run("infer", model, tmp_path, "--fps", 4, "--jsonl", tmp_path / "o.jsonl")[0] == 0
    lines = (tmp_path / "o.jsonl").read_text().splitlines()
    assert [json.loads(line)["time_s"] for line in lines] == [0, 0.25]


def test_raw_frames_in_and_lines_out(model: Path) -> None:
    process = start("infer", model, "-", "--frame-size", "96x64", "--jsonl", "-", stdin=-1, stdout=-1, stderr=-1)
    out, err = process.communicate(b"".join(picture(n).tobytes() for n in range(5)), timeout=60)
    assert process.returncode == 0, err
    assert len(out.splitlines()) == 5


def test_a_signal_ends_the_wait_for_raw_frames(model: Path) -> None:
    words = ("infer", model, "-", "--frame-size", "96x64", "--jsonl", "-")
    with start(*words, stdin=-1, stdout=-1, stderr=-1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(picture(1).tobytes())
        process.stdin.flush()
        json.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stdout.read() == b""


def test_a_reader_that_leaves_ends_the_run_quietly(model: Path, tmp_path: Path) -> None:
    words = ("--jsonl", "-", "--out", tmp_path / "o.mp4")
    with network_camera() as camera, start("infer", model, camera.url, *words, stdout=-1, stderr=-1) as process:
        assert process.stdout is not None
        json.loads(process.stdout.readline())
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
    assert len(read_video(tmp_path / "o.mp4")) > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_every_file(model: Path, tmp_path: Path, number: signal.Signals) -> None:
    lines, summary = tmp_path / "o.jsonl", tmp_path / "s.json"
    with network_camera() as camera:
        words = ("--out", tmp_path / "o.mp4", "--jsonl", lines, "--coco", tmp_path / "o.json", "--json", summary)
        process = start("infer", model, camera.url, *words, stdout=-1, stderr=-1)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (lines.exists() and lines.read_text().count("\n") >= 5):
            time.sleep(0.02)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    whole = [json.loads(line) for line in lines.read_text().splitlines()]
    record = json.loads(summary.read_text())
    assert (record["stopped"], record["live"], record["frames"]) == (True, True, len(whole))
    assert isinstance(json.loads((tmp_path / "o.json").read_text()), list)
    assert len(read_video(tmp_path / "o.mp4")) == record["outputs"][-1]["frames"] > 0
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_is_one_sentence_and_exit_code_2(model: Path, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.avi", 25)
    limit = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20000,) * 2); from mdpose_edge import cli; "
    )
    words = ["mdpose-edge", "infer", str(model), str(clip), "--jsonl", str(tmp_path / "o.jsonl"), "--threads", "1"]
    result = subprocess.run(
        [sys.executable, "-c", f"{limit}sys.argv = {words!r}; cli.main()"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 2
    (sentence,) = [line for line in result.stderr.splitlines() if line.startswith("mdpose-edge: ")]
    assert "File too large; free some space there" in sentence
    assert "Traceback" not in result.stderr
    assert all(json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines())
