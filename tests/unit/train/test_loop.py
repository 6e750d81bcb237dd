"""The training loop: it learns, it resumes on the same curve, and it stops where it should."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from mdpose_edge.checkpoint import load_network, read_checkpoint
from mdpose_edge.errors import CheckpointError, ConfigError, InputError, TrainingError
from mdpose_edge.families.mdpose.network import NetworkConfig, make_spec
from mdpose_edge.families.mdpose.training import LossConfig
from mdpose_edge.train.config import OptimizerConfig, ScheduleConfig, load_config
from mdpose_edge.train.log import LOG_COLUMNS
from mdpose_edge.train.loop import (
    CONFIG_FILE,
    LOG_FILE,
    MODEL_FILE,
    RESUME_FILE,
    TrainProgress,
    train,
)
from mdpose_edge.train.optimizer import learning_rate, make_optimizer
from mdpose_edge.train.start import begin
from tests.unit.train.crude_people import HEIGHT, SMALL_PX, WIDTH, tiny_config, write_crude_people

LOSS_FALL = 0.65
"""The mean of a run's last ten losses over its first: measured 0.43 (seeds 0, 1 and 2: 0.43, 0.43, 0.56)."""

SMALL_NETWORK = {"network": NetworkConfig(backbone="test_resnet", channels=16, head_convs=2)}

TRAIN_SCRIPT = """
import sys
from pathlib import Path
from mdpose_edge.train.config import load_config
from mdpose_edge.train.loop import train

config, data, out = map(Path, sys.argv[1:])
train(load_config(config), data, out)
"""


class Interruption(Exception):
    """What a test raises in the middle of a run."""


