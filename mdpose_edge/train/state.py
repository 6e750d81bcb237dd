"""What a run needs to go on: written whole, checked before it is written, read back bit for bit."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdpose_edge.checkpoint import Checkpoint, load_weights, read_checkpoint, save_checkpoint
from mdpose_edge.common.outputs import MADE_BY
from mdpose_edge.common.side_files import SideFiles
from mdpose_edge.errors import CheckpointError, ConfigError
from mdpose_edge.families.base import Finished
from mdpose_edge.train.config import TrainConfig, read_config
from mdpose_edge.train.distributed import World
from mdpose_edge.train.health import lost_run
from mdpose_edge.train.optimizer import optimizer_tensors, restore_optimizer
from mdpose_edge.train.step import Stepper

RESUME_FILE = "last.safetensors"
MODEL_FILE = "model.safetensors"
LOG_FILE = "log.csv"
EVAL_FILE = "eval.csv"
CONFIG_FILE = "config.yaml"
CONFIG_HEAD = f"# Written by {MADE_BY} train.\n"
"""Its first line."""
CURVES_FILE = "curves.png"
PICTURES_FOLDER = "pictures"
CURVE_NEUTRAL_KEYS = (
    "workers",
    "log_every",
    "checkpoint_every",
    "eval_every",
    "picture_every",
    "tensorboard",
    "divergence",
)
"""Configuration that may change when a run resumes: it leaves the losses as they would have been."""
EMA_PREFIX = "ema/"
"""Tensors of the averaged network, in a checkpoint's state."""


def check_folder(out: Path, resume: bool) -> None:
    """Refuse a folder that holds another run, unless that is to go on."""
    if not resume and out.is_dir() and any((out / name).exists() for name in (RESUME_FILE, MODEL_FILE, LOG_FILE)):
        do = "pass --resume, or choose another --out" if (out / RESUME_FILE).exists() else "choose another --out"
        raise ConfigError(str(out), expected="a folder without a run", got="a run", do=do)


def remove_leftovers(out: Path) -> None:
    """Remove what a killed process was writing: temporary siblings of the run's files, and their folders."""
    names = (RESUME_FILE, MODEL_FILE, LOG_FILE, EVAL_FILE, CONFIG_FILE, CURVES_FILE)
    for pattern in (*(f".{name}.*" for name in names), f"{PICTURES_FOLDER}/.*.jpg.*"):
        for leftover in out.glob(pattern):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def save_state(out: Path, stepper: Stepper, done: int, data_sha256: str) -> None:
    """Write the checkpoint to resume from.

    Args:
        out: the run's folder.
        stepper: what is to go on.
        done: iterations.
        data_sha256: of the annotations.

    Raises:
        TrainingError: a weight is not finite, so that the last checkpoint stays the good one.
        CheckpointError: it cannot be written; the last one stays as it was.
    """
    weights, state = stepper.network.state_dict(), _state(stepper)
    broken = [name for name, tensor in (weights | state).items() if not tensor.isfinite().all()]
    if broken:
        got = f"NaN or infinity in {broken[0]}"
        raise lost_run(done, expected="finite weights", got=got, resume_file=out / RESUME_FILE)
    progress = {
        "iteration": done,
        "config": stepper.config.to_dict(),
        "precision": stepper.precision,
        "scaler": stepper.scaler.state_dict(),
        "data_sha256": data_sha256,
    }
    save_checkpoint(out / RESUME_FILE, stepper.spec, weights, state=state, progress=progress)


