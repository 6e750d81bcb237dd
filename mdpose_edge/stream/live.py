"""Sources that do not wait: cameras and streams. The newest frame is kept, and a lost source is opened again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.errors import InputError
from mdpose_edge.stream.frames import CapturedFrame, FrameSource, Note, ignore_note

MAX_DELAY_S = 30.0
"""Longest pause before another attempt."""
CLOSE_S = 2.0
"""How long closing waits for the read that is under way: one that Python's end surprises inside OpenCV aborts the
program."""


class LiveCapture(Protocol):
    """What a live source needs of a camera: capture.Capture has it."""

    fps: float | None

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        """Wait for the next frame; False when the source is gone."""

    def release(self) -> None:
        """Close it."""


@dataclass(frozen=True)
class Reconnect:
    """What to do when a live source falls silent."""

    attempts: int = 5
    """How often to open it again in a row before giving up; the count starts anew with every frame."""
    first_delay_s: float = 0.5
    """Pause before the first attempt; it doubles with each, up to MAX_DELAY_S."""
    stall_s: float = 5.0
    """Silence after which a source that is open counts as lost."""

    def delay_s(self, attempt: int) -> float:
        """Return the pause before an attempt, counted from 0."""
        return min(MAX_DELAY_S, self.first_delay_s * 2.0**attempt)


class LiveSource(FrameSource):
    """A camera or stream, read on a thread of its own so that the newest frame is always at hand.

    A read that never returns does not hold anybody up: its thread is left behind, and ends when the read does.

    Args:
        name: as the user named it.
        open_capture: opens it; raises InputError where it cannot.
        reconnect: what to do when it falls silent.
        note: called about each loss and return.
        first: what is open already.

    Raises:
        InputError: it cannot be opened at first. Later, while iterating: every attempt to open it again failed.
    """

    live = True

    def __init__(
        self,
        name: str,
        open_capture: Callable[[], LiveCapture],
        reconnect: Reconnect,
        *,
        note: Note = ignore_note,
        first: LiveCapture | None = None,
    ) -> None:
        super().__init__(name, note=note)
        self._open, self._reconnect = open_capture, reconnect
        self._closed = threading.Event()
        self._start_s: float | None = None
        self._count = 0
        capture = open_capture() if first is None else first
        self.fps = capture.fps
        self._reader = _Reader(capture)

    def __iter__(self) -> Iterator[CapturedFrame]:
        failures, lost_s = 0, 0.0
        while not self._closed.is_set():
            arrived = self._reader.next(self._reconnect.stall_s)
            if arrived is not None:
                if failures:
                    self.reconnects += 1
                    self._note(f"{self.name}: back after {time.monotonic() - lost_s:.1f} s.")
                failures = 0
                frame = self._frame(*arrived)
                if frame is not None:
                    yield frame
                continue
            if self._closed.is_set():
                return
            if not failures:
                lost_s = time.monotonic()
            failures = self._open_again(failures, self._reader.verdict())

    def close(self) -> None:
        """End the iteration, now; calling it twice is harmless."""
        self._closed.set()
        self._reader.stop()
        self._reader.join(CLOSE_S)

    def _frame(self, image: NDArray[np.uint8] | None, arrival_s: float, missed: int) -> CapturedFrame | None:
        if self._start_s is None:  # what came before anybody asked was not dropped
            self._start_s, missed = arrival_s, 0
        self.dropped += missed
        self._count += missed + 1
        index = self._count - 1
        if not self._usable(image, index):
            return None
        assert image is not None
        return CapturedFrame(index, arrival_s - self._start_s, image, self.name)

    def _open_again(self, failures: int, why: str) -> int:
        """Try once more after a pause; give the failures in a row, this one counted until a frame comes."""
        policy = self._reconnect
        if failures >= policy.attempts:
            tried = f"after {failures} attempts to open it again" if failures else "and no attempt is allowed"
            do = "check the device, cable or network; --reconnect sets the attempts"
            raise InputError(self.name, expected="frames", got=f"{why}, {tried}", do=do)
        delay = policy.delay_s(failures)
        self._note(f"{self.name}: {why}; attempt {failures + 1} of {policy.attempts} in {delay:g} s.")
        self._reader.stop()
        if not self._closed.wait(delay):
            try:
                self._reader = _Reader(self._open())
            except InputError:
                self._reader.fail()
            if self._closed.is_set():
                self._reader.stop()
        return failures + 1


class _Reader:
    """Reads one capture until it ends, and holds the newest frame."""

    def __init__(self, capture: LiveCapture) -> None:
        self._capture = capture
        self._changed = threading.Condition()
        self._newest: tuple[NDArray[np.uint8] | None, float] | None = None
        self._missed = 0
        self._ended = self._stopped = self._refused = False
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    def next(self, timeout_s: float) -> tuple[NDArray[np.uint8] | None, float, int] | None:
        """Take the newest frame, when it came, and how many were overwritten; None when it ended or stalled."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._ended or self._stopped, timeout_s)
            if self._newest is None:
                return None
            (image, arrival_s), self._newest = self._newest, None
            missed, self._missed = self._missed, 0
            return image, arrival_s, missed

    def verdict(self) -> str:
        """Say what became of the capture."""
        if self._refused:
            return "it cannot be opened"
        return "it sends no more frames" if self._ended else "it has stalled"

    def fail(self) -> None:
        """Note that opening it again did not succeed."""
        self._refused = True

    def stop(self) -> None:
        """End after the read that is under way."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopped:
            found, image = self._capture.read()
            with self._changed:
                if not found or self._stopped:
                    break
                self._missed += self._newest is not None
                self._newest = image, time.monotonic()
                self._changed.notify_all()
        self._capture.release()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
