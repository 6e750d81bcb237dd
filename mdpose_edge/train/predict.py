"""The network in training as the decoder sees it: head tensors by name, without what training alone needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mdpose_edge.families.registry import training_of
from mdpose_edge.spec import ModelSpec


@contextmanager
def in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Use a network's tracked batch statistics for a while, and leave them as they are."""
    before = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(before)


def head_tensors(network: nn.Module, spec: ModelSpec, images: Tensor) -> dict[str, NDArray[np.float32]]:
    """Run a network in eval mode and float32.

    Args:
        network: in training, or rebuilt by `load_network`.
        spec: its spec.
        images: (N, H, W, 3) uint8 BGR, on the network's device.

    Returns:
        The head tensors by the names in `spec.outputs`, as an exported graph gives them.
    """
    with torch.no_grad():
        tensors = training_of(spec.family).heads(network(images), spec)
    return {name: tensor.float().cpu().numpy() for name, tensor in zip(spec.outputs, tensors, strict=True)}
