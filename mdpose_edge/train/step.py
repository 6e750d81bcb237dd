"""One update: gradients of the global batch, however it is spread over processes and passes."""

from __future__ import annotations

import math
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
from mdpose_edge.families.mdpose.heads import constants_of
from mdpose_edge.families.mdpose.loss import (
    KeypointGroups,
    Mixture,
    count_nll,
    group_keypoints,
    group_nll,
    mixture_from_heads,
)
from mdpose_edge.families.mdpose.network import MDPoseNetwork
from mdpose_edge.families.mdpose.underflow import Underflow, underflow_ratio
from mdpose_edge.spec import ModelSpec
from mdpose_edge.train.config import TrainConfig
from mdpose_edge.train.data import Batch
from mdpose_edge.train.distributed import World
from mdpose_edge.train.health import lost_run
from mdpose_edge.train.optimizer import learning_rate, make_optimizer


@dataclass(frozen=True)
class Step:
    """What one update was."""

    loss: float
    """Mean over the persons of the global batch, and the images' count terms over their number."""
    norm: float
    """Of the gradient, before clipping."""
    rate: float
    underflow: Underflow | None
    """Of this process's first pass, where it was asked for."""


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
        self, config: TrainConfig, spec: ModelSpec, network: MDPoseNetwork, world: World, resume_file: Path
    ) -> None:
        self.config, self.spec, self.network, self.world = config, spec, network, world
        self.resume_file = resume_file
        self.optimizer = make_optimizer(network, config.optimizer)
        self.dtype = compute_dtype(config.precision, world.device)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=self.dtype == torch.float16)
        self.parallel = world.parallel(network)
        self.forward = torch.compile(self.parallel) if config.compile else self.parallel
        # After `parallel`, which gave every process the same weights.
        self.average = None if config.ema is None else _average(network, config.ema)

    @property
    def best_network(self) -> nn.Module:
        """What an evaluation looks at and the finished model holds: the averaged network where there is one."""
        return self.network if self.average is None else self.average.module

    def step(self, iteration: int, batch: Batch, persons: int, *, measure_underflow: bool = False) -> Step:
        """Do one update.

        Args:
            iteration: from 0; decides learning rate and keypoint groups.
            batch: this process's part of the global batch.
            persons: who carry loss in the global batch.
            measure_underflow: look at the naive likelihood as well.

        Raises:
            TrainingError: loss or gradient is not finite, or torch.compile fails.
        """
        rate = learning_rate(iteration, self.config.optimizer.lr, self.config.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, underflow = self.gradients(iteration, batch, persons, measure_underflow=measure_underflow)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimizer.clip_norm).item()
        self._check_finite(iteration, loss, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return Step(loss, norm, rate, underflow)

    def gradients(
        self, iteration: int, batch: Batch, persons: int, *, measure_underflow: bool = False
    ) -> tuple[float, Underflow | None]:
        """Leave the gradient of the global batch's mean loss in the parameters (scaled by the scaler); give that loss.

        The mean is over the persons of the global batch, not of a part: each part's mean enters by its share of them.
        DistributedDataParallel averages over processes, hence the factor `world.size`.
        """
        groups = group_keypoints(batch.keypoints_xy.shape[2], self.config.group_size, self._generator(iteration))
        self.optimizer.zero_grad(set_to_none=True)
        total, underflow = 0.0, None
        parts = batch.parts(self.config.accumulate)
        for index, part in enumerate(parts):
            share = int(part.person_mask.sum()) / max(persons, 1)
            part = part.to(self.world.device)
            with self._gradients_sent(is_last=index == len(parts) - 1):
                loss, counts, mixture = self._loss(part, groups)
                objective = loss * (share * self.world.size) + counts * (self.world.size / max(persons, 1))
                self.scaler.scale(objective).backward()  # type: ignore[no-untyped-call]
            total += loss.item() * share + counts.item() / max(persons, 1)
            if measure_underflow and index == 0:
                underflow = underflow_ratio(mixture, part.keypoints_xy, part.labelled, part.person_mask, groups)
        return self.world.sum([total])[0], underflow

    def _loss(self, part: Batch, groups: KeypointGroups) -> tuple[torch.Tensor, torch.Tensor, Mixture]:
        """Give the mean loss of the part's persons, the sum of its images' count terms, and the mixture."""
        with self._autocast():
            heads = self._heads(part.images)
        mixture = mixture_from_heads(
            heads,
            constants_of(self.spec).levels,
            num_keypoints=len(self.spec.keypoints.names),
            extent=constants_of(self.spec).coordinate_extent,
        )
        loss = group_nll(mixture, part.keypoints_xy, part.labelled, part.person_mask, groups)[1]
        if not self.config.count_weight:
            return loss, loss.new_zeros(()), mixture
        counts = count_nll([o for o, _, _ in heads], part.person_mask.sum(dim=1)).sum()
        return loss, self.config.count_weight * counts, mixture

    def _heads(self, images: torch.Tensor) -> Any:
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

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.world.device.type, dtype=self.dtype)

    def _generator(self, iteration: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.config.seed << 32) + iteration)


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


def _average(network: nn.Module, decay: float) -> AveragedModel:
    """Average parameters and batch-norm statistics; the first update copies them."""
    multi_avg_fn = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=multi_avg_fn, use_buffers=True).requires_grad_(False)
