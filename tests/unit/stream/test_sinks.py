from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from mdpose_edge.datasets.image_ids import ImageIds
from mdpose_edge.datasets.images import read_image
from mdpose_edge.errors import OutputError
from mdpose_edge.poses import Poses
from mdpose_edge.spec import COCO_KEYPOINTS, NO_KEYPOINTS
from mdpose_edge.stream import video
from mdpose_edge.stream.files import VideoFile
from mdpose_edge.stream.frames import CapturedFrame
from mdpose_edge.stream.painted import PaintedImages, Painter
from mdpose_edge.stream.records import csv_lines, pose_records
from mdpose_edge.stream.result import FrameResult
from mdpose_edge.stream.sinks import CocoSink, CsvSink, JsonlSink
from mdpose_edge.stream.video import CODECS, RESERVE_BYTES, VideoSink
from tests.architecture.package import REPOSITORY
from tests.unit.stream.media import picture, read_video, write_video

PAINT = Painter(COCO_KEYPOINTS)


def result(
    index: int, *, people: int = 2, time_s: float | None = None, size_wh: tuple[int, int] = (96, 64), name: str = "cam",
    ids: bool = True, is_file: bool = False,
) -> FrameResult:  # fmt: skip
    rng = np.random.default_rng(index)
    keypoints = rng.uniform(5, 60, (people, 17, 2)).astype(np.float32)
    poses = Poses(keypoints, np.linspace(0.9, 0.5, people).astype(np.float32), np.full_like(keypoints, 1.25))
    frame = CapturedFrame(index, index / 10 if time_s is None else time_s, picture(index % 28, size_wh), name, is_file)
    return FrameResult(frame, poses, np.arange(1, people + 1) if ids else None, {"engine": 12.3456}, 20.0)


def test_a_line_of_json_for_each_frame(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "new" / "poses.jsonl")
    for index, people in enumerate((2, 0, 1)):
        sink.write(result(index, people=people, ids=index < 2))
        assert len((tmp_path / "new" / "poses.jsonl").read_text().splitlines()) == index + 1  # others can follow
    sink.close()
    lines = [json.loads(line) for line in (tmp_path / "new" / "poses.jsonl").read_text().splitlines()]
    assert [(line["frame"], line["time_s"], len(line["poses"])) for line in lines] == [
        (0, 0, 2),
        (1, 0.1, 0),
        (2, 0.2, 1),
    ]
    first, expected = lines[0], result(0)
    assert (first["source"], first["width"], first["height"]) == ("cam", 96, 64)
    assert first["stage_ms"] == {"engine": 12.346}
    assert first["latency_ms"] == 20.0
    assert [pose["track_id"] for pose in first["poses"]] == [1, 2]
    np.testing.assert_allclose([p["keypoints_xy"] for p in first["poses"]], expected.poses.keypoints_xy, atol=0.006)
    assert first["poses"][0]["sigma_xy"] == [[1.25, 1.25]] * 17
    assert "track_id" not in lines[2]["poses"][0]


def test_what_a_model_knows_besides_is_in_the_line() -> None:
    plain = result(0)
    boxes = np.float32([[1, 2, 3, 4.125], [0, 0, 5, 6]])
    points = np.full((2, 17, 3), (0.5, -0.25, 3.0), np.float32)
    more = replace(plain.poses, model_boxes_xyxy=boxes, classes=np.array([4, 0]), keypoints_3d=points, metric=False)
    first = pose_records(more)[0]
    assert first["box_xyxy"] == [1, 2, 3, 4.12] and first["class"] == 4 and first["metric"] is False
    assert first["keypoints_3d"][0] == [0.5, -0.25, 3.0]
    assert pose_records(plain.poses)[0].keys() == {"score", "keypoints_xy", "sigma_xy"}


