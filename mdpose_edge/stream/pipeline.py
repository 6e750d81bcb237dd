"""Capture, preprocessing, engine, decoding and sinks at the same time, on one frame each.

    capture ─► preprocess ─► engine ─► decode, track ─► sinks

Each arrow is a bounded channel, so that the slowest stage sets the pace and memory stays where it is. The engine runs
on the calling thread, which made it: engines are bound to their thread, some by their driver. numpy, OpenCV and the
engines let go of Python's lock while they work, so threads are all it takes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.progress import Progress
from mdpose_edge.errors import InputError
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.poses import Poses
from mdpose_edge.preprocess import FrameGeometry
from mdpose_edge.stream.channel import Channel
from mdpose_edge.stream.frames import CapturedFrame, FrameSource
from mdpose_edge.stream.result import FrameResult, Report, Sink, StageTimes

FILE_DEPTH, LIVE_DEPTH = 4, 1
"""Frames that may wait before a stage. A live source is better served by its newest frame than by a queue."""
BUFFERS = 2
"""Of the engine's input and output each: one is worked on while the other is filled."""
CLOSE_S = 2.0
"""How long the end waits for the read that is under way: one that Python's end surprises inside OpenCV aborts the
program. A read that never returns is left behind."""
POLL_S = 0.1
"""How often the calling thread looks for a stop while no frame comes; signals reach Python there only."""


class Tracker(Protocol):
    """Names people from frame to frame: track.tracker.PoseTracker does."""

    def update(self, poses: Poses, time_s: float) -> tuple[Poses, NDArray[np.int64]]:
        """Return the poses, smoothed where that was asked for, and who each is."""


