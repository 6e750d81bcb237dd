"""`mdpose-edge train`: its options, what it prints, and how a SIGTERM or a Ctrl-C ends it."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from mdpose_edge.checkpoint import read_checkpoint
from mdpose_edge.commands import console
from mdpose_edge.commands import train as command
from mdpose_edge.families.mdpose.network import NetworkConfig
from mdpose_edge.train import loop
from mdpose_edge.train.config import ScheduleConfig
from mdpose_edge.train.log import read_csv
from mdpose_edge.train.loop import LOG_FILE, MODEL_FILE, RESUME_FILE
from mdpose_edge.train.signals import StopSignal
from mdpose_edge.train.state import CURVES_FILE, EVAL_FILE
from tests.command import Run, command_runner
from tests.unit.tiny_coco import document, person, write_split
from tests.unit.train.crude_people import tiny_config


@pytest.fixture
def train(
    crude_people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run `mdpose-edge train` on a tiny configuration into OUT; give exit code, stdout and stderr."""
    config = tmp_path / "tiny.yaml"
    network = NetworkConfig(backbone="test_resnet", channels=16, head_convs=2)
    schedule = ScheduleConfig(iterations=4, kind="cosine")
    config.write_text(yaml.safe_dump(tiny_config(network=network, schedule=schedule, checkpoint_every=2).to_dict()))

    words = ("train", config, "--data", crude_people, "--out", tmp_path / "run")
    return partial(command_runner(monkeypatch, capsys), *words)


def test_resume_stands_alone_or_takes_auto(train: Run, tmp_path: Path) -> None:
    model = f"{tmp_path / 'run' / MODEL_FILE}\n"
    code, _, err = train("--resume")
    assert code == 2 and "a run to resume" in err
    assert train("--resume", "auto")[:2] == (0, model)
    assert train("--resume", "auto", "--set", "workers=0")[:2] == (0, model)
    assert train("--resume", "--set", "log_every=2")[:2] == (0, model)
    code, _, err = train()
    assert code == 2 and "a folder without a run" in err and "--resume" in err
    code, _, err = train("--resume=sometimes")
    assert code == 2 and "--resume: expected nothing or auto after it, got sometimes" in err


def test_progress_tells_speed_data_wait_and_accuracy(train: Run, tmp_path: Path) -> None:
    code, _, err = train("--set", "eval_every=2", "--val", "train")
    assert code == 0
    data, first, second, *_, last = err.splitlines()
    assert data.endswith("person_keypoints_train2017.json (coco)")
    assert re.search(r"training: 1/4, loss -?[\d.]+, \d+ images/s, data wait \d+%$", first)
    assert re.search(r"training: 2/4, eta 0:\d\d:\d\d, loss .*, AP \d\.\d{3}$", second)
    assert last.split("training: ")[1].startswith("4/4, loss")
    assert [row["iteration"] for row in read_csv(tmp_path / "run" / EVAL_FILE)] == ["2", "4"]


def test_annotations_that_seem_wrong_are_told(train: Run, tmp_path: Path) -> None:
    people = [person(7), person(7), person(3)]
    write_split(tmp_path / "data", document(people), "train")
    code, _, err = train("--data", tmp_path / "data", "--set", "schedule.iterations=2")
    assert code == 0
    assert f"{tmp_path / 'data'}: annotations that seem wrong are taken as they stand: person twice (1); mdpo" in err


class AskedAtOnce(StopSignal):
    def __init__(self) -> None:
        super().__init__()
        self.received = signal.SIGTERM


@pytest.mark.parametrize("signal_class", [StopSignal, AskedAtOnce], ids=["at its end", "at a SIGTERM"])
def test_only_the_main_process_of_a_run_speaks(
    train: Run, monkeypatch: pytest.MonkeyPatch, signal_class: type[StopSignal]
) -> None:
    monkeypatch.setattr(loop, "StopSignal", signal_class)
    monkeypatch.setenv("RANK", "1")
    assert train() == (0, "", "")


@pytest.fixture(autouse=True)
def heed_ctrl_c() -> Iterator[None]:
    """A shell's background jobs ignore it, and then so does a run."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


ENDLESS = ("--set", "schedule.iterations=1000000", "--set", "divergence=1000000000.0")


@pytest.mark.parametrize(
    ("number", "code", "name"), [(signal.SIGTERM, 0, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")], ids=["TERM", "INT"]
)
def test_a_signal_saves_draws_and_says_how_to_go_on(
    train: Run, tmp_path: Path, number: int, code: int, name: str
) -> None:
    def send() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if len(read_csv(tmp_path / "run" / LOG_FILE)) >= 3:  # else nothing would catch it, and end all tests
                return os.kill(os.getpid(), number)
            time.sleep(0.01)

    sender = threading.Thread(target=send)
    sender.start()
    found, out, err = train(*ENDLESS, "--set", "checkpoint_every=1000000")
    sender.join()
    assert (found, out) == (code, "")
    checkpoint = tmp_path / "run" / RESUME_FILE
    assert err.splitlines()[-1] == f"stopped by {name}; --resume goes on from {checkpoint}"
    rows = read_csv(tmp_path / "run" / LOG_FILE)
    assert len(rows) >= 3 and read_checkpoint(checkpoint).progress["iteration"] == len(rows)
    assert (tmp_path / "run" / CURVES_FILE).is_file()


@pytest.mark.parametrize(
    ("checkpoint_every", "end"),
    [(1, r"--resume goes on from .*last\.safetensors, the last"), (10**6, "before the first")],
)
def test_a_second_ctrl_c_ends_at_once(
    train: Run, monkeypatch: pytest.MonkeyPatch, checkpoint_every: int, end: str
) -> None:
    def twice(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(command, "_note", twice)  # where an iteration is told of
    code, _, err = train(*ENDLESS, "--set", f"checkpoint_every={checkpoint_every}")
    assert code == 130
    assert re.search(f"^ended at once by Ctrl-C.*{end}", err.splitlines()[-1])


@pytest.mark.parametrize("flip_prob", [0.5, 0.0])
def test_a_set_that_cannot_be_mirrored_is_trained_without_flips_only(
    train: Run, tmp_path: Path, flip_prob: float
) -> None:
    half = tmp_path / "half.yaml"
    half.write_text("{names: [nose, left_eye], flips: [], skeleton: [], sigmas: [0.026, 0.025]}")
    code, _, err = train("--keypoints", half, "--set", f"augment.flip_prob={flip_prob}", "--set", "loss.group_size=1")
    assert code == (2 if flip_prob else 0), err
    if flip_prob:
        assert "augment.flip_prob: expected 0, as left_eye would be mislabelled" in err
        assert not (tmp_path / "run").exists()


def test_lines_come_at_least_once_a_minute(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.progress_shown("training") as report:
        for done in range(100, 105):  # resumed at 100 of 100,000: far from a twentieth
            report(done, 100_000)
            now[0] += 25.0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("training: ")[1] for line in lines] == ["100/100000", "103/100000, eta 693:43:45"]
