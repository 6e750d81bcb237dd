"""Checkpoints on torch, in float32 on the CPU: the reference that the other engines are held against."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.optional import require
from mdpose_edge.runtimes.base import CheckedAdapter


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
        for package in ("torch", "timm", "safetensors"):
            require(package, extra="train", feature="running a checkpoint")
        from mdpose_edge.train.checkpoint import load_network
        from mdpose_edge.train.network import DeployedNetwork

        network, spec = load_network(checkpoint)
        super().__init__(spec, checkpoint, threads)
        self._threads = threads
        self._network = DeployedNetwork(network, spec).eval()

    def _run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        import torch

        with torch.inference_mode(), _num_threads(self._threads):
            outputs = self._network(torch.tensor(images))  # a copy: torch warns of arrays that it may not write to
        return {name: tensor.numpy() for name, tensor in zip(self.spec.outputs, outputs, strict=True)}

    def _release(self) -> None:
        del self._network

    def _engine_errors(self) -> tuple[type[Exception], ...]:
        return (RuntimeError,)


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
