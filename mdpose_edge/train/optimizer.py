"""The optimizer, its learning rate over time, and its state in a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mdpose_edge.train.config import OptimizerConfig, ScheduleConfig


def make_optimizer(network: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Build the optimizer: SGD as in the paper, or AdamW, which spares biases and batch norms the weight decay.

    Both are fused into one kernel where that pays: SGD's only on a GPU.
    """
    if config.name == "sgd":
        parameters = list(network.parameters())
        fused = all(p.device.type == "cuda" for p in parameters)
        return torch.optim.SGD(
            parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=fused
        )
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def learning_rate(iteration: int, base: float, schedule: ScheduleConfig) -> float:
    """Return the learning rate of an iteration (from 0)."""
    if iteration < schedule.warmup:
        return base * (iteration + 1) / schedule.warmup
    if schedule.kind == "step":
        return base * 0.1 ** sum(iteration >= milestone for milestone in schedule.milestones)
    done = (iteration - schedule.warmup) / max(1, schedule.iterations - schedule.warmup)
    return base * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's moments by "parameter index.name", ready for a checkpoint."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": torch.as_tensor(value) for index, slots in state.items() for key, value in slots.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave; the parameters must be the same, in the same order."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".")
        parameter = parameters[int(index)]
        if tensor.shape == parameter.shape:
            # With the parameter's strides: the fused CPU kernel pairs elements by address, without a check.
            tensor = torch.empty_like(parameter, requires_grad=False).copy_(tensor)
        slots.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": slots})
