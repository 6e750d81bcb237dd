"""An artifact on an engine, opened so many times over and run with a clock on each stage."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from mdpose_edge.common.closing import Closing
from mdpose_edge.estimator import PoseEstimator

STAGES = ("preprocess", "engine", "decode", "end to end")
"""Columns of the timings: resize, graph, head tensors to poses, and all three."""


@dataclass(frozen=True)
class Variant:
    """What is measured."""

    model: Path
    runtime: str | None = None
    threads: int | None = None
    """CPU threads of each engine, or None for its own choice."""
    streams: int = 1
    """So many estimators run at once, each in a thread with an engine of its own."""


@dataclass(frozen=True)
class RoundTimes:
    """One turn of a variant."""

    call_ms: NDArray[np.float64]
    """(streams * calls, 4) ms of each call, by STAGES."""
    wall_s: float
    """From the first call's start to the last one's end, over all streams."""
    images: int
    poses: int


class Session(Closing):
    """A variant, ready to take turns.

    Each stream lives in a thread of its own from opening to closing: some engines belong to the thread that made them.

    Args:
        variant: what to open.
        frames_bgr: shown one after another, over and over.

    Raises:
        MdposeError: the model cannot be opened.
    """

    def __init__(self, variant: Variant, frames_bgr: Sequence[NDArray[np.uint8]]) -> None:
        self.variant = variant
        with ExitStack() as stack:
            self._streams = [stack.enter_context(_Stream(variant, frames_bgr)) for _ in range(variant.streams)]
            self._stack = stack.pop_all()
        first = self._streams[0].estimator
        self.engine, self.spec = first.engine, first.spec

    def take_turn(self, calls: int) -> RoundTimes:
        """Run every stream so many times, all at once, after a call each that is not counted.

        That call brings code and weights back into the caches which the other variants' turns have filled.
        """
        start_line = threading.Barrier(len(self._streams))
        laps = [lap.result() for lap in [stream.start(calls, start_line) for stream in self._streams]]
        wall_s = max(lap.end_s for lap in laps) - min(lap.start_s for lap in laps)
        images = len(laps) * calls * self.spec.input.batch
        return RoundTimes(np.concatenate([lap.call_ms for lap in laps]), wall_s, images, sum(lap.poses for lap in laps))

    def close(self) -> None:
        """Release the engines; calling it twice is harmless."""
        self._stack.close()


@dataclass(frozen=True)
class _Lap:
    call_ms: NDArray[np.float64]
    start_s: float
    end_s: float
    poses: int


class _Stream:
    """One estimator in one thread."""

    def __init__(self, variant: Variant, frames_bgr: Sequence[NDArray[np.uint8]]) -> None:
        self._frames, self._shown = frames_bgr, 0
        self._thread = ThreadPoolExecutor(1, "bench-stream")
        try:
            opened = self._thread.submit(PoseEstimator, variant.model, runtime=variant.runtime, threads=variant.threads)
            self.estimator = opened.result()
        except BaseException:
            self._thread.shutdown()
            raise

    def start(self, calls: int, start_line: threading.Barrier) -> Future[_Lap]:
        return self._thread.submit(self._run, calls, start_line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.submit(self.estimator.close).result()
        self._thread.shutdown()

    def _run(self, calls: int, start_line: threading.Barrier) -> _Lap:
        images = self.estimator.make_images()
        try:
            self._call(images)
            start_line.wait()
        except BaseException:
            start_line.abort()  # else the other streams would wait for this one for ever
            raise
        seconds, poses = np.empty((calls, len(STAGES))), 0
        start = time.perf_counter()
        for call in range(calls):
            *marks, found = self._call(images)
            seconds[call] = (*np.diff(marks), marks[-1] - marks[0])
            poses += found
        return _Lap(1e3 * seconds, start, time.perf_counter(), poses)

    def _call(self, images: NDArray[np.uint8]) -> tuple[float, float, float, float, int]:
        """Run one batch; give the times before and after each stage, and how many poses there were."""
        estimator, count = self.estimator, len(self._frames)
        frames = [self._frames[(self._shown + i) % count] for i in range(len(images))]
        self._shown = (self._shown + len(images)) % count
        start = time.perf_counter()
        geometries = [estimator.preprocess(frame, image) for frame, image in zip(frames, images, strict=True)]
        prepared = time.perf_counter()
        heads = estimator.infer(images)
        ran = time.perf_counter()
        poses = [estimator.decode(heads, geometry, i) for i, geometry in enumerate(geometries)]
        return start, prepared, ran, time.perf_counter(), sum(map(len, poses))
