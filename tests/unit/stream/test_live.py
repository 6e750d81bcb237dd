from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge.errors import InputError
from mdpose_edge.stream.live import MAX_DELAY_S, LiveSource, Reconnect
from mdpose_edge.stream.sources import open_source
from tests.unit.stream.media import network_camera, number_of, picture

QUICK = Reconnect(attempts=3, first_delay_s=0.01, stall_s=0.15)


class Camera:
    """A camera that reads from a script: a picture, a pause in s, "gone", or "hang"."""

    fps = None

    def __init__(self, script: Iterator[object]) -> None:
        self._script = script
        self.released = threading.Event()
        self._unhang = threading.Event()

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        for step in self._script:
            if isinstance(step, float):
                time.sleep(step)
            elif isinstance(step, str):
                if step == "hang":
                    self._unhang.wait(20)
                return False, None
            else:
                return True, step  # type: ignore[return-value]
        return False, None

    def release(self) -> None:
        self.released.set()


def opener(*scripts: list[object] | None) -> Callable[[], Camera]:
    """Open one script after another; None is a camera that is not there."""
    left = list(scripts)

    def open_camera() -> Camera:
        script = left.pop(0) if left else None
        if script is None:
            raise InputError("camera", expected="a camera", got="none", do="plug it in")
        return Camera(iter(script))

    return open_camera


def test_the_newest_frame_is_kept_and_the_others_are_counted() -> None:
    source = LiveSource("cam", opener([picture(0), picture(1), 0.1, *(picture(n) for n in range(2, 7)), 5.0]), QUICK)
    time.sleep(0.05)
    frames = iter(source)
    first = next(frames)
    assert (first.index, number_of(first.image_bgr)) == (0, 1)  # before anybody asked, nothing is dropped
    time.sleep(0.2)
    frame = next(frames)
    assert (frame.index, number_of(frame.image_bgr)) == (5, 6)
    assert source.dropped == 4
    source.close()


def test_a_lost_camera_is_opened_again_and_that_is_told() -> None:
    notes: list[str] = []
    source = LiveSource("cam", opener([picture(1), "gone"], None, [picture(2), 5.0]), QUICK, note=notes.append)
    frames = list(itertools.islice(source, 2))
    source.close()
    assert [number_of(frame.image_bgr) for frame in frames] == [1, 2]
    assert frames[1].index == 1
    assert frames[1].time_s > frames[0].time_s
    assert source.reconnects == 1
    assert [note.partition(";")[0] for note in notes[:2]] == [
        "cam: it sends no more frames",
        "cam: it cannot be opened",
    ]
    assert notes[2].startswith("cam: back after ")


def test_a_camera_gone_for_good_is_an_error_after_so_many_attempts() -> None:
    notes: list[str] = []
    source = LiveSource("cam", opener([picture(1), "gone"]), QUICK, note=notes.append)
    frames = iter(source)
    next(frames)
    with pytest.raises(InputError, match="it cannot be opened, after 3 attempts to open it again"):
        next(frames)
    assert len(notes) == 3


def test_without_attempts_the_first_loss_is_the_end() -> None:
    source = LiveSource("cam", opener([picture(1), "gone"]), Reconnect(0))
    with pytest.raises(InputError, match="it sends no more frames, and no attempt is allowed"):
        list(source)


def test_a_read_that_hangs_is_left_behind() -> None:
    source = LiveSource("cam", opener([picture(1), "hang"], [picture(2), 5.0]), QUICK)
    started = time.monotonic()
    frames = list(itertools.islice(source, 2))
    assert time.monotonic() - started < 5
    assert [number_of(frame.image_bgr) for frame in frames] == [1, 2]
    source.close()


def test_a_camera_that_opens_but_never_sends_is_given_up() -> None:
    source = LiveSource("cam", opener(*([1.0, "gone"] for _ in range(9))), QUICK)
    with pytest.raises(InputError, match="it has stalled, after 3 attempts"):
        list(source)


def test_a_camera_that_is_not_there_is_told_at_once() -> None:
    with pytest.raises(InputError, match="plug it in"):
        LiveSource("cam", opener(None), QUICK)


def test_empty_frames_are_skipped() -> None:
    script = [np.zeros((0, 0, 3), np.uint8), 0.05, picture(3), 0.05, picture(4, (64, 96)), 5.0]
    source = LiveSource("cam", opener(script), QUICK)
    frames = list(itertools.islice(source, 2))
    source.close()
    assert [frame.image_bgr.shape[:2] for frame in frames] == [(64, 96), (96, 64)]
    assert source.skipped == 1


def test_closing_from_another_thread_ends_the_wait() -> None:
    source = LiveSource("cam", opener([picture(1), 30.0]), Reconnect(stall_s=30))
    threading.Timer(0.05, source.close).start()
    started = time.monotonic()
    assert len(list(source)) == 1
    assert time.monotonic() - started < 5


def test_pauses_double_up_to_a_bound() -> None:
    policy = Reconnect(first_delay_s=0.5)
    assert [policy.delay_s(n) for n in range(4)] == [0.5, 1.0, 2.0, 4.0]
    assert policy.delay_s(50) == MAX_DELAY_S


def test_a_stream_that_stalls_and_comes_back() -> None:
    notes: list[str] = []
    with network_camera() as camera:
        policy = Reconnect(attempts=20, first_delay_s=0.05, stall_s=0.4)
        with open_source(camera.url, reconnect=policy, note=notes.append) as source:
            frames = iter(source)
            assert next(frames).index == 0
            camera.sending.clear()
            threading.Timer(0.8, camera.sending.set).start()
            last = next(frames)
            while source.reconnects == 0:
                last = next(frames)
            assert last.time_s > 0.4
            assert number_of(last.image_bgr) < 30
        assert camera.visits >= 2
    assert any("attempt 1 of 20" in note for note in notes)
    assert any("back after" in note for note in notes)


def test_a_stream_that_vanishes_for_good_is_an_error_in_one_sentence() -> None:
    with network_camera() as camera, open_source(camera.url, reconnect=QUICK) as source:
        frames = iter(source)
        next(frames)
        camera.hung_up.set()
        with pytest.raises(InputError, match=r"expected frames, got it .*, after 3 attempts"):
            list(frames)
