"""Batch norm over several processes on CPUs, where torch's own SyncBatchNorm refuses to work.

Without it a run of several CPU processes would quietly normalise by each process's own images. It is here so that such
a run is the same run, and so that the tests hold several processes against one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn


class HostSyncBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d, and timm's BatchNormAct2d, over the batches of all processes; takes over a norm's parameters."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.drop, self.act = getattr(norm, "drop", nn.Identity()), getattr(norm, "act", nn.Identity())
        self.training = norm.training

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, H, W); in training mode every process must call this at the same time."""
        output = self._normalize(input.float()).to(input.dtype) if self.training else super().forward(input)
        result: Tensor = self.act(self.drop(output))
        return result

    def _normalize(self, x: Tensor) -> Tensor:
        count = torch.tensor(float(x.numel() // x.shape[1]))
        distributed.all_reduce(count)
        mean = _sum_over_processes(x.sum(dim=(0, 2, 3))) / count
        centred = x - mean[:, None, None]
        # In a second pass: the difference of the mean square and the squared mean would cancel.
        variance = _sum_over_processes(centred.square().sum(dim=(0, 2, 3))) / count
        self._track(mean.detach(), variance.detach() * (count / (count - 1)))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale[:, None, None] + self.bias[:, None, None]

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def convert_host_batch_norm(module: nn.Module) -> nn.Module:
    """Replace every BatchNorm2d of a network, in place; parameters and their names stay."""
    if isinstance(module, nn.BatchNorm2d):
        return HostSyncBatchNorm(module)
    for name, child in module.named_children():
        module.add_module(name, convert_host_batch_norm(child))
    return module


class _SumOverProcesses(torch.autograd.Function):
    """A sum that every process gets; its gradient is the sum of what every process wants changed."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        distributed.all_reduce(total)
        return total


def _sum_over_processes(values: Tensor) -> Tensor:
    result: Tensor = _SumOverProcesses.apply(values)
    return result
