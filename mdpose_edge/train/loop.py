"""The training loop: one process, exact resume, a log that can be plotted.

Everything random is a function of (seed, iteration): the sampler, the augmentation of each image and the keypoint
groups. A run that is killed therefore resumes on the curve that it would have drawn.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from mdpose_edge.errors import CheckpointError, ConfigError, TrainingError
from mdpose_edge.files import write_whole
from mdpose_edge.spec import ModelSpec
from mdpose_edge.train.checkpoint import for_input, load_weights, read_checkpoint, save_checkpoint
from mdpose_edge.train.config import TrainConfig
from mdpose_edge.train.data import Batch, training_batches
from mdpose_edge.train.log import TrainingLog
from mdpose_edge.train.loss import group_keypoints, group_nll, mixture_from_heads
from mdpose_edge.train.network import MDPoseNetwork, make_spec
from mdpose_edge.train.optimizer import learning_rate, make_optimizer, optimizer_tensors, restore_optimizer

RESUME_FILE = "last.safetensors"
MODEL_FILE = "model.safetensors"
LOG_FILE = "log.csv"
CONFIG_FILE = "config.yaml"
CURVE_NEUTRAL_KEYS = ("workers", "log_every", "checkpoint_every")
"""Configuration that may change when a run resumes: it leaves the losses as they would have been."""


@dataclass(frozen=True)
class Progress:
    """What a run reports after each iteration."""

    iteration: int
    iterations: int
    loss: float
    images_per_s: float


def train(
    config: TrainConfig,
    data_dir: Path,
    out: Path,
    *,
    split: str = "train",
    resume: bool = False,
    report: Callable[[Progress], None] | None = None,
) -> Path:
    """Train a model.

    Args:
        config: everything that decides the run.
        data_dir: data in COCO's layout.
        out: the run's folder; takes config.yaml, log.csv, last.safetensors (to resume) and model.safetensors.
        split: "train" means DIR/train2017.
        resume: go on from last.safetensors in `out`.
        report: called after each iteration.

    Returns:
        The finished model, `out`/model.safetensors.

    Raises:
        ConfigError: `out` holds another run, or the configuration cannot work.
        DataError: the data cannot be read.
        CheckpointError: nothing to resume from, or the checkpoint is of another configuration.
        TrainingError: the loss is not finite.
    """
    spec = make_spec(config.network, config.input.spec())
    _check_folder(out, resume)
    _check_group_size(spec, config.group_size)
    batches_from = training_batches(config, spec, data_dir, split)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(config.seed)
    network = _network(config, spec, resume).to(device).to(memory_format=torch.channels_last)
    trainer = _Trainer(config, spec, network, make_optimizer(network, config.optimizer), device, out)
    start = trainer.restore() if resume else 0
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / CONFIG_FILE, yaml.safe_dump(config.to_dict(), sort_keys=False).encode())
    with TrainingLog(out / LOG_FILE, start) as log, closing(batches_from(start)) as batches:
        trainer.run(batches, start, log, report)
    save_checkpoint(out / MODEL_FILE, spec, network.state_dict())
    return out / MODEL_FILE


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Choose the arithmetic of the network.

    "auto" takes bfloat16 where the device has instructions for it, else float32: emulated, it would only be slower.
    """
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision != "auto":
        return named[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


class _Trainer:
    """One run's moving parts."""

    def __init__(
        self,
        config: TrainConfig,
        spec: ModelSpec,
        network: MDPoseNetwork,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        out: Path,
    ) -> None:
        self.config, self.spec, self.network, self.optimizer = config, spec, network, optimizer
        self.device, self.out = device, out
        self.dtype = compute_dtype(config.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)

    def run(
        self,
        batches: Iterator[Batch],
        start: int,
        log: TrainingLog,
        report: Callable[[Progress], None] | None,
    ) -> None:
        self.network.train()
        for iteration in range(start, self.config.schedule.iterations):
            begin = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - begin
            loss, norm, rate = self.step(iteration, batch)
            seconds = time.perf_counter() - begin
            log.add(iteration, loss, norm, rate, len(batch.images) / seconds, waited / seconds)
            done = iteration + 1
            if done % self.config.checkpoint_every == 0 or done == self.config.schedule.iterations:
                log.flush()
                self.save(done)
            elif done % self.config.log_every == 0:
                log.flush()
            if report is not None:
                report(Progress(done, self.config.schedule.iterations, loss, len(batch.images) / seconds))

    def step(self, iteration: int, batch: Batch) -> tuple[float, float, float]:
        """Do one update; give the loss, the gradient's norm before clipping, and the learning rate."""
        rate = learning_rate(iteration, self.config.optimizer.lr, self.config.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = batch.to(self.device)
        with self._autocast():
            heads = self.network(batch.images)
        mixture = mixture_from_heads(
            heads,
            self.spec.levels,
            num_keypoints=len(self.spec.keypoints.names),
            extent=self.spec.coordinate_extent,
        )
        groups = group_keypoints(batch.keypoints_xy.shape[2], self.config.group_size, self._generator(iteration))
        _, loss = group_nll(mixture, batch.keypoints_xy, batch.labelled, batch.person_mask, groups)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimizer.clip_norm)
        value, norm_value = loss.item(), norm.item()
        self._check_finite(iteration, value, norm_value)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value, norm_value, rate

    def save(self, done: int) -> None:
        """Write the checkpoint to resume from."""
        progress = {"iteration": done, "config": self.config.to_dict(), "scaler": self.scaler.state_dict()}
        save_checkpoint(
            self.out / RESUME_FILE,
            self.spec,
            self.network.state_dict(),
            state=optimizer_tensors(self.optimizer),
            progress=progress,
        )

    def restore(self) -> int:
        """Take up the run where its last checkpoint left it; give the iterations done."""
        path = self.out / RESUME_FILE
        if not path.is_file():
            raise CheckpointError(
                str(path), expected="a run to resume", got="no such file", do="start one without --resume"
            )
        checkpoint = read_checkpoint(path)
        progress: Any = checkpoint.progress
        if progress is None or _curve_config(progress["config"]) != _curve_config(self.config.to_dict()):
            raise ConfigError(
                str(path),
                expected="the configuration that the run began with",
                got="another",
                do=f"pass {self.out / CONFIG_FILE}, or start a new run in another --out",
            )
        load_weights(self.network, checkpoint.weights, str(path))
        restore_optimizer(self.optimizer, checkpoint.state)
        self.scaler.load_state_dict(progress["scaler"])
        return int(progress["iteration"])

    def _check_finite(self, iteration: int, loss: float, norm: float) -> None:
        # A gradient that overflows only because the scaler enlarged it is skipped, and the scale halved.
        if math.isfinite(loss) and (math.isfinite(norm) or self.scaler.get_scale() > 1):
            return
        last = self.out / RESUME_FILE
        start = f", from init={last}" if last.is_file() else ""
        raise TrainingError(
            f"iteration {iteration}",
            expected="a finite loss and gradient",
            got=f"loss {loss}, gradient norm {norm}",
            do=f"lower optimizer.lr or add schedule.warmup, and start a new run{start}",
        )

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def _generator(self, iteration: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.config.seed << 32) + iteration)


