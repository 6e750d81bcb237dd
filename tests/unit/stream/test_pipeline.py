from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdpose_edge.errors import EngineError, InputError, OutputError
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.spec import COCO_KEYPOINTS
from mdpose_edge.stream.files import VideoFile
from mdpose_edge.stream.frames import CapturedFrame, FrameSource
from mdpose_edge.stream.pipeline import BUFFERS, FILE_DEPTH, run_pipeline
from mdpose_edge.stream.result import KEPT_TIMES, FrameResult, StageTimes
from mdpose_edge.track.tracker import PoseTracker
from tests.artifacts import Artifacts
from tests.unit.stream.media import read_video, write_video

pytest.importorskip("onnxruntime")


class Collected:
    """A sink that keeps what it gets."""

    def __init__(self, fail_at: int | None = None, error: Exception | None = None) -> None:
        self.results: list[FrameResult] = []
        self.closed = 0
        self.threads: set[int] = set()
        self._fail_at, self._error = fail_at, error

    def write(self, result: FrameResult) -> None:
        self.threads.add(threading.get_ident())
        if self._error is not None and len(self.results) == self._fail_at:
            raise self._error
        self.results.append(result)

    def close(self) -> None:
        self.closed += 1

    def summary(self) -> dict[str, Any]:
        return {"kind": "collected", "frames": len(self.results)}


class Endless(FrameSource):
    """Frames without end, as fast as they are taken."""

    def __init__(self, *, live: bool = False, lost_after: int | None = None) -> None:
        super().__init__("endless")
        self.live = live
        self.given, self.closed, self._lost_after = 0, 0, lost_after

    def __iter__(self) -> Iterator[CapturedFrame]:
        noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
        while not self.closed:
            if self.given == self._lost_after:
                raise InputError("endless", expected="frames", got="none", do="wait")
            self.given += 1
            yield CapturedFrame(self.given - 1, (self.given - 1) / 30, noise, "endless")

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(scope="module")
def estimator(artifacts: Artifacts) -> Iterator[PoseEstimator]:
    with PoseEstimator(artifacts.bundle("onnx"), threads=1, threshold=0.0) as opened:
        yield opened


@pytest.mark.parametrize("batch", [1, 3])
def test_every_frame_of_a_file_in_order_and_as_one_by_one(artifacts: Artifacts, tmp_path: Path, batch: int) -> None:
    path, sink = write_video(tmp_path / "clip.avi", 20), Collected()
    with PoseEstimator(artifacts.bundle("onnx", batch=batch), threads=1, threshold=0.0) as estimator:
        report = run_pipeline(estimator, VideoFile(path), [sink])
        alone = [estimator(frame) for frame in read_video(path)]
    assert [result.frame.index for result in sink.results] == list(range(20))
    for result, expected in zip(sink.results, alone, strict=True):
        assert len(result.poses) == len(expected) > 0
        np.testing.assert_allclose(result.poses.keypoints_xy, expected.keypoints_xy, atol=1e-3)
        np.testing.assert_allclose(result.poses.scores, expected.scores, atol=1e-5)
    assert (report.frames, report.dropped, report.skipped, report.stopped) == (20, 0, 0, False)
    assert report.people == sum(map(len, alone))
    assert {"capture", "preprocess", "engine", "decode", "sinks", "latency"} == set(report.stage_ms)
    assert set(sink.results[0].stage_ms) == {"capture", "preprocess", "engine", "decode"}
    assert sink.results[5].latency_ms > sink.results[5].stage_ms["engine"]
    assert report.outputs == [{"kind": "collected", "frames": 20}]
    assert sink.closed == 1


class Growing(FrameSource):
    """A stream whose frames change their size on the way."""

    def __init__(self) -> None:
        super().__init__("growing")
        noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
        self.images = [noise[:120, :160]] * 3 + [noise] * 3 + [noise[:, :90]] * 2

    def __iter__(self) -> Iterator[CapturedFrame]:
        for index, image in enumerate(self.images):
            yield CapturedFrame(index, index / 30, image, self.name)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("batch", [1, 3])
def test_a_frame_size_that_changes_on_the_way_gives_poses_in_each_frames_own_pixels(
    artifacts: Artifacts, batch: int
) -> None:
    source, sink = Growing(), Collected()
    with PoseEstimator(artifacts.bundle("onnx", batch=batch), threads=1, threshold=0.0) as estimator:
        run_pipeline(estimator, source, [sink])
        alone = [estimator(np.ascontiguousarray(image)) for image in source.images]
    assert len(sink.results) == len(alone)
    for result, expected in zip(sink.results, alone, strict=True):
        assert len(expected) > 0
        np.testing.assert_allclose(result.poses.keypoints_xy, expected.keypoints_xy, atol=1e-2)


