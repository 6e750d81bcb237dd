"""What comes out of the pipeline: the result of each frame, and the report of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.poses import Poses
from mdpose_edge.stream.frames import CapturedFrame

KEPT_TIMES = 2048
"""The report's percentiles are those of the last so many frames: a run may last for weeks."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """One frame and what was found in it."""

    frame: CapturedFrame
    poses: Poses
    """In px of the frame; smoothed where that was asked for."""
    track_ids: NDArray[np.int64] | None
    """(N,): who each pose is, from 1; None where nobody tracks."""
    stage_ms: dict[str, float]
    """How long each stage worked on it, without the waits between; the sinks are still to come."""
    latency_ms: float
    """From the frame's arrival to this result, waits included."""


class Sink(Protocol):
    """Takes results, one after another, on one thread."""

    def write(self, result: FrameResult) -> None:
        """Take one.

        Raises:
            OutputError: it cannot be written; the run ends.
            BrokenPipeError: nobody reads any more; the run ends as if stopped.
        """

    def close(self) -> None:
        """Finish what is written so that it is whole as far as it goes; always called once, whatever happened.

        Raises:
            OutputError: it could not be finished.
        """

    def summary(self) -> dict[str, Any]:
        """Say what was written, ready for json.dump."""


@dataclass
class Report:
    """What a run did."""

    source: str
    engine: str
    live: bool
    frames: int = 0
    """Through every stage."""
    dropped: int = 0
    """By a live source, which keeps the newest."""
    skipped: int = 0
    """Unusable: damaged, empty, too small or too narrow."""
    reconnects: int = 0
    people: int = 0
    """Poses in all frames."""
    stopped: bool = False
    """Ended by a signal, a limit or a reader that left, before the source did."""
    seconds: float = 0.0
    """From the first frame to the last result."""
    stage_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    """Median and p90 of each stage and of the latency."""
    outputs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def fps(self) -> float:
        """Frames per second through the whole pipeline."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    def to_json_dict(self) -> dict[str, Any]:
        """Return the whole, ready for json.dump."""
        fields = {name: value for name, value in vars(self).items() if name not in ("stage_ms", "outputs")}
        return {**fields, "seconds": round(self.seconds, 3), "fps": round(self.fps, 2), "stage_ms": self.stage_ms,
                "outputs": self.outputs}  # fmt: skip


class StageTimes:
    """The last times of each stage, in memory that does not grow."""

    def __init__(self) -> None:
        self._times: dict[str, NDArray[np.float32]] = {}
        self._counts: dict[str, int] = {}

    def add(self, stage: str, ms: float) -> None:
        """Note one time."""
        if stage not in self._times:
            self._times[stage], self._counts[stage] = np.zeros(KEPT_TIMES, np.float32), 0
        self._times[stage][self._counts[stage] % KEPT_TIMES] = ms
        self._counts[stage] += 1

    def summary(self) -> dict[str, dict[str, float]]:
        """Return the median and p90 of each stage, ms."""
        found = {}
        for stage, times in self._times.items():
            kept = times[: self._counts[stage]]
            found[stage] = {"p50": round(float(np.median(kept)), 3), "p90": round(float(np.percentile(kept, 90)), 3)}
        return found