def logged(out: Path) -> list[tuple[int, str]]:
    """Iterations and losses of a log, the losses as written."""
    with open(out / LOG_FILE, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == (*LOG_COLUMNS, "nll", "count", "underflow", "underflow_persons")
    return [(int(row[0]), row[1]) for row in rows]


def interrupt_at(iteration: int) -> Any:
    def report(progress: TrainProgress) -> None:
        if progress.iteration == iteration:
            raise Interruption

    return report


def child_pids() -> set[int]:
    """The processes that this one started and that still run."""
    listing = subprocess.run(["ps", "-o", "pid=,stat=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    rows = (line.split() for line in listing.stdout.splitlines())
    return {int(pid) for pid, state in rows if not state.startswith("Z")}


@pytest.mark.parametrize(
    ("schedule", "iteration", "expected"),
    [
        pytest.param(ScheduleConfig(), 0, 0.01, id="step: at the start"),
        pytest.param(ScheduleConfig(), 299_999, 0.01, id="step: before the first milestone"),
        pytest.param(ScheduleConfig(), 300_000, 0.001, id="step: at the first milestone"),
        pytest.param(ScheduleConfig(), 340_000, 0.0001, id="step: at the second milestone"),
        pytest.param(ScheduleConfig(warmup=4), 0, 0.0025, id="warm-up: first"),
        pytest.param(ScheduleConfig(warmup=4), 3, 0.01, id="warm-up: last"),
        pytest.param(ScheduleConfig(100, "cosine", warmup=20), 20, 0.01, id="cosine: at the top"),
        pytest.param(ScheduleConfig(100, "cosine", warmup=20), 60, 0.005, id="cosine: half-way"),
        pytest.param(ScheduleConfig(100, "cosine", warmup=20), 100, 0.0, id="cosine: at the end"),
    ],
)
def test_learning_rate(schedule: ScheduleConfig, iteration: int, expected: float) -> None:
    assert learning_rate(iteration, 0.01, schedule) == pytest.approx(expected, abs=1e-12)


def test_adamw_spares_biases_and_batch_norms_the_weight_decay_and_the_papers_sgd_does_not() -> None:
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    decayed, plain = make_optimizer(layers, OptimizerConfig(name="adamw", weight_decay=0.1)).param_groups
    assert [p.ndim for p in decayed["params"]] == [4] and decayed["weight_decay"] == 0.1
    assert [p.ndim for p in plain["params"]] == [1, 1, 1] and plain["weight_decay"] == 0.0
    (everything,) = make_optimizer(layers, OptimizerConfig(name="sgd", weight_decay=0.1)).param_groups
    assert len(everything["params"]) == 4 and everything["weight_decay"] == 0.1


def test_dla34_learns(crude_people: Path, tmp_path: Path) -> None:
    config = tiny_config(
        network=NetworkConfig(backbone="dla34", channels=16, head_convs=2),
        optimizer=OptimizerConfig(name="adamw", lr=2e-3),
        schedule=ScheduleConfig(iterations=60, kind="cosine", warmup=5),
    )
    seen: list[TrainProgress] = []
    model = train(config, crude_people, tmp_path / "run", report=seen.append)
    losses = [progress.loss for progress in seen]
    assert sum(losses[-10:]) / 10 < LOSS_FALL * losses[0]
    assert [progress.iteration for progress in seen] == list(range(1, 61))
    network, spec = load_network(model)
    assert not network.training and spec.family == "mdpose"
    assert read_checkpoint(model).progress is None and not read_checkpoint(model).state


def test_run_writes_its_own_configuration_and_every_iteration(crude_people: Path, tmp_path: Path) -> None:
    config, seen = tiny_config(), []
    train(config, crude_people, tmp_path / "run", report=seen.append)
    assert load_config(tmp_path / "run" / CONFIG_FILE) == config
    assert logged(tmp_path / "run") == [(p.iteration - 1, f"{p.loss:.9g}") for p in seen]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_resumed_run_draws_the_curve_of_an_unbroken_one(crude_people: Path, tmp_path: Path, name: Any) -> None:
    config = tiny_config(optimizer=OptimizerConfig(name=name, lr=1e-3))
    train(config, crude_people, tmp_path / "unbroken")
    with pytest.raises(Interruption):
        train(config, crude_people, tmp_path / "broken", report=interrupt_at(8))
    assert len(logged(tmp_path / "broken")) == 8  # three more than the checkpoint at 5 holds
    first: list[TrainProgress] = []
    train(config, crude_people, tmp_path / "broken", resume=True, report=first.append)
    assert first[0].iteration == 6
    assert logged(tmp_path / "broken") == logged(tmp_path / "unbroken")
    assert (tmp_path / "broken" / MODEL_FILE).read_bytes() == (tmp_path / "unbroken" / MODEL_FILE).read_bytes()


def test_killed_run_resumes_on_the_same_curve(crude_people: Path, tmp_path: Path) -> None:
    config = tiny_config(schedule=ScheduleConfig(iterations=40, kind="cosine"), checkpoint_every=10, workers=1)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.to_dict()))
    killed = tmp_path / "killed"
    _kill_past_checkpoint(path, crude_people, killed, iteration=13)
    assert not (killed / MODEL_FILE).exists()
    assert read_checkpoint(killed / RESUME_FILE).progress["iteration"] < 40  # type: ignore[index]
    train(config, crude_people, killed, resume=True)
    train(config, crude_people, tmp_path / "unbroken")
    assert len(logged(killed)) == 40
    assert logged(killed) == logged(tmp_path / "unbroken")


def _kill_past_checkpoint(config: Path, data: Path, out: Path, iteration: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TRAIN_SCRIPT, str(config), str(data), str(out)]
    with subprocess.Popen(command, env=environment) as process:
        deadline = time.monotonic() + 120
        while not (out / LOG_FILE).is_file() or len(logged(out)) <= iteration:
            assert process.poll() is None and time.monotonic() < deadline, "the run ended or stalled before the kill"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def test_finished_run_resumes_to_the_same_model(crude_people: Path, tmp_path: Path) -> None:
    config, out = tiny_config(schedule=ScheduleConfig(iterations=2)), tmp_path / "run"
    train(config, crude_people, out)
    before, log = (out / MODEL_FILE).read_bytes(), logged(out)
    train(config, crude_people, out, resume=True)
    assert (out / MODEL_FILE).read_bytes() == before and logged(out) == log


def test_resume_reads_neither_start_weights_nor_hub(crude_people: Path, tmp_path: Path) -> None:
    start = train(tiny_config(schedule=ScheduleConfig(iterations=1)), crude_people, tmp_path / "start")
    config, out = tiny_config(init=str(start)), tmp_path / "run"
    with pytest.raises(Interruption):
        train(config, crude_people, out, report=interrupt_at(6))
    start.unlink()
    train(config, crude_people, out, resume=True)
    assert len(logged(out)) == 12


@pytest.mark.parametrize("backbone", ["test_resnet", "mobilenetv4_conv_small"])
def test_frozen_part_of_the_backbone_stays_and_the_run_resumes(
    crude_people: Path, tmp_path: Path, backbone: str
) -> None:
    config = tiny_config(
        network=NetworkConfig(backbone=backbone, channels=16, head_convs=2),
        schedule=ScheduleConfig(iterations=4),
        optimizer=OptimizerConfig(name="adamw", lr=1e-2, weight_decay=0.1),
        checkpoint_every=2,
        ema=0.5,
    )
    start = train(config, crude_people, tmp_path / "start")
    frozen = replace(config, frozen_stride=8, init=str(start))

    def die(progress: TrainProgress) -> None:
        if progress.iteration == 3:
            raise Interruption

    with pytest.raises(Interruption):
        train(frozen, crude_people, tmp_path / "run", report=die)
    end = train(frozen, crude_people, tmp_path / "run", resume=True)
    whole = train(frozen, crude_people, tmp_path / "whole")
    assert end.read_bytes() == whole.read_bytes()
    images = torch.zeros(1, SMALL_PX, SMALL_PX, 3, dtype=torch.uint8)
    maps = []
    for path in (start, end):
        network, _ = load_network(path)
        with torch.no_grad():
            maps.append(network.backbone(network.normalize(images)))
    assert torch.equal(maps[0][0], maps[1][0])
    assert not torch.allclose(maps[0][1], maps[1][1]) and not torch.allclose(maps[0][2], maps[1][2])


def test_counted_people_make_scores_expected_numbers(crude_people: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(crude_people, data)
    annotations = data / "annotations" / "person_keypoints_train2017.json"
    content = json.loads(annotations.read_text())
    for image_id in range(101, 106):  # nobody there
        record = {**content["images"][0], "id": image_id, "file_name": f"{image_id:012d}.jpg"}
        assert cv2.imwrite(str(data / "train2017" / record["file_name"]), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
        content["images"].append(record)
    annotations.write_text(json.dumps(content))
    network = NetworkConfig(backbone="test_resnet", channels=16, head_convs=2)
    schedule = ScheduleConfig(iterations=60, kind="cosine", warmup=5)
    config = tiny_config(
        network=network,
        schedule=schedule,
        batch_size=8,
        negatives=True,
        loss=LossConfig(count_weight=1.0),
        accumulate=2,
    )
    trained, _ = load_network(train(config, data, tmp_path / "run"))
    numbers = []
    for name in ("000000000101", "000000000003", "000000000002"):  # 0, 1 and 3 people
        image = cv2.resize(cv2.imread(str(data / "train2017" / f"{name}.jpg")), (SMALL_PX, SMALL_PX))
        with torch.no_grad():
            heads = trained(torch.from_numpy(image)[None])
        numbers.append(sum(float(head.o.sigmoid().sum()) for head in heads))
    assert numbers[0] < 0.4 and numbers[0] + 0.3 < numbers[1] < numbers[2], numbers


def test_init_starts_from_a_checkpoint(crude_people: Path, tmp_path: Path) -> None:
    frozen = OptimizerConfig(name="sgd", lr=1e-12)
    once = ScheduleConfig(iterations=1, milestones=())
    start = train(tiny_config(), crude_people, tmp_path / "start")
    moved = train(
        tiny_config(init=str(start), optimizer=frozen, schedule=once, seed=9), crude_people, tmp_path / "moved"
    )
    was, now = read_checkpoint(start).weights, read_checkpoint(moved).weights
    assert torch.allclose(was["head.mu.weight"], now["head.mu.weight"], atol=1e-7)


def test_init_takes_what_fits_and_says_what_it_left(crude_people: Path, tmp_path: Path) -> None:
    start = train(tiny_config(schedule=ScheduleConfig(iterations=1)), crude_people, tmp_path / "start")
    wider = tiny_config(init=str(start), network=NetworkConfig("mobilenetv4_conv_small", channels=24, head_convs=2))
    spec = make_spec(wider.network, wider.input.spec())
    said: list[str] = []
    network = begin(wider, spec, is_start=True, note=said.append)
    was, now = read_checkpoint(start).weights, network.state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in was.items() if name.startswith("backbone."))
    (sentence,) = said
    assert (
        sentence.startswith("took ") and "began anew: head.gamma (2), head.mu (2), head.o (2), head.tower" in sentence
    )
    begin(replace(wider, init_only="backbone.", network=tiny_config().network), spec, is_start=True, note=said.append)
    assert "left: head.gamma (2)" in said[1]
    with pytest.raises(
        CheckpointError, match=r"weights that fit neck\., got none; give a checkpoint of a like network"
    ):
        begin(replace(wider, init_only="neck."), spec, is_start=True)


@pytest.fixture
def interrupted(crude_people: Path, tmp_path: Path) -> Path:
    """A run of `tiny_config` that broke off after 6 of 12 iterations, one past its checkpoint."""
    with pytest.raises(Interruption):
        train(tiny_config(), crude_people, tmp_path / "run", report=interrupt_at(6))
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        pytest.param({"optimizer": OptimizerConfig(name="adamw", lr=2e-3)}, "optimizer.lr", id="another learning rate"),
        pytest.param({"seed": 1}, "seed", id="another seed"),
        pytest.param({"batch_size": 2}, "batch_size", id="another batch size"),
    ],
)
def test_resume_with_another_configuration_is_refused(
    crude_people: Path, interrupted: Path, changes: dict[str, Any], key: str
) -> None:
    before = (interrupted / LOG_FILE).read_bytes()
    expected = rf"the configuration that the run began with \({key} [^ ]+\), got {key} [^ ]+;"
    with pytest.raises(ConfigError, match=expected):
        train(tiny_config(**changes), crude_people, interrupted, resume=True)
    assert (interrupted / LOG_FILE).read_bytes() == before


