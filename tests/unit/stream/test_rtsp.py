"""Streams from a real RTSP server on the loopback interface: frames, passwords, a camera that goes and comes back."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import cv2
import pytest

from mdpose_edge.errors import InputError
from mdpose_edge.stream.frames import CapturedFrame
from mdpose_edge.stream.live import LiveSource, Reconnect
from mdpose_edge.stream.sources import open_source
from tests.artifacts import Artifacts
from tests.command import command_runner
from tests.unit.stream.media import number_of, picture
from tests.unit.stream.rtsp_camera import rtsp_camera

COUNT = 30
PATIENT = Reconnect(attempts=20, first_delay_s=0.2, stall_s=5.0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(COUNT):
        assert cv2.imwrite(str(folder / f"{number}.jpg"), picture(number))
    return folder


def check_in_order(frames: list[CapturedFrame]) -> None:
    """Hold each frame against the picture that was sent with its number; those that nobody took are counted too."""
    numbers = [number_of(frame.image_bgr) for frame in frames]
    steps = [(after - before) % COUNT for before, after in itertools.pairwise(numbers)]
    assert all(1 <= step < COUNT // 2 for step in steps), numbers
    assert [frame.index for frame in frames] == sorted({frame.index for frame in frames})


def test_frames_of_a_camera_arrive_in_order(pictures: Path) -> None:
    with rtsp_camera(pictures) as port, open_source(f"rtsp://127.0.0.1:{port}/cam") as source:
        assert isinstance(source, LiveSource)
        assert source.fps == 20
        frames = list(itertools.islice(source, 12))
    assert {frame.image_bgr.shape for frame in frames} == {(64, 96, 3)}
    check_in_order(frames)


def test_a_camera_asks_for_its_password(pictures: Path) -> None:
    with rtsp_camera(pictures, user="ada", password="s3cret") as port:
        with open_source(f"rtsp://ada:s3cret@127.0.0.1:{port}/cam") as source:
            assert source.name == f"rtsp://127.0.0.1:{port}/cam"
            check_in_order(list(itertools.islice(source, 3)))
        for login in ("", "ada:wr0ng@"):
            with pytest.raises(InputError, match=f"^rtsp://127.0.0.1:{port}/cam: expected a video stream"):
                open_source(f"rtsp://{login}127.0.0.1:{port}/cam")


def test_a_camera_that_loses_its_power_is_opened_again(pictures: Path) -> None:
    notes: list[str] = []
    with rtsp_camera(pictures) as port:
        source = open_source(f"rtsp://127.0.0.1:{port}/cam", reconnect=PATIENT, note=notes.append)
        frames = iter(source)
        next(frames)
    with rtsp_camera(pictures, port=port), source:
        while not source.reconnects:
            next(frames)
        check_in_order(list(itertools.islice(frames, 3)))
    assert source.reconnects == 1
    assert any("back after" in note for note in notes), notes


def test_poses_of_a_camera(
    pictures: Path, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    run = command_runner(monkeypatch, capsys)
    lines, summary = tmp_path / "lines.jsonl", tmp_path / "summary.json"
    with rtsp_camera(pictures, user="ada", password="s3cret") as port:
        url = f"rtsp://ada:s3cret@127.0.0.1:{port}/cam"
        code, out, error = run(
            "infer", artifacts.bundle("onnx"), url, "--frames", 5, "--jsonl", lines, "--json", summary
        )
    assert code == 0, error
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(rows) == 5 and [row["frame"] for row in rows] == sorted(row["frame"] for row in rows)
    told = out + error + lines.read_text() + summary.read_text()
    assert f"rtsp://127.0.0.1:{port}/cam" in told and "s3cret" not in told