def test_the_engine_stays_on_the_calling_thread(estimator: PoseEstimator, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: dict[str, set[int]] = {"preprocess": set(), "infer": set(), "decode": set()}
    for stage, seen in threads.items():
        real = getattr(PoseEstimator, stage)

        def noted(*args: Any, real: Any = real, seen: set[int] = seen, **options: Any) -> Any:
            seen.add(threading.get_ident())
            return real(*args, **options)

        monkeypatch.setattr(PoseEstimator, stage, noted)
    sink = Collected()
    run_pipeline(estimator, Endless(), [sink], max_frames=5)
    assert threads["infer"] == {threading.get_ident()}
    all_threads = [*threads.values(), sink.threads]
    assert all(len(seen) == 1 for seen in all_threads)
    assert len(set.union(*all_threads)) == 4


def test_a_slow_sink_holds_up_the_source(estimator: PoseEstimator) -> None:
    go = threading.Event()

    class Slow(Collected):
        def write(self, result: FrameResult) -> None:
            go.wait(20)
            super().write(result)

    source, sink = Endless(), Slow()
    threading.Timer(1.0, go.set).start()
    ahead: list[int] = []
    threading.Timer(0.9, lambda: ahead.append(source.given)).start()
    run_pipeline(estimator, source, [sink], max_frames=60)
    assert len(sink.results) == 60
    assert ahead[0] <= 2 * FILE_DEPTH + 4 * BUFFERS + 6


def test_a_live_frame_waits_for_nobody(estimator: PoseEstimator) -> None:
    class Slow(Collected):
        def write(self, result: FrameResult) -> None:
            time.sleep(0.03)
            super().write(result)

    source, sink = Endless(live=True), Slow()
    run_pipeline(estimator, source, [sink], max_frames=30)
    assert source.given <= 31
    assert np.median([result.latency_ms for result in sink.results]) < 30 * 8


def test_stop_ends_after_the_frames_under_way(estimator: PoseEstimator) -> None:
    stop, sink = threading.Event(), Collected()
    threading.Timer(0.3, stop.set).start()
    report = run_pipeline(estimator, Endless(), [sink], stop=stop)
    assert report.stopped
    assert [result.frame.index for result in sink.results] == list(range(report.frames))
    assert sink.closed == 1


def test_stop_does_not_wait_for_a_read_that_never_returns(estimator: PoseEstimator) -> None:
    class Stuck(Endless):
        def __iter__(self) -> Iterator[CapturedFrame]:
            yield from (next(iter(Endless())) for _ in range(2))
            threading.Event().wait(30)

    stop, sink = threading.Event(), Collected()
    threading.Timer(0.3, stop.set).start()
    started = time.monotonic()
    run_pipeline(estimator, Stuck(), [sink], stop=stop)
    assert time.monotonic() - started < 10
    assert (len(sink.results), sink.closed) == (2, 1)


def test_a_source_lost_in_mid_run_keeps_what_came_before(estimator: PoseEstimator) -> None:
    source, sink = Endless(lost_after=7), Collected()
    with pytest.raises(InputError, match="endless"):
        run_pipeline(estimator, source, [sink])
    assert (len(sink.results), sink.closed) == (7, 1)
    assert source.closed


def test_a_sink_that_fails_ends_the_run_and_every_sink_is_closed(estimator: PoseEstimator) -> None:
    full = OutputError("poses.csv", expected="a place to write", got="a full disk", do="free some space")
    sinks = [Collected(), Collected(3, full), Collected()]
    with pytest.raises(OutputError, match="a full disk"):
        run_pipeline(estimator, Endless(), sinks)
    assert [len(sink.results) for sink in sinks] == [4, 3, 3]
    assert [sink.closed for sink in sinks] == [1, 1, 1]


def test_an_engine_that_fails_ends_the_run(estimator: PoseEstimator, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise EngineError("model", expected="a result", got="none", do="restart")

    monkeypatch.setattr(PoseEstimator, "infer", fail)
    sink = Collected()
    with pytest.raises(EngineError):
        run_pipeline(estimator, Endless(), [sink])
    assert sink.closed == 1


def test_a_reader_that_leaves_is_a_stop(estimator: PoseEstimator) -> None:
    sinks = [Collected(), Collected(3, BrokenPipeError())]
    report = run_pipeline(estimator, Endless(), sinks)
    assert report.stopped
    assert [sink.closed for sink in sinks] == [1, 1]


def test_a_sink_that_cannot_be_finished_is_an_error(estimator: PoseEstimator) -> None:
    class Unfinished(Collected):
        def close(self) -> None:
            super().close()
            raise OutputError("a.mp4", expected="frames on disk", got="none", do="free some space")

    sinks = [Unfinished(), Collected()]
    with pytest.raises(OutputError, match="frames on disk"):
        run_pipeline(estimator, Endless(), sinks, max_frames=3)
    assert sinks[1].closed == 1


def test_identities_come_with_the_results(estimator: PoseEstimator) -> None:
    sink = Collected()
    tracker = PoseTracker(COCO_KEYPOINTS.sigmas)
    report = run_pipeline(estimator, Endless(), [sink], tracker=tracker, max_frames=4)
    ids = [result.track_ids for result in sink.results]
    assert all(i is not None and len(i) == len(r.poses) for i, r in zip(ids, sink.results, strict=True))
    assert {tuple(i.tolist()) for i in ids if i is not None} == {tuple(ids[0].tolist())}  # the picture stands still
    assert "track" in report.stage_ms


def test_progress_is_told(estimator: PoseEstimator) -> None:
    seen: list[tuple[int, int]] = []
    run_pipeline(estimator, Endless(), [], max_frames=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 0), (2, 0), (3, 0)]


def test_times_take_no_more_room_however_long_a_run_lasts() -> None:
    times = StageTimes()
    for i in range(KEPT_TIMES + 500):
        times.add("engine", 1.0 if i < 500 else 2.0)
    assert times.summary() == {"engine": {"p50": 2.0, "p90": 2.0}}