def test_resume_on_other_annotations_is_refused(crude_people: Path, interrupted: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(crude_people, moved)
    file = moved / "annotations" / "person_keypoints_train2017.json"
    data = json.loads(file.read_text())
    data["annotations"].pop()
    file.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match="expected the annotations that the run began with, got others"):
        train(tiny_config(), moved, interrupted, resume=True)
    shutil.copy(crude_people / "annotations" / file.name, file)  # the same, elsewhere
    train(tiny_config(), moved, interrupted, resume=True)


def test_resume_may_change_what_leaves_the_curve_alone(crude_people: Path, interrupted: Path) -> None:
    train(tiny_config(workers=1, log_every=3, checkpoint_every=7), crude_people, interrupted, resume=True)
    assert [iteration for iteration, _ in logged(interrupted)] == list(range(12))


def test_used_folder_is_refused_and_left_alone(crude_people: Path, interrupted: Path) -> None:
    before = {path.name: path.read_bytes() for path in interrupted.iterdir()}
    with pytest.raises(ConfigError, match="--resume"):
        train(tiny_config(), crude_people, interrupted)
    assert {path.name: path.read_bytes() for path in interrupted.iterdir()} == before


def test_resume_of_nothing_is_refused(crude_people: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="without --resume"):
        train(tiny_config(), crude_people, tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


def test_impossible_group_size_is_refused_before_anything_is_written(crude_people: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="group_size"):
        train(tiny_config(loss=LossConfig(group_size=19)), crude_people, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_loss_that_is_not_finite_stops_the_run(crude_people: Path, tmp_path: Path, precision: Any) -> None:
    out = tmp_path / "run"
    config = tiny_config(
        precision=precision,
        optimizer=OptimizerConfig(name="sgd", lr=1e37, momentum=0.0, weight_decay=0.0, clip_norm=1e6),
        schedule=ScheduleConfig(iterations=12, milestones=()),
        checkpoint_every=1,
    )
    with pytest.raises(TrainingError, match=r"finite.*lower optimizer\.lr.*init=") as caught:
        train(config, crude_people, out)
    failed = int(caught.value.where.removeprefix("iteration "))
    network, _ = load_network(out / RESUME_FILE)
    assert all(p.isfinite().all() for p in network.parameters())
    assert read_checkpoint(out / RESUME_FILE).progress["iteration"] == failed  # type: ignore[index]
    assert not (out / MODEL_FILE).exists()


def test_half_precision_trains_and_resumes_with_its_scale(crude_people: Path, tmp_path: Path) -> None:
    config = tiny_config(precision="fp16", schedule=ScheduleConfig(iterations=6, milestones=()), checkpoint_every=2)
    with pytest.raises(Interruption):
        train(config, crude_people, tmp_path / "run", report=interrupt_at(3))
    progress = json.loads(json.dumps(read_checkpoint(tmp_path / "run" / RESUME_FILE).progress))
    assert progress["scaler"]["scale"] > 1
    train(config, crude_people, tmp_path / "run", resume=True)
    assert all(math.isfinite(float(loss)) for _, loss in logged(tmp_path / "run"))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with a single core
def test_exception_leaves_no_worker_process(crude_people: Path, tmp_path: Path) -> None:
    before = child_pids()
    during: set[int] = set()

    def report(progress: TrainProgress) -> None:
        during.update(child_pids() - before)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        train(tiny_config(workers=2), crude_people, tmp_path / "run", report=report)
    assert len(during) >= 2
    assert not child_pids() & during
    del caught  # held until here: its traceback keeps the frames of the run alive


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_image_stops_the_run_with_its_own_error(tmp_path: Path, workers: int) -> None:
    write_crude_people(tmp_path / "data")
    broken = sorted((tmp_path / "data" / "train2017").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:-200])
    with pytest.raises(InputError, match="breaks off") as caught:
        train(tiny_config(workers=workers), tmp_path / "data", tmp_path / "run")
    assert caught.value.where == str(broken) and str(caught.value).count("\n") == 0


def test_log_cut_in_the_middle_of_a_line_is_mended(crude_people: Path, interrupted: Path) -> None:
    whole = logged(interrupted)
    with open(interrupted / LOG_FILE, "a", encoding="utf-8") as file:
        file.write("6,4.2")
    train(tiny_config(), crude_people, interrupted, resume=True)
    mended = logged(interrupted)
    assert mended[:6] == whole and [iteration for iteration, _ in mended] == list(range(12))
