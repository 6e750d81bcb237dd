"""Two processes are one run: the same gradients, curve and figures, one set of files, and errors that reach all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from mdpose_edge.checkpoint import read_checkpoint
from mdpose_edge.errors import ConfigError
from mdpose_edge.train.data import RunSampler
from mdpose_edge.train.distributed import World
from mdpose_edge.train.log import read_csv
from mdpose_edge.train.loop import LOG_FILE, MODEL_FILE, RESUME_FILE, train
from mdpose_edge.train.state import EVAL_FILE
from tests.unit.train.crude_people import write_crude_people
from tests.unit.train.ranks import RANKS, gradients, poses_found, shared_config, validation

REPOSITORY = Path(__file__).resolve().parents[3]
GRADIENT_TOLERANCE = 1e-5
"""Of the largest gradient: measured 4e-6 with synchronised batch norms and 3e-7 with frozen statistics, in float32."""
STATISTICS_TOLERANCE = 1e-5
"""Of a batch norm's running mean and variance: measured 1e-6."""


@pytest.fixture(scope="module")
def two(crude_people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left behind; see ranks.py."""
    out = tmp_path_factory.mktemp("ranks")
    write_crude_people(out / "broken-data")
    broken = sorted((out / "broken-data" / "train2017").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:-200])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY)}
    program = [sys.executable, "-W", "error::FutureWarning", "-m", "tests.unit.train.ranks"]
    command = [*program, str(crude_people), str(out)]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize(
    ("accumulate", "freeze"),
    [
        pytest.param(1, False, id="1x8 against 2x4, batch norms synchronised"),
        pytest.param(2, True, id="1x8 against 2x2x2, batch statistics frozen"),
    ],
)
def test_gradients_agree(two: Path, crude_people: Path, accumulate: int, freeze: bool) -> None:
    one = gradients(World(), crude_people, accumulate=1, freeze_statistics=freeze)
    largest = max(np.abs(value).max() for name, value in one.items() if name.endswith(("weight", "bias")))
    for rank in range(RANKS):
        with np.load(two / f"gradients-{accumulate}-{rank}.npz") as found:
            assert set(found) == set(one)
            assert found["persons"] == one["persons"] and found["loss"] == pytest.approx(one["loss"], rel=1e-6)
            for name, expected in one.items():
                tolerance = STATISTICS_TOLERANCE if "running" in name else GRADIENT_TOLERANCE * largest
                assert np.abs(found[name] - expected).max() <= max(tolerance, 1e-6 * np.abs(expected).max()), name


def test_evaluation_spread_over_processes_finds_the_same_poses(two: Path, crude_people: Path) -> None:
    one = poses_found(World(), crude_people)
    assert len(one) > 10 and json.loads((two / "poses0.json").read_text()) == one
    assert json.loads((two / "poses1.json").read_text()) == []


def test_curve_and_figures_are_those_of_one_process(two: Path, crude_people: Path, tmp_path: Path) -> None:
    train(shared_config(), crude_people, tmp_path / "one", validation=validation(crude_people))
    ours, one = (read_csv(folder / LOG_FILE) for folder in (two / "unbroken", tmp_path / "one"))
    assert [row["iteration"] for row in ours] == [row["iteration"] for row in one]
    np.testing.assert_allclose([float(r["loss"]) for r in ours], [float(r["loss"]) for r in one], rtol=1e-5)
    ours, one = (read_csv(folder / EVAL_FILE) for folder in (two / "unbroken", tmp_path / "one"))
    assert [row["iteration"] for row in ours] == ["3", "6"]
    for row, expected in zip(ours, one, strict=True):
        assert {k: pytest.approx(float(v), abs=1e-3) for k, v in expected.items() if v} == {
            k: float(v) for k, v in row.items() if v
        }


def test_sigterm_to_one_process_ends_both_and_they_go_on_from_there(two: Path) -> None:
    for rank in range(RANKS):
        assert json.loads((two / f"rank{rank}.json").read_text())["stopped"] == RESUME_FILE
    for name in (LOG_FILE, EVAL_FILE):
        timeless = [
            [{k: v for k, v in row.items() if k not in ("images_per_s", "data_wait")} for row in read_csv(run / name)]
            for run in (two / "unbroken", two / "stopped")
        ]
        assert timeless[0] == timeless[1]
    assert (two / "stopped" / MODEL_FILE).read_bytes() == (two / "unbroken" / MODEL_FILE).read_bytes()


def test_averaged_weights_say_so(two: Path) -> None:
    assert read_checkpoint(two / "unbroken" / MODEL_FILE).weights_are == (
        "exponential moving average of the weights, decay 0.5"
    )


def test_error_of_one_process_ends_both(two: Path) -> None:
    (own, odd), (other, _) = (json.loads((two / f"rank{rank}.json").read_text())["errors"] for rank in range(RANKS))
    assert sorted([own[0], other[0]]) == ["InputError", "TrainingError"]
    (sentence,) = (text for kind, text in (own, other) if kind == "TrainingError")
    assert "breaks off" in sentence and sentence.count("\n") == 0
    assert odd[0] == "ConfigError" and "a multiple of 2 processes x accumulate 1, got 9" in odd[1]


def test_parts_of_a_batch_are_disjoint_and_together_the_batch() -> None:
    whole = list(RunSampler(10, 8, seed=3, start=0, stop=5))
    parts = [list(RunSampler(10, 8, seed=3, start=0, stop=5, rank=rank, ranks=4)) for rank in range(4)]
    assert [[key for part in parts for key in part[i]] for i in range(5)] == whole
    epoch = [index for batch in whole for _, index in batch]
    assert sorted(epoch[:10]) == sorted(epoch[10:20]) == list(range(10))


def test_batch_that_cannot_be_cut_is_one_sentence() -> None:
    assert World(size=4).share_of(32, 2) == 8
    with pytest.raises(ConfigError, match=r"batch_size: expected a multiple of 3 processes x accumulate 2, got 32"):
        World(size=3).share_of(32, 2)


def test_torchrun_starts_the_command(crude_people: Path, tmp_path: Path) -> None:
    """One process under torchrun, which sets what two would find; two are tested above without its start-up time."""
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(shared_config(eval_every=0, accumulate=2).to_dict()))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY)}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    options = ["--data", str(crude_people), "--out", str(tmp_path / "run"), "--resume", "auto"]
    command = [*launch, "-m", "mdpose_edge", "train", str(config), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / "run" / MODEL_FILE)]