def _network(config: TrainConfig, spec: ModelSpec, resume: bool) -> MDPoseNetwork:
    if resume:  # its weights are in the run's own checkpoint; neither `init` nor the hub need be in reach
        return MDPoseNetwork(spec, auxiliary_center=True)
    if config.init is None:
        return MDPoseNetwork(spec, auxiliary_center=True, pretrained=config.pretrained)
    network = MDPoseNetwork(spec, auxiliary_center=True)
    start = read_checkpoint(Path(config.init))
    load_weights(network, for_input(start.weights, start.spec.input, spec.input), config.init)
    return network


def _check_folder(out: Path, resume: bool) -> None:
    if not resume and out.is_dir() and any((out / name).exists() for name in (RESUME_FILE, MODEL_FILE, LOG_FILE)):
        do = "pass --resume, or choose another --out" if (out / RESUME_FILE).exists() else "choose another --out"
        raise ConfigError(str(out), expected="a folder without a run", got="a run", do=do)


def _check_group_size(spec: ModelSpec, group_size: int) -> None:
    """Refuse, before anything is written, what `group_keypoints` would refuse at the first iteration."""
    group_keypoints(len(spec.keypoints.names) + 1, group_size, torch.Generator())


def _curve_config(config: Mapping[str, Any]) -> Any:
    """Give the part of a configuration that decides the losses, as JSON has it."""
    return json.loads(json.dumps({key: value for key, value in config.items() if key not in CURVE_NEUTRAL_KEYS}))