def test_a_line_of_csv_for_each_pose(tmp_path: Path) -> None:
    sink = CsvSink(tmp_path / "poses.csv", COCO_KEYPOINTS)
    for index, people in enumerate((2, 0, 1)):
        sink.write(result(index, people=people, name='a "b", c', ids=index < 2))
    sink.close()
    with (tmp_path / "poses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["frame"], row["track_id"], row["source"]) for row in rows] == [
        ("0", "1", 'a "b", c'),
        ("0", "2", 'a "b", c'),
        ("2", "", 'a "b", c'),
    ]
    assert len(rows[0]) == 5 + 17 * 4
    assert float(rows[0]["right_ankle_y"]) == pytest.approx(result(0).poses.keypoints_xy[0, 16, 1], abs=0.006)
    assert rows[0]["nose_sigma_x"] == "1.25"
    assert sink.summary()["poses"] == 3


@pytest.mark.parametrize(("classes", "told"), [(np.array([1, 0]), ["1,cat", "0,dog"]), (None, [",", ","])])
def test_a_line_of_csv_of_a_model_without_keypoints_has_the_box(
    classes: np.ndarray | None, told: list[str], tmp_path: Path
) -> None:
    nothing, boxes = np.zeros((2, 0, 2), np.float32), np.array([[1, 2, 3.004, 4.125], [0, 0, 5, 6]], np.float32)
    poses = Poses(nothing, np.array([0.9, 0.5], np.float32), nothing, boxes, classes)
    sink = CsvSink(tmp_path / "poses.csv", NO_KEYPOINTS, ("dog", "cat"))
    sink.write(replace(result(0), poses=Poses.empty(0), track_ids=None))
    sink.write(replace(result(1), poses=poses))
    sink.close()
    assert (tmp_path / "poses.csv").read_text().splitlines() == [
        "frame,time_s,source,track_id,score,box_x1,box_y1,box_x2,box_y2,class,class_name",
        f"1,0.1,cam,1,0.9,1.0,2.0,3.0,4.12,{told[0]}",
        f"1,0.1,cam,2,0.5,0.0,0.0,5.0,6.0,{told[1]}",
    ]


def test_boxes_besides_keypoints_leave_the_csv_as_it_is() -> None:
    plain = result(0)
    boxed = replace(plain, poses=replace(plain.poses, model_boxes_xyxy=np.ones((2, 4), np.float32)))
    assert csv_lines(boxed) == csv_lines(plain)


def test_coco_results_appear_when_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    sink = CocoSink(path)
    sink.write(result(0))
    sink.write(result(5, people=1, name="0", ids=False))  # camera 0
    sink.write(result(6, people=1, name="clips/0007.mp4", ids=False))
    assert not path.exists()
    sink.close()
    rows = json.loads(path.read_text())
    assert [(row["image_id"], row.get("track_id")) for row in rows] == [
        (1, 1), (1, 2), (6, None), (7, None),
    ]  # fmt: skip
    assert len(rows[0]["keypoints"]) == 51
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_coco_results_have_a_list_of_their_images_beside_them(tmp_path: Path) -> None:
    sink = CocoSink(tmp_path / "results.json", ImageIds({"val/139.jpg": 139, "val/\udce9.jpg": 7}, category_ids=(5,)))
    sink.write(result(0, people=2, name="val/139.jpg", ids=False, is_file=True))
    sink.write(result(1, people=0, name="val/\udce9.jpg", ids=False, is_file=True))
    sink.close()
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [(row["image_id"], row["category_id"]) for row in rows] == [(139, 5), (139, 5)]
    images = json.loads((tmp_path / "results.images.json").read_text())["images"]
    height, width = result(0).frame.image_bgr.shape[:2]
    assert images == [
        {"id": 139, "file_name": "val/139.jpg", "width": width, "height": height},
        {"id": 7, "file_name": "val/\\udce9.jpg", "width": width, "height": height},
    ]


