"""A benchmark of tiny models from end to end: what is on record, not how fast this machine is."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mdpose_edge.bench.frames import MAX_KEPT, Frames, draw_frames, read_frames
from mdpose_edge.bench.run import ROUNDS, Plan, benchmark
from mdpose_edge.bench.session import STAGES, Session, Variant
from mdpose_edge.bench.startup import measure_startup
from mdpose_edge.commands.bench import CALLS
from mdpose_edge.errors import EngineError, InputError, MdposeError
from tests.artifacts import Artifacts
from tests.unit.stream.media import network_camera, write_video

QUICK = Plan(calls=ROUNDS, warmup=1, startup=False)


@pytest.fixture(scope="module")
def frames() -> Frames:
    rng = np.random.default_rng(0)
    return Frames([rng.integers(0, 256, (48, 80, 3), np.uint8) for _ in range(3)], None, "noise")


def test_two_take_turns_and_are_compared(artifacts: Artifacts, frames: Frames) -> None:
    one, other = Variant(artifacts.bundle("openvino"), threads=1), Variant(artifacts.bundle("onnx"), "onnxruntime", 1)
    turns: list[tuple[int, int]] = []
    found = benchmark([[one, other]], frames, QUICK, progress=lambda *done: turns.append(done))
    assert turns == [(i + 1, 2 * ROUNDS) for i in range(2 * ROUNDS)]
    assert [run.engine for run in found.runs] == ["openvino", "onnxruntime"]
    for run in found.runs:
        stages = run.stages_ms
        assert tuple(stages) == STAGES
        assert all(0 < ms["p50"] <= ms["p90"] <= ms["p99"] for ms in stages.values())
        parts = sum(stages[name]["mean"] for name in STAGES[:-1])
        assert parts == pytest.approx(stages["end to end"]["mean"])
        assert run.calls == ROUNDS
    (ratio,) = found.ratios
    assert (ratio["one"]["engine"], ratio["other"]["engine"]) == ("openvino", "onnxruntime")
    assert set(ratio["stages"]) == set(STAGES)
    record = json.loads(json.dumps(found.to_json_dict()))
    assert set(record["machine"]) == {"identity", "before", "after", "power"}
    assert record["runs"][1]["variant"]["model"] == str(other.model)
    assert record["stable"] is all(run["stability"]["stable"] for run in record["runs"])


@pytest.mark.parametrize("asked, counted", [(1, ROUNDS), (ROUNDS, ROUNDS), (ROUNDS + 1, 2 * ROUNDS)])
def test_calls_are_rounded_up_as_the_help_says(asked: int, counted: int) -> None:
    assert Plan(calls=asked).calls_per_round * ROUNDS == counted
    assert f"rounded up to a multiple of {ROUNDS}" in CALLS


def test_a_batch_counts_its_images(artifacts: Artifacts, frames: Frames) -> None:
    single, pair = Variant(artifacts.bundle("onnx"), threads=1), Variant(artifacts.bundle("onnx", batch=2), threads=1)
    found = benchmark([[single], [pair]], frames, QUICK)
    assert [run.batch for run in found.runs] == [1, 2]
    assert found.ratios == []
    for run in found.runs:
        end_to_end = run.stages_ms["end to end"]
        assert end_to_end["images_per_s"] == pytest.approx(1e3 * run.batch / end_to_end["mean"])
        assert run.images_per_s <= 1.01 * end_to_end["images_per_s"]


def test_streams_run_at_once_and_all_count(artifacts: Artifacts, frames: Frames) -> None:
    with Session(Variant(artifacts.bundle("onnx"), threads=1, streams=3), frames.frames_bgr) as session:
        turn = session.take_turn(4)
    assert turn.call_ms.shape == (12, len(STAGES))
    assert turn.images == 12
    assert turn.wall_s < 12e-3 * turn.call_ms[:, -1].max()


def test_a_stream_that_fails_does_not_leave_the_others_waiting(artifacts: Artifacts, frames: Frames) -> None:
    with Session(Variant(artifacts.bundle("onnx"), threads=1, streams=2), frames.frames_bgr) as session:
        session._streams[1].estimator.close()
        with pytest.raises((EngineError, RuntimeError)):
            session.take_turn(1)


def test_an_artifact_that_cannot_be_opened_is_said(tmp_path: Path, frames: Frames) -> None:
    with pytest.raises(MdposeError, match="no such file"):
        Session(Variant(tmp_path / "none"), frames.frames_bgr)


def test_startup_is_measured_in_a_process_of_its_own(artifacts: Artifacts, frames: Frames) -> None:
    found = measure_startup(Variant(artifacts.bundle("onnx"), threads=1), frames.frames_bgr[0])
    assert found["own"] == pytest.approx(found["import"] + found["verify"] + found["first_pose"])
    assert all(found[name] > 0 for name in ("import", "verify", "engine", "first_pose"))
    assert 20 < found["peak_memory_mb"] < 1000  # this very process, with torch, holds more


def test_startup_that_fails_says_why(tmp_path: Path, frames: Frames) -> None:
    with pytest.raises(EngineError, match="no such file"):
        measure_startup(Variant(tmp_path / "none"), frames.frames_bgr[0])


def test_a_source_is_timed_and_only_its_first_frames_kept(tmp_path: Path) -> None:
    for i in range(MAX_KEPT + 3):
        cv2.imwrite(str(tmp_path / f"{i:03}.png"), np.full((20, 30, 3), i, np.uint8))
    found = read_frames(str(tmp_path), limit=MAX_KEPT + 2)
    assert found.capture_ms is not None
    assert len(found.capture_ms) == MAX_KEPT + 2
    assert [int(frame[0, 0, 0]) for frame in found.frames_bgr] == list(range(MAX_KEPT))


def test_drawn_frames_are_the_same_every_time() -> None:
    first, again = draw_frames((128, 96), 2), draw_frames((128, 96), 2)
    assert first.capture_ms is None
    assert all((a == b).all() for a, b in zip(first.frames_bgr, again.frames_bgr, strict=True))
    assert first.frames_bgr[0].shape == (96, 128, 3)


def test_a_source_without_a_usable_frame_is_told(tmp_path: Path) -> None:
    path = write_video(tmp_path / "tiny.avi", 6, size_wh=(14, 14))
    with pytest.raises(InputError, match="expected frames to show, got 6 that cannot be used; name another source"):
        read_frames(str(path), 20)


def test_a_short_source_is_shown_over_and_over(artifacts: Artifacts, tmp_path: Path) -> None:
    shown = read_frames(str(write_video(tmp_path / "short.avi", 2)), 200)
    assert len(shown.frames_bgr) == 2
    (run,) = benchmark([[Variant(artifacts.bundle("onnx"), threads=1)]], shown, QUICK).runs
    assert run.calls == ROUNDS


def test_a_sources_password_is_not_on_record() -> None:
    with network_camera() as camera:
        shown = read_frames(camera.url.replace("//", "//admin:s3cret@") + "?password=s3cret", 2)
    assert shown.where == camera.url + "?password=***"
