"""Processes that read images and die, hang, or cannot hand on what they read."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.utils.data import DataLoader, Dataset

from mdpose_edge.errors import TrainingError
from mdpose_edge.train.workers import POLL_S, start_worker, watched
from tests.architecture.package import REPOSITORY
from tests.unit.train.crude_people import tiny_config


class Unsendable:
    """What cannot be pickled, as a tensor cannot where shared memory is full."""

    def __reduce__(self) -> Any:
        raise OSError("unable to allocate shared memory(shm)")


class Items(Dataset[object]):
    """Eight numbers, the fifth of which is something else."""

    def __init__(self, fifth: Callable[[], object]) -> None:
        self.fifth = fifth

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> object:
        return self.fifth() if index == 4 else index


def loader_of(fifth: Callable[[], object], *, poll_s: float = POLL_S) -> DataLoader[Any]:
    return DataLoader(
        Items(fifth), batch_size=None, collate_fn=lambda item: item, num_workers=2, worker_init_fn=start_worker,
        timeout=poll_s,
    )  # fmt: skip


def killed() -> object:
    os.kill(os.getpid(), signal.SIGKILL)
    return 4


@pytest.mark.parametrize(
    "fifth, reason",
    [
        pytest.param(killed, "one that SIGKILL ended", id="killed"),
        pytest.param(lambda: os._exit(3), "one that ended with exit code 3", id="exited"),
        pytest.param(Unsendable, "one that could not hand on what it had read", id="full shared memory"),
    ],
)
def test_a_worker_that_dies_ends_the_run_in_a_sentence(fifth: Callable[[], object], reason: str) -> None:
    seen: list[object] = []
    start = time.monotonic()
    with pytest.raises(TrainingError, match=rf"worker.*{reason}.*--shm-size=8g.*workers=0"):
        for item in watched(loader_of(fifth)):
            seen.append(item)
    assert seen == [0, 1, 2, 3][: len(seen)]  # what was read and not yet handed on went with it
    assert time.monotonic() - start < 4 * POLL_S
    assert multiprocessing.active_children() == []


def test_a_worker_that_hangs_holds_up_no_stop() -> None:
    seen: list[object] = []
    with closing(watched(loader_of(lambda: time.sleep(600), poll_s=0.2), lambda: len(seen) == 4)) as read:
        for item in read:
            seen.append(item)
    assert seen == [0, 1, 2, 3]
    assert multiprocessing.active_children() == []


def test_a_slow_worker_is_waited_for() -> None:
    def slow() -> object:
        time.sleep(1)
        return "at last"

    assert list(watched(loader_of(slow, poll_s=0.2))) == [0, 1, 2, 3, "at last", 5, 6, 7]


def test_a_fault_of_the_reading_itself_stays_what_it_is() -> None:
    def broken() -> object:
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        list(watched(loader_of(broken)))


may_mount = pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0,
    reason="mounting a small /dev/shm takes root and unshare",
)


@may_mount
def test_training_in_a_small_shared_memory_is_one_sentence(crude_people: Path, tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(tiny_config(workers=1).to_dict()))
    mount = "mount --make-rprivate / && mount -t tmpfs -o size=64k none /dev/shm && exec "
    train = f"{sys.executable} -m mdpose_edge train {config} --data {crude_people} --out {tmp_path / 'run'}"
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", mount + train],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    told = done.stderr.splitlines()[-1]
    assert told.startswith(
        "mdpose-edge: workers: expected processes that read images to the end, got one that could not"
    )
    assert "0 MiB of shared memory free" in told and "--shm-size" in told and "workers=0" in told
    assert "Traceback" not in done.stderr


WITHOUT_SHARED_MEMORY = """
mount --make-rprivate / && mount -t tmpfs none $0
for device in null zero random urandom full; do touch $0/$device && mount --bind /dev/$device $0/$device; done
mount --rbind $0 /dev && ln -s /proc/self/fd /dev/fd && exec "$@"
"""
"""Run a command where there is no /dev/shm; the first word is a folder to lay the new /dev into."""


@may_mount
@pytest.mark.parametrize("command", ["train", "synth"])
def test_processes_without_any_shared_memory_are_refused_in_a_sentence(
    crude_people: Path, tmp_path: Path, command: str
) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(tiny_config(workers=1).to_dict()))
    (tmp_path / "dev").mkdir()
    words = {
        "train": ["train", config, "--data", crude_people, "--out", tmp_path / "out"],
        "synth": ["synth", "images", tmp_path / "out", "--images", 2, "--size", 64, "--workers", 2],
    }[command]
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", WITHOUT_SHARED_MEMORY, tmp_path / "dev", sys.executable, "-m", "mdpose_edge",
         *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "workers: expected shared memory for processes (/dev/shm), got" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()


SPAWNED = """
import multiprocessing, sys
from contextlib import closing
from pathlib import Path
from mdpose_edge.families.mdpose.network import make_spec
from mdpose_edge.train.data import training_batches
from tests.unit.train.crude_people import tiny_config

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    sums = []
    for workers in (0, 1):
        config = tiny_config(workers=workers)
        spec = make_spec(config.network, config.input.spec())
        with closing(training_batches(config, spec, Path(sys.argv[1]), "train")(10)) as batches:
            sums.append([int(batch.images.sum()) for batch in batches])
    assert len(sums[0]) == 2 and sums[0] == sums[1], sums
"""


@pytest.mark.long
def test_workers_that_are_spawned_read_the_same(crude_people: Path, tmp_path: Path) -> None:
    """As on Windows and macOS: everything that a worker needs is pickled."""
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, script, crude_people], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