def test_no_pose_at_all_is_an_empty_list(tmp_path: Path) -> None:
    sink = CocoSink(tmp_path / "results.json")
    sink.write(result(0, people=0))
    sink.close()
    assert json.loads((tmp_path / "results.json").read_text()) == []


@pytest.mark.parametrize("old", [None, "older results"])
def test_without_a_frame_no_file_appears_and_an_older_one_stays(tmp_path: Path, old: str | None) -> None:
    paths = [tmp_path / name for name in ("a.jsonl", "a.csv", "a.json")]
    if old is not None:
        for path in paths:
            path.write_text(old)
    sinks = [JsonlSink(paths[0]), CsvSink(paths[1], COCO_KEYPOINTS), CocoSink(paths[2])]
    for sink in (*sinks, PaintedImages(tmp_path / "painted", PAINT)):
        sink.close()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {p.name: old for p in paths if old}
    assert sinks[1].summary()["poses"] == 0


def test_an_older_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("x" * 100_000)
    sink = JsonlSink(path)
    sink.write(result(0))
    sink.close()
    assert json.loads(path.read_text())["frame"] == 0


@pytest.mark.parametrize("make", [JsonlSink, lambda path: CsvSink(path, COCO_KEYPOINTS)], ids=["jsonl", "csv"])
def test_lines_of_two_runs_do_not_get_mixed_up(tmp_path: Path, make: Callable[[Path], JsonlSink | CsvSink]) -> None:
    path = tmp_path / "a.txt"
    first = make(path)
    first.write(result(0))
    with pytest.raises(OutputError, match=f"^{path}: expected a file of this run's own, got another run's; wait for"):
        make(path)
    first.write(result(1))
    first.close()
    both = path.read_text()
    second = make(path)
    second.write(result(0))
    second.close()
    assert both.startswith(path.read_text()) and len(path.read_text()) < len(both)


def test_painted_images_keep_names_or_number_them(tmp_path: Path) -> None:
    copies = {Path("in/a.png"): tmp_path / "out" / "a.png"}
    sink = PaintedImages(tmp_path / "out", PAINT, copies)
    sink.write(result(0, name="in/a.png"))
    sink.write(result(7))
    sink.close()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "frame_000007.jpg"]
    assert (read_image(tmp_path / "out" / "a.png", orient=False) == PAINT(result(0))).all()


def test_a_painted_person_bears_the_track_id() -> None:
    one, other = result(0), result(0)
    assert other.track_ids is not None
    other.track_ids[:] += 20
    assert (Painter(COCO_KEYPOINTS)(one) != Painter(COCO_KEYPOINTS)(other)).any()


@pytest.fixture
def source(tmp_path: Path) -> VideoFile:
    return VideoFile(write_video(tmp_path / "source.avi", 2))


