"""One update: gradients of the global batch, however it is spread over processes and passes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mdpose_edge.errors import TrainingError
from mdpose_edge.families.base import Loss
from mdpose_edge.families.registry import training_of
from mdpose_edge.spec import ModelSpec
from mdpose_edge.train.config import TrainConfig
from mdpose_edge.train.data import Batch
from mdpose_edge.train.distributed import World
from mdpose_edge.train.health import lost_run
from mdpose_edge.train.optimizer import learning_rate, make_optimizer
from mdpose_edge.train.precision import Arithmetic, autocast, native_precision


@dataclass(frozen=True)
class Step:
    """What one update was."""

    loss: float
    """Of the global batch, over the persons who carry it."""
    norm: float
    """Of the gradient, before clipping."""
    rate: float
    parts: Mapping[str, float]
    """Of the loss, by the family's names for them."""
    figures: Mapping[str, float]
    """The family's own, of this process's first pass, where they were asked for."""


class Stepper:
    """The moving parts of a run, and the arithmetic of one iteration.

    Args:
        config: of the run.
        spec: of the network.
        network: on the world's device, its batch norms synchronised.
        world: the processes that share each batch.
        resume_file: where the run's last good checkpoint is, for errors to name.
    """

    def __init__(
        self, config: TrainConfig, spec: ModelSpec, network: nn.Module, world: World, resume_file: Path
    ) -> None:
        self.config, self.spec, self.network, self.world = config, spec, network, world
        self.family = training_of(spec.family)
        self.resume_file = resume_file
        self.optimizer = make_optimizer(network, config.optimizer)
        self.compute_in(native_precision(world.device) if config.precision == "auto" else config.precision)
        self.parallel = world.parallel(network)
        self.forward = torch.compile(self.parallel) if config.compile else self.parallel
        # After `parallel`, which gave every process the same weights.
        self.average = None if config.ema is None else _average(network, config.ema)

    def compute_in(self, precision: Arithmetic) -> None:
        """Take an arithmetic of the network, before the first step."""
        self.precision = precision
        self.scaler = torch.amp.GradScaler(self.world.device.type, enabled=precision == "fp16")

    @property
    def best_network(self) -> nn.Module:
        """What an evaluation looks at and the finished model holds: the averaged network where there is one."""
        return self.network if self.average is None else self.average.module

    def step(self, iteration: int, batch: Batch, persons: int, *, measure: bool = False) -> Step:
        """Do one update.

        Args:
            iteration: from 0; decides learning rate and chance.
            batch: this process's part of the global batch.
            persons: who carry loss in the global batch.
            measure: ask for the family's own figures as well.

        Raises:
            TrainingError: loss or gradient is not finite, or torch.compile fails.
        """
        rate = learning_rate(iteration, self.config.optimizer.lr, self.config.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, parts, figures = self.gradients(iteration, batch, persons, measure=measure)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimizer.clip_norm).item()
        self._check_finite(iteration, loss, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return Step(loss, norm, rate, parts, figures)

    def gradients(
        self, iteration: int, batch: Batch, persons: int, *, measure: bool = False
    ) -> tuple[float, dict[str, float], Mapping[str, float]]:
        """Leave the gradient of the global batch's loss in the parameters (scaled by the scaler).

        The loss is a sum over passes and processes, divided by the persons of the global batch, not of a part.
        DistributedDataParallel averages over processes, hence the factor `world.size`.

        Returns:
            The loss, its parts, and the family's own figures; see Step.
        """
        self.optimizer.zero_grad(set_to_none=True)
        total, parts, figures = 0.0, dict.fromkeys(self.family.parts, 0.0), dict[str, float]()
        passes = batch.parts(self.config.accumulate)
        for index, one in enumerate(passes):
            one = one.to(self.world.device)
            with self._gradients_sent(is_last=index == len(passes) - 1):
                found = self._loss(iteration, one, measure=measure and index == 0)
                loss = torch.stack(list(found.parts.values())).sum() / max(persons, 1)
                self.scaler.scale(loss * self.world.size).backward()  # type: ignore[no-untyped-call]
            total += loss.item()
            for name, part in found.parts.items():
                parts[name] += part.item() / max(persons, 1)
            figures |= found.figures
        total, *sums = self.world.sum([total, *parts.values()])
        return total, dict(zip(parts, sums, strict=True)), figures

    def _loss(self, iteration: int, one: Batch, *, measure: bool) -> Loss:
        with autocast(self.precision, self.world.device):
            outputs = self._outputs(one.images)
        generator = self._generator(iteration)
        return self.family.loss(outputs, one.targets, self.spec, self.config.loss, generator, measure=measure)

    def _outputs(self, images: torch.Tensor) -> Any:
        try:
            return self.forward(images)
        except TorchDynamoException as error:
            got = str(error).strip().splitlines()[0]
            raise TrainingError(
                "compile", expected="a network that torch.compile can build here", got=got, do="set compile=false"
            ) from error

    def _gradients_sent(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """Send gradients to the other processes with the last pass only: they are summed up until then."""
        if is_last or not isinstance(self.parallel, DistributedDataParallel):
            return nullcontext()
        return self.parallel.no_sync()

    def _check_finite(self, iteration: int, loss: float, norm: float) -> None:
        # A gradient that overflows only because the scaler enlarged it is skipped, and the scale halved.
        if math.isfinite(loss) and (math.isfinite(norm) or self.scaler.get_scale() > 1):
            return
        got = f"loss {loss}, gradient norm {norm}"
        raise lost_run(iteration, expected="a finite loss and gradient", got=got, resume_file=self.resume_file)

    def _generator(self, iteration: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.config.seed << 32) + iteration)


def _average(network: nn.Module, decay: float) -> AveragedModel:
    """Average parameters and batch-norm statistics; the first update copies them."""
    multi_avg_fn = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=multi_avg_fn, use_buffers=True).requires_grad_(False)
