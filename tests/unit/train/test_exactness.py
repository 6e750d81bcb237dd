"""A run that dies goes on as if it had not: bit for bit, and from a checkpoint that is always whole."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mdpose_edge.checkpoint import read_checkpoint
from mdpose_edge.errors import CheckpointError, ConfigError, OutputError
from mdpose_edge.families.mdpose.network import NetworkConfig
from mdpose_edge.train.config import ScheduleConfig
from mdpose_edge.train.log import read_csv
from mdpose_edge.train.loop import CONFIG_FILE, LOG_FILE, MODEL_FILE, RESUME_FILE, TrainProgress, train
from tests.unit.train.crude_people import tiny_config
from tests.unit.train.kills import exact_config

REPOSITORY = Path(__file__).resolve().parents[3]
TIMES = ("images_per_s", "data_wait")
SMALL = {"network": NetworkConfig(backbone="test_resnet", channels=16, head_convs=2)}


def curve(out: Path) -> list[dict[str, str]]:
    """The log without what depends on the clock."""
    return [{key: value for key, value in row.items() if key not in TIMES} for row in read_csv(out / LOG_FILE)]


def progress_of(out: Path) -> Any:
    return read_checkpoint(out / RESUME_FILE).progress


LONG = (pytest.mark.long, pytest.mark.timeout(3600))
"""705 s on a core shared with heavy other work."""


@pytest.mark.parametrize("kills", [pytest.param(3, id="3 kills"), pytest.param(50, id="50 kills", marks=LONG)])
def test_killed_at_random_moments_it_draws_the_same_curve(crude_people: Path, tmp_path: Path, kills: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-W", "ignore", "-m", "tests.unit.train.kills"]
    arguments = [str(crude_people), str(tmp_path / "killed"), str(kills), "11"]
    done = subprocess.run([*command, *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    story = json.loads(done.stdout)
    assert len(story["places"]) == kills and story["places"][-1] > 0
    train(exact_config(story["iterations"]), crude_people, tmp_path / "unbroken")
    assert len(curve(tmp_path / "killed")) == story["iterations"]
    assert curve(tmp_path / "killed") == curve(tmp_path / "unbroken")
    assert (tmp_path / "killed" / MODEL_FILE).read_bytes() == (tmp_path / "unbroken" / MODEL_FILE).read_bytes()
    assert [path.name for path in (tmp_path / "killed").iterdir() if path.name.startswith(".")] == []


def test_sigterm_saves_and_returns_and_auto_goes_on(crude_people: Path, tmp_path: Path) -> None:
    def terminate(progress: TrainProgress) -> None:
        if progress.iteration == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    stopped = train(tiny_config(**SMALL), crude_people, tmp_path / "run", resume="auto", report=terminate)
    assert stopped == tmp_path / "run" / RESUME_FILE and progress_of(tmp_path / "run")["iteration"] == 7
    assert not (tmp_path / "run" / MODEL_FILE).exists() and signal.getsignal(signal.SIGTERM) == before
    assert train(tiny_config(**SMALL), crude_people, tmp_path / "run", resume="auto").name == MODEL_FILE
    train(tiny_config(**SMALL), crude_people, tmp_path / "unbroken")
    assert curve(tmp_path / "run") == curve(tmp_path / "unbroken")


def test_auto_starts_over_a_run_that_died_before_its_first_checkpoint(crude_people: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / LOG_FILE).write_text("iteration,loss\n0,1.0\n")
    (out / f".{RESUME_FILE}.123.tmp").write_bytes(b"half")
    train(tiny_config(**SMALL, schedule=ScheduleConfig(iterations=2)), crude_people, out, resume="auto")
    assert [row["iteration"] for row in curve(out)] == ["0", "1"]
    assert not list(out.glob(".*"))


def test_death_in_the_middle_of_a_checkpoint_leaves_nothing_behind(crude_people: Path, tmp_path: Path) -> None:
    """The kernel kills the process at the byte in the middle of its second checkpoint."""
    arguments = [str(crude_people), str(tmp_path / "run")]
    command = [sys.executable, "-W", "ignore", "-m", "tests.unit.train.half_written", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}  # as the fixture has it here
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGXFSZ, done.stderr
    (tmp_path / "run" / "pictures").mkdir()
    (tmp_path / "run" / "pictures" / ".00000005.jpg.k3a").write_bytes(b"half")
    assert list((tmp_path / "run").glob(f".{RESUME_FILE}.*/*"))
    train(tiny_config(**SMALL), crude_people, tmp_path / "run", resume=True)
    assert not [path for path in (tmp_path / "run").rglob("*") if path.name.startswith(".")]
    train(tiny_config(**SMALL), crude_people, tmp_path / "unbroken")
    assert curve(tmp_path / "run") == curve(tmp_path / "unbroken")


def test_auto_leaves_a_model_of_unknown_origin_alone(crude_people: Path, tmp_path: Path) -> None:
    (tmp_path / MODEL_FILE).write_bytes(b"precious")
    with pytest.raises(ConfigError, match="a folder without a run"):
        train(tiny_config(**SMALL), crude_people, tmp_path, resume="auto")
    assert (tmp_path / MODEL_FILE).read_bytes() == b"precious"


def test_last_good_checkpoint_survives_a_full_disk(crude_people: Path, tmp_path: Path) -> None:
    """No file may grow beyond half a checkpoint: the writer fails midway, as on a full disk."""
    out, limits = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_up(progress: TrainProgress) -> None:
        if progress.iteration == 5:
            half = (out / RESUME_FILE).stat().st_size // 2
            resource.setrlimit(resource.RLIMIT_FSIZE, (half, limits[1]))

    try:
        with pytest.raises(CheckpointError, match=r"last\.safetensors: expected a place to write.*File too large"):
            train(tiny_config(**SMALL), crude_people, out, report=fill_up)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert progress_of(out)["iteration"] == 5 and not list(out.glob(".*"))
    train(tiny_config(**SMALL), crude_people, out, resume=True)
    train(tiny_config(**SMALL), crude_people, tmp_path / "unbroken")
    assert curve(out) == curve(tmp_path / "unbroken")


def test_run_of_an_older_version_goes_on(crude_people: Path, tmp_path: Path) -> None:
    """Its configuration lacks the younger keys, and its log the younger columns."""
    out = tmp_path / "run"
    config = tiny_config(**SMALL, schedule=ScheduleConfig(iterations=4, kind="cosine"), checkpoint_every=2)
    train(config, crude_people, out)
    rows = read_csv(out / LOG_FILE)
    columns = ("iteration", "loss", "grad_norm", "lr", "images_per_s", "data_wait")
    (out / LOG_FILE).write_text("\n".join([",".join(columns), *(",".join(r[c] for c in columns) for r in rows)]) + "\n")
    _drop_keys_of_checkpoint(out / RESUME_FILE, ("accumulate", "ema", "compile", "eval_every", "divergence"))
    train(config, crude_people, out, resume=True)
    assert [row["loss"] for row in curve(out)] == [row["loss"] for row in rows]


def _drop_keys_of_checkpoint(path: Path, keys: tuple[str, ...]) -> None:
    from mdpose_edge.checkpoint import save_checkpoint

    found = read_checkpoint(path)
    progress: Any = found.progress
    progress = {**progress, "config": {k: v for k, v in progress["config"].items() if k not in keys}}
    save_checkpoint(path, found.spec, found.weights, state=found.state, progress=progress)


def test_average_is_exponential_and_is_what_the_model_holds(crude_people: Path, tmp_path: Path) -> None:
    config = tiny_config(**SMALL, schedule=ScheduleConfig(iterations=3, kind="cosine"), ema=0.75, checkpoint_every=1)
    seen: list[torch.Tensor] = []

    def look(progress: TrainProgress) -> None:
        seen.append(read_checkpoint(tmp_path / "run" / RESUME_FILE).weights["head.mu.bias"])

    model = read_checkpoint(train(config, crude_people, tmp_path / "run", report=look))
    expected = 0.75 * (0.75 * seen[0] + 0.25 * seen[1]) + 0.25 * seen[2]
    assert torch.allclose(model.weights["head.mu.bias"], expected, atol=1e-7)
    assert not torch.equal(model.weights["head.mu.bias"], seen[2])
    assert model.weights_are == "exponential moving average of the weights, decay 0.75"
    assert (tmp_path / "run" / CONFIG_FILE).is_file()


def test_a_run_that_goes_on_keeps_its_folder(crude_people: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def go_on_twice(progress: TrainProgress) -> None:
        if progress.iteration != 6:
            return
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        with pytest.raises(OutputError, match=r"run: expected a folder of this run's own, got another run's"):
            train(tiny_config(**SMALL), crude_people, out, resume=True)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before

    train(tiny_config(**SMALL), crude_people, out, report=go_on_twice)
    assert (out / MODEL_FILE).is_file()