@pytest.fixture(params=["PyAV", "OpenCV"])
def encoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Paint videos by one or the other."""
    if request.param == "PyAV":
        pytest.importorskip("av")
    else:
        monkeypatch.setattr(video, "available", lambda name: False)
    return str(request.param)


def painted_times(path: Path) -> list[float]:
    return [frame.time_s for frame in VideoFile(path)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi"])
def test_a_video_holds_every_frame(tmp_path: Path, source: VideoFile, suffix: str, encoder: str) -> None:
    notes: list[str] = []
    path = tmp_path / f"out{suffix}"
    sink = VideoSink(path, PAINT, source, note=notes.append)
    for index in range(20):
        sink.write(result(index, people=0))
        assert not path.exists()
    sink.close()
    frames = read_video(path)
    assert [round((float(frame.mean()) - 10) / 8) for frame in frames] == list(range(20))
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    summary = sink.summary()
    assert (summary["frames"], summary["refitted"], summary["size_wh"]) == (20, 0, [96, 64])
    assert summary["codec"] in CODECS
    assert bool(notes) == (summary["codec"] != "H.264")  # the second choice is never silent
    assert all('pip install "mdpose-edge[video]"' in note for note in notes) or encoder == "PyAV"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("fps", [66.66666666666667, 29.97002997, 23.976, 7.123456, 120.0, 240.5, 1000 / 3])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi"])
def test_a_video_keeps_the_times_at_any_rate(
    tmp_path: Path, source: VideoFile, encoder: str, suffix: str, fps: float
) -> None:
    source.fps = fps
    sink = VideoSink(tmp_path / f"out{suffix}", PAINT, source)
    times = [index / fps for index in range(25)]
    for index, time_s in enumerate(times):
        sink.write(result(index, people=0, time_s=time_s))
    sink.close()
    np.testing.assert_allclose(painted_times(tmp_path / f"out{suffix}"), times, atol=0.0011, rtol=0.001)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_pause_in_a_file_is_a_pause_in_its_painted_copy(
    tmp_path: Path, source: VideoFile, encoder: str, suffix: str
) -> None:
    sink = VideoSink(tmp_path / f"out{suffix}", PAINT, source)
    times = [0.0, 0.1, 0.13, 1.5, 1.6]
    for index, time_s in enumerate(times):
        sink.write(result(index, people=0, time_s=time_s))
    sink.close()
    frames = list(VideoFile(tmp_path / f"out{suffix}"))
    first = {}
    for frame in frames:
        first.setdefault(round((float(frame.image_bgr.mean()) - 10) / 8), frame.time_s)
    assert list(first) == [0, 1, 2, 3, 4]  # all are there; where there is one rate only, some of them again and again
    np.testing.assert_allclose(list(first.values()), times, atol=0.002 if len(frames) == 5 else 0.1)
    assert len(frames) == 5 or encoder == "OpenCV" or suffix == ".avi"


def test_odd_sides_are_told_and_nothing_is_cut_off(tmp_path: Path, source: VideoFile, encoder: str) -> None:
    notes: list[str] = []
    sink = VideoSink(tmp_path / "out.mp4", PAINT, source, note=notes.append)
    for index in range(3):
        sink.write(result(index, people=0, size_wh=(321, 243)))
    sink.close()
    assert [frame.shape for frame in read_video(tmp_path / "out.mp4")] == [(244, 322, 3)] * 3
    assert sum("321x243 is painted on 322x244" in note for note in notes) == 1
    assert (sink.summary()["size_wh"], sink.summary()["refitted"]) == ([322, 244], 0)


def test_another_frame_size_is_fitted_in_and_told_once(tmp_path: Path, source: VideoFile, encoder: str) -> None:
    notes: list[str] = []
    sink = VideoSink(tmp_path / "out.mp4", PAINT, source, note=notes.append)
    for index, size_wh in enumerate(((96, 64), (64, 96), (192, 128), (96, 64))):
        sink.write(result(index, people=0, size_wh=size_wh))
    sink.close()
    frames = read_video(tmp_path / "out.mp4")
    assert [frame.shape for frame in frames] == [(64, 96, 3)] * 4
    assert frames[1][:, :20].max() < 8  # black beside a picture that stands upright
    assert frames[1][:, 40:56].mean() == pytest.approx(18, abs=3)
    assert sum("fitted into 96x64" in note for note in notes) == 1
    assert sink.summary()["refitted"] == 2


def test_a_live_video_runs_as_fast_as_what_it_shows(tmp_path: Path, source: VideoFile, encoder: str) -> None:
    source.live = True
    sink = VideoSink(tmp_path / "out.mp4", PAINT, source)
    for index, time_s in enumerate((0.0, 0.5, 0.52, 1.0, 3601.0)):
        sink.write(result(index, people=0, time_s=time_s))
    sink.close()
    # 10 a second: 5 pictures until 0.5 s, one left out at 0.52 s, then an hour's silence shortened to 10 s.
    levels = [round((float(frame.mean()) - 10) / 8) for frame in read_video(tmp_path / "out.mp4")]
    assert levels[:11] == [0] * 5 + [1] + [2] * 4 + [3]
    assert levels[-1] == 4
    assert len(levels) == 11 + 100


def test_no_frame_no_video(tmp_path: Path, source: VideoFile) -> None:
    VideoSink(tmp_path / "out.mp4", PAINT, source).close()
    assert not (tmp_path / "out.mp4").exists()


def test_what_is_no_video_suffix_is_refused(tmp_path: Path, source: VideoFile) -> None:
    with pytest.raises(OutputError, match=r"a video file \(\.mp4"):
        VideoSink(tmp_path / "out.txt", PAINT, source)


def test_a_missing_codec_is_an_error(tmp_path: Path, source: VideoFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "available", lambda name: False)
    monkeypatch.setattr(video, "CODECS", {"AV2": "av02", "AV3": "av03"})
    sink = VideoSink(tmp_path / "out.mp4", PAINT, source)
    with pytest.raises(OutputError, match="an OpenCV that writes AV2 or AV3, got none of them opens"):
        sink.write(result(0))
    sink.close()
    assert not list(tmp_path.glob("*out*"))


def test_a_disk_that_fills_up_keeps_the_video_so_far(
    tmp_path: Path, source: VideoFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    free = [10 * RESERVE_BYTES, RESERVE_BYTES - 1]
    monkeypatch.setattr(video.shutil, "disk_usage", lambda path: usage(0, 0, free.pop(0)))
    sink = VideoSink(tmp_path / "out.mp4", PAINT, source)
    with pytest.raises(OutputError, match=r"at least 8 MiB free on the disk, got 8.0; .* its first 32 frames are kept"):
        for index in range(40):
            sink.write(result(index, people=0))
    sink.close()
    assert len(read_video(tmp_path / "out.mp4")) == 32


def run_with_a_small_disk(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process in which no file may grow beyond 40 kB, as on a disk that is full."""
    head = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000));"
        "from pathlib import Path; from tests.unit.stream.test_sinks import *; out = Path(sys.argv[1])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-c", head + code, str(folder)],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    code = """
for sink in (JsonlSink(out / "a.jsonl"), CsvSink(out / "a.csv", COCO_KEYPOINTS)):
    try:
        for index in range(10_000):
            sink.write(result(index))
    except OutputError as error:
        print(error)
    sink.close()
"""
    told = run_with_a_small_disk(code, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert len(lines) > 10
    assert (tmp_path / "a.csv").read_text().endswith("\n")
    first, second = told.stdout.splitlines()
    assert f"File too large; free some space there; its first {len(lines)} lines are whole." in first
    assert "a.csv" in second


def test_a_full_disk_keeps_no_half_document_and_no_half_video(tmp_path: Path) -> None:
    code = """
source = VideoFile(write_video(out / "in.avi", 2))
noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
def noisy(index):
    plain = result(index, people=3)
    return FrameResult(CapturedFrame(index, index / 10, np.roll(noise, index), "cam"), plain.poses, None, {}, 0.0)
for sink in (CocoSink(out / "a.json"), VideoSink(out / "a.mp4", PAINT, source)):
    try:
        for index in range(60):
            sink.write(noisy(index))
        sink.close()
        print("no error")
    except OutputError as error:
        print(error)
        sink.close()
"""
    told = run_with_a_small_disk(code, tmp_path)
    coco, painted = told.stdout.splitlines()
    assert "a.json: expected a place to write" in coco
    assert "a.mp4: expected a place to write" in painted
    assert "nothing of it was kept" in painted
    assert [p.name for p in tmp_path.iterdir()] == ["in.avi"]


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for make in (
        lambda: JsonlSink(tmp_path / "file" / "a.jsonl"),
        lambda: CsvSink(tmp_path, COCO_KEYPOINTS),
        lambda: CocoSink(tmp_path / "file" / "a.json"),
        lambda: PaintedImages(tmp_path / "file", PAINT),
    ):
        with pytest.raises(OutputError, match="a place to write"):
            make()