def run_pipeline(
    estimator: PoseEstimator,
    source: FrameSource,
    sinks: Sequence[Sink],
    *,
    tracker: Tracker | None = None,
    stop: threading.Event | None = None,
    max_frames: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Run every frame of a source through the estimator and into the sinks.

    Call it on the thread that made the estimator. Whatever ends the run, the sinks are closed, which finishes their
    files: the end of the source, `stop`, a source lost for good, an engine that fails, a full disk.

        report = run_pipeline(estimator, open_source("clip.mp4"), [JsonlSink("poses.jsonl")])
        print(f"{report.fps:.0f} frames per second")

    Args:
        estimator: not used otherwise meanwhile.
        source: iterated and closed.
        sinks: written to in order, on one thread, and closed.
        tracker: gives the poses identities, or None.
        stop: set it, also from a signal handler, and the run ends after the frames that are under way.
        max_frames: end after so many, or None.
        progress: called after each frame, on the sinks' thread.

    Returns:
        What was done.

    Raises:
        MdposeError: the first thing that went wrong; by then the sinks are closed.
    """
    return _Run(estimator, source, sinks, tracker, stop or threading.Event(), max_frames, progress).run()


@dataclass(slots=True)
class _Picture:
    """A frame on its way."""

    frame: CapturedFrame
    arrival_s: float
    stage_ms: dict[str, float] = field(default_factory=dict)
    geometry: FrameGeometry | None = None


@dataclass(slots=True)
class _Batch:
    """What goes through the engine at once."""

    pictures: list[_Picture]
    images: NDArray[np.uint8]


@dataclass(slots=True)
class _Output:
    """What came out of it."""

    pictures: list[_Picture]
    heads: dict[str, NDArray[np.float32]]


class _Run:
    """The channels and threads of one call of `run_pipeline`."""

    def __init__(
        self,
        estimator: PoseEstimator,
        source: FrameSource,
        sinks: Sequence[Sink],
        tracker: Tracker | None,
        stop: threading.Event,
        max_frames: int | None,
        progress: Progress | None,
    ) -> None:
        self._estimator, self._source, self._sinks, self._tracker = estimator, source, sinks, tracker
        self._stop, self._max_frames, self._progress = stop, max_frames, progress
        depth = LIVE_DEPTH if source.live else FILE_DEPTH
        self._captured: Channel[_Picture] = Channel(depth)
        self._ready: Channel[_Batch] = Channel(BUFFERS)
        self._inferred: Channel[_Output] = Channel(BUFFERS)
        self._decoded: Channel[FrameResult] = Channel(depth)
        # A live frame does not wait for others to fill a batch.
        self._batch = 1 if source.live else estimator.spec.input.batch
        self._free_images: Channel[NDArray[np.uint8]] = Channel(BUFFERS)
        self._free_heads: Channel[dict[str, NDArray[np.float32]]] = Channel(BUFFERS)
        for _ in range(BUFFERS):
            self._free_images.put(estimator.make_images())
            self._free_heads.put({})
        self._errors: list[BaseException] = []
        self._times = StageTimes()
        self._report = Report(source.name, estimator.engine, source.live)
        self._begin_s = self._end_s = time.perf_counter()

    def run(self) -> Report:
        stages = (self._capture, self._preprocess, self._decode, self._write)
        # Daemons: what never returns must not keep the program alive.
        threads = [threading.Thread(target=self._guarded, args=(stage,), daemon=True) for stage in stages]
        for thread in threads:
            thread.start()
        try:
            self._infer()
        except BaseException as error:
            self._fail(error)
        finally:
            self._inferred.close()
            self._end_capture()
            for thread in threads[1:]:
                thread.join()
            self._source.close()
            threads[0].join(CLOSE_S)
            self._close_sinks()
        if self._errors:
            raise self._errors[0]
        return self._finished_report()

    def _guarded(self, stage: Callable[[], None]) -> None:
        try:
            stage()
        except BrokenPipeError:  # nobody reads the results any more: as good as a stop
            self._report.stopped = True
            self._cancel()
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Keep the error for the caller, and let every stage run dry at once."""
        self._errors.append(error)
        self._cancel()

    def _cancel(self) -> None:
        channels: tuple[Channel[Any], ...] = (self._captured, self._ready, self._inferred, self._decoded)
        for channel in (*channels, self._free_images, self._free_heads):
            channel.cancel()

    def _capture(self) -> None:
        """Fetch frames. What ends the source ends the run, but only after the frames that came before."""
        error: BaseException | None = None
        try:
            frames, fetched = iter(self._source), 0
            while fetched != self._max_frames:
                if self._source.live:
                    self._captured.wait_wanted()
                start_s = time.perf_counter()
                frame = next(frames, None)
                now_s = time.perf_counter()
                if frame is None or not self._captured.put(
                    _Picture(frame, now_s, {"capture": 1e3 * (now_s - start_s)})
                ):
                    break
                fetched += 1
            if fetched == self._max_frames:
                self._report.stopped = True
        except InputError as lost:
            error = lost
        finally:
            if error is not None:
                self._errors.append(error)
            self._captured.close()

    def _preprocess(self) -> None:
        while (images := self._free_images.get()) is not None:
            pictures: list[_Picture] = []
            while len(pictures) < self._batch and (picture := self._captured.get()) is not None:
                start_s = time.perf_counter()
                picture.geometry = self._estimator.preprocess(picture.frame.image_bgr, images[len(pictures)])
                picture.stage_ms["preprocess"] = 1e3 * (time.perf_counter() - start_s)
                pictures.append(picture)
            if not pictures or not self._ready.put(_Batch(pictures, images)):
                break
        self._ready.close()

    def _infer(self) -> None:
        while not self._ready.is_over:
            if self._stop.is_set():
                self._end_capture()
            batch = self._ready.get(POLL_S)
            heads = None if batch is None else self._free_heads.get()
            if batch is None or heads is None:
                continue
            start_s = time.perf_counter()
            self._estimator.infer(batch.images, heads)
            each_ms = 1e3 * (time.perf_counter() - start_s) / len(batch.pictures)
            for picture in batch.pictures:
                picture.stage_ms["engine"] = each_ms
            self._free_images.put(batch.images)
            self._inferred.put(_Output(batch.pictures, heads))

    def _end_capture(self) -> None:
        """Fetch no more; frames that were fetched still go the whole way."""
        if not self._captured.is_over and self._stop.is_set():
            self._report.stopped = True
        self._captured.close()

    def _decode(self) -> None:
        for output in self._inferred:
            results = [self._result(output, index) for index in range(len(output.pictures))]
            self._free_heads.put(output.heads)
            for result in results:
                self._decoded.put(result)
        self._decoded.close()

    def _result(self, output: _Output, index: int) -> FrameResult:
        picture = output.pictures[index]
        assert picture.geometry is not None
        start_s = time.perf_counter()
        poses, ids = self._estimator.decode(output.heads, picture.geometry, index), None
        decoded_s = now_s = time.perf_counter()
        picture.stage_ms["decode"] = 1e3 * (decoded_s - start_s)
        if self._tracker is not None:
            poses, ids = self._tracker.update(poses, picture.frame.time_s)
            now_s = time.perf_counter()
            picture.stage_ms["track"] = 1e3 * (now_s - decoded_s)
        return FrameResult(picture.frame, poses, ids, picture.stage_ms, 1e3 * (now_s - picture.arrival_s))

    def _write(self) -> None:
        report = self._report
        for result in self._decoded:
            start_s = time.perf_counter()
            for sink in self._sinks:
                sink.write(result)
            self._end_s = time.perf_counter()
            if not report.frames:
                self._begin_s = self._end_s - 1e-3 * (result.latency_ms + result.stage_ms["capture"])
            report.frames += 1
            report.people += len(result.poses)
            for stage, ms in result.stage_ms.items():
                self._times.add(stage, ms)
            self._times.add("sinks", 1e3 * (self._end_s - start_s))
            self._times.add("latency", result.latency_ms)
            if self._progress is not None:
                self._progress(report.frames, self._source.total or 0)

    def _close_sinks(self) -> None:
        for sink in self._sinks:
            try:
                sink.close()
            except Exception as error:
                self._errors.append(error)

    def _finished_report(self) -> Report:
        report, source = self._report, self._source
        report.dropped, report.skipped, report.reconnects = source.dropped, source.skipped, source.reconnects
        report.seconds = self._end_s - self._begin_s
        report.stage_ms = self._times.summary()
        report.outputs = [sink.summary() for sink in self._sinks]
        return report