def restore_state(out: Path, stepper: Stepper, world: World, data_sha256: str) -> int:
    """Take up the run where its last checkpoint left it; give the iterations done.

    The main process reads it, and hands it to the others, whose machines need not see the folder.

    Raises:
        CheckpointError: no checkpoint, or one that does not fit.
        ConfigError: it is of another configuration, or of other annotations.
    """
    checkpoint = _read(out / RESUME_FILE, stepper.config, data_sha256, world)
    assert checkpoint.progress is not None
    progress: Any = checkpoint.progress
    average = {k.removeprefix(EMA_PREFIX): v for k, v in checkpoint.state.items() if k.startswith(EMA_PREFIX)}
    moments = {k: v for k, v in checkpoint.state.items() if not k.startswith(EMA_PREFIX)}
    load_weights(stepper.network, checkpoint.weights, str(out / RESUME_FILE))
    restore_optimizer(stepper.optimizer, moments)
    stepper.compute_in(progress.get("precision", stepper.precision))  # older runs took what the device has
    stepper.scaler.load_state_dict(progress["scaler"])
    if stepper.average is not None:
        stepper.average.load_state_dict(average)
    return int(progress["iteration"])


def save_model(out: Path, stepper: Stepper, finished: Finished | None = None) -> Path:
    """Write the finished model: the averaged weights where the run has them, which the file then says.

    Args:
        out: the run's folder.
        stepper: what was trained.
        finished: what was fitted to it, where the family fits something.
    """
    ema = stepper.config.ema
    note = None if ema is None else f"exponential moving average of the weights, decay {ema:g}"
    network, own = stepper.best_network, getattr(stepper.family, "finished_spec", None)
    spec = stepper.spec if own is None else own(stepper.spec, network)
    arrays: SideFiles = {}
    if finished is not None:
        spec, arrays = finished.spec, finished.side
    side = {kind: {name: torch.from_numpy(array) for name, array in one.items()} for kind, one in arrays.items()}
    save_checkpoint(out / MODEL_FILE, spec, network.state_dict(), weights_are=note, side=side)
    return out / MODEL_FILE


def _state(stepper: Stepper) -> dict[str, Tensor]:
    state = optimizer_tensors(stepper.optimizer)
    if stepper.average is not None:
        state |= {EMA_PREFIX + name: tensor for name, tensor in stepper.average.state_dict().items()}
    return state


def _read(path: Path, config: TrainConfig, data_sha256: str, world: World) -> Checkpoint:
    if world.size == 1:
        return _check(path, config, data_sha256)
    content = world.from_main(lambda: _bytes_of(path, config, data_sha256))
    if world.is_main:
        return read_checkpoint(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(content)
        return read_checkpoint(copy)


def _bytes_of(path: Path, config: TrainConfig, data_sha256: str) -> bytes:
    _check(path, config, data_sha256)
    return path.read_bytes()


def _check(path: Path, config: TrainConfig, data_sha256: str) -> Checkpoint:
    """Read the checkpoint of a run that goes on."""
    if not path.is_file():
        do = "start one without --resume"
        raise CheckpointError(str(path), expected="a run to resume", got="no such file", do=do)
    checkpoint = read_checkpoint(path)
    progress: Any = checkpoint.progress
    if progress is None:
        do = "start a new run, from these weights with --set init=CHECKPOINT"
        raise CheckpointError(str(path), expected="a run under way", got="weights alone", do=do)
    before, now = _curve_config(progress["config"], str(path)), _curve_config(config.to_dict(), str(path))
    if changed := [key for key in before | now if before.get(key) != now.get(key)]:
        raise ConfigError(
            str(path),
            expected=f"the configuration that the run began with ({_told(changed, before)})",
            got=_told(changed, now),
            do=f"pass {path.with_name(CONFIG_FILE)}, or start a new run in another --out",
        )
    if progress.get("data_sha256", data_sha256) != data_sha256:  # none in runs that are older than it
        do = f"give those, or start a new run in another --out with --set init={path}"
        raise ConfigError(str(path), expected="the annotations that the run began with", got="others", do=do)
    return checkpoint


def _told(keys: Sequence[str], config: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {config.get(key)}" for key in keys)


def _curve_config(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return what decides the losses, by dotted key; keys younger than the run have their defaults."""
    complete = asdict(read_config(config, where))
    return dict(_flat({key: value for key, value in complete.items() if key not in CURVE_NEUTRAL_KEYS}))


def _flat(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
