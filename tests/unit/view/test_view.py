"""A model, a source and a browser's end of the line: the whole way."""

from __future__ import annotations

import http.client
import json
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from mdpose_edge.errors import InputError
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.stream.frames import CapturedFrame, FrameSource
from mdpose_edge.stream.sources import open_source
from mdpose_edge.track.tracker import PoseTracker
from mdpose_edge.view.paced import PacedSource, play
from mdpose_edge.view.run import view_source
from tests.artifacts import Artifacts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((60, 80, 3), 40 * i, np.uint8))
    return tmp_path


def messages(url: str) -> Iterator[dict[str, object]]:
    host = url.removeprefix("http://").rstrip("/")
    connection = http.client.HTTPConnection(host, timeout=20)
    connection.request("GET", "/stream")
    stream = connection.getresponse()
    while lengths := stream.read(8):
        json_length, jpeg_length = struct.unpack("!II", lengths)
        yield json.loads(stream.read(json_length))
        stream.read(jpeg_length)


def test_a_viewer_sees_what_the_model_finds(artifacts: Artifacts, folder: Path) -> None:
    stop, seen = threading.Event(), list[dict[str, object]]()

    def watch(url: str) -> None:
        for message in messages(url):
            seen.append(message)
            if len(seen) == 6:
                stop.set()

    def begin(url: str) -> None:
        viewer.append(threading.Thread(target=watch, args=(url,)))
        viewer[0].start()

    viewer: list[threading.Thread] = []
    with (
        PoseEstimator(artifacts.bundle("onnx"), threads=1, threshold=0.0) as estimator,
        play(lambda: open_source(str(folder), fps=30), stop, loop=True) as source,
    ):
        tracker = PoseTracker(estimator.spec.keypoints.sigmas)
        report = view_source(
            estimator, source, model="tiny", threshold=0.0, port=0, tracker=tracker, stop=stop, ready=begin
        )
        viewer[0].join(20)
    assert seen[0]["about"]["model"] == "tiny"  # type: ignore[index]
    assert seen[0]["about"]["start"] == estimator.spec.decode.score_threshold == 0.3  # type: ignore[index]
    assert seen[0]["about"]["stages"] == ["preprocess", "engine", "decode", "track"]  # type: ignore[index]
    frames = [message for message in seen if "index" in message]
    assert all(len(frame["stages_ms"]) == 4 for frame in frames)  # type: ignore[arg-type]
    assert frames[0]["poses"]
    assert seen[-1] == {"ended": "stopped"}
    assert report.frames >= 5


def test_viewers_are_told_what_ended_it(artifacts: Artifacts) -> None:
    """Whatever ends the pipeline, the page does not just freeze."""
    seen: list[dict[str, object]] = []
    viewer: list[threading.Thread] = []
    arrived = threading.Event()

    class Lost(FrameSource):
        """A camera that is unplugged after one frame."""

        live = True

        def close(self) -> None:
            pass

        def __iter__(self) -> Iterator[CapturedFrame]:
            yield CapturedFrame(0, 0.0, np.zeros((48, 64, 3), np.uint8), self.name)
            arrived.wait(20)
            raise InputError("camera 0", expected="frames", got="none", do="plug it in again")

    def watch(url: str) -> None:
        for message in messages(url):
            seen.append(message)
            arrived.set()

    def begin(url: str) -> None:
        viewer.append(threading.Thread(target=watch, args=(url,)))
        viewer[0].start()

    with PoseEstimator(artifacts.bundle("onnx"), threads=1) as estimator, pytest.raises(InputError, match="plug"):
        view_source(estimator, Lost("camera"), model="tiny", threshold=0.3, port=0, ready=begin)
    viewer[0].join(20)
    assert seen[-1] == {"ended": "camera 0: expected frames, got none; plug it in again."}


def test_a_file_plays_at_its_own_speed_and_over_and_over(folder: Path) -> None:
    stop = threading.Event()
    with play(lambda: open_source(str(folder), fps=20), stop, loop=True) as source:
        assert isinstance(source, PacedSource) and source.live
        taken = []
        for frame in source:
            taken.append((frame.index, frame.time_s, int(frame.image_bgr[0, 0, 0])))
            if len(taken) == 6:
                stop.set()
    assert [grey for _, _, grey in taken] == [0, 40, 80, 120, 0, 40]
    assert [index for index, _, _ in taken] == list(range(6))
    times = [time_s for _, time_s, _ in taken]
    np.testing.assert_allclose(np.diff(times), 1 / 20)


def test_a_file_ends_without_loop(folder: Path) -> None:
    with play(lambda: open_source(str(folder), fps=200), threading.Event()) as source:
        assert [frame.index for frame in source] == [0, 1, 2, 3]


def test_frames_that_come_late_are_dropped_and_counted(folder: Path) -> None:
    with play(lambda: open_source(str(folder), fps=20), threading.Event()) as source:
        frames = iter(source)
        next(frames)
        threading.Event().wait(0.4)
        assert [frame.index for frame in frames] == []
    assert source.dropped == 3


def test_the_command_serves_until_it_is_told_to_stop(artifacts: Artifacts, folder: Path) -> None:
    record = folder.parent / "view.json"
    words = ["view", artifacts.bundle("onnx"), folder, "--port", 0, "--loop", "--threads", 1, "--json", record]
    command = [sys.executable, "-m", "mdpose_edge", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            stream = messages(process.stdout.readline().strip())
            assert "about" in next(stream)
            assert "index" in next(stream)
            process.send_signal(signal.SIGTERM)
            assert list(stream)[-1] == {"ended": "stopped"}
            out, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    assert " frames, " in out
    assert json.loads(record.read_text())["frames"] > 0
