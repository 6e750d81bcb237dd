"""Checkpoints on torch, in float32 on the CPU: the reference that the other engines are held against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from mdpose_edge.common.optional import require
from mdpose_edge.runtimes.base import CheckedAdapter
from mdpose_edge.spec import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

Layers = Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
"""(out, in) weights and (out,) biases by name."""


class TorchAdapter(CheckedAdapter):
    """Run a checkpoint on torch, batch norms folded as in an export.

    Args:
        checkpoint: a .safetensors file that training wrote.
        threads: CPU threads, or None for torch's choice.

    Raises:
        MissingPackageError: torch, timm or safetensors is not installed.
        CheckpointError: the checkpoint cannot be read or does not fit its network.
    """

    engine = "torch"

    def __init__(self, checkpoint: Path, *, threads: int | None = None) -> None:
        _require_all()
        from mdpose_edge.checkpoint import load_network
        from mdpose_edge.families.registry import training_of

        network, spec = load_network(checkpoint)
        super().__init__(spec, checkpoint, threads)
        self._threads = threads
        self._network: nn.Module = training_of(spec.family).deployed(network, spec).eval()

    @classmethod
    def of_layers(cls, spec: ModelSpec, layers: Layers) -> Self:
        """Open what doctor/tiny.py computes: a mean of each cell, `hidden` with Swish, and a layer for each output.

        Args:
            spec: of one level.
            layers: "hidden", and one by each of the spec's output names.

        Raises:
            MissingPackageError: torch, timm or safetensors is not installed.
        """
        _require_all()
        adapter = cls.__new__(cls)
        CheckedAdapter.__init__(adapter, spec, Path("doctor"), 1)
        adapter._threads = 1
        adapter._network = _of_layers(spec, layers)
        return adapter

    def _run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        import torch

        with torch.inference_mode(), _num_threads(self._threads):
            outputs = self._network(torch.tensor(images))  # a copy: torch warns of arrays that it may not write to
        return {name: tensor.numpy() for name, tensor in zip(self.spec.outputs, outputs, strict=True)}

    def _release(self) -> None:
        del self._network

    def _engine_errors(self) -> tuple[type[Exception], ...]:
        return (RuntimeError,)


def _require_all() -> None:
    """Import all that a checkpoint takes: timm is the one that a wrong torch breaks first."""
    for package in ("torch", "timm", "safetensors"):
        require(package, extra="train", feature="running a checkpoint")


def _of_layers(spec: ModelSpec, layers: Layers) -> nn.Module:
    import torch
    from torch import nn
    from torch.nn import functional

    class OfLayers(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            cells = functional.adaptive_avg_pool2d(images.float().permute(0, 3, 1, 2), spec.cells(spec.heads[0].stride))
            swish = functional.silu(linear("hidden", cells))
            return tuple(linear(name, swish) for name in spec.outputs)

    def linear(name: str, x: Tensor) -> Tensor:
        weights, biases = map(torch.tensor, layers[name])
        return functional.conv2d(x, weights[:, :, None, None], biases)

    return OfLayers().eval()


@contextmanager
def _num_threads(count: int | None) -> Iterator[None]:
    """Use so many threads for a while: torch's setting belongs to the whole process, not to a network."""
    import torch

    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)
