"""The arithmetic of the network: as named, or what turns out to be faster here.

A CPU that computes in bfloat16 does not do so faster in every network: depthwise convolutions take twice as long as in
float32, dense ones less. So `auto` tries, once, at the start of a run.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

Arithmetic = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[Arithmetic, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TRIES = 3
"""Timed passes in each arithmetic, by turns, after one that is not timed; the fastest counts."""


def native_precision(device: torch.device) -> Arithmetic:
    """Return the shortest arithmetic that the device has instructions for: emulated, it would only be slower."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if has_bf16 else "fp32"


def autocast(precision: Arithmetic, device: torch.device) -> AbstractContextManager[Any]:
    """Compute the network in this arithmetic; its weights stay in float32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])


def faster_precision(
    network: nn.Module, images: Tensor, heads: Callable[[Any], Iterable[Tensor]]
) -> tuple[Arithmetic, dict[Arithmetic, float]]:
    """Time forward and backward passes of a CPU's float32 and bfloat16.

    Args:
        network: in training mode; not modified.
        images: as it takes them.
        heads: the tensors among its outputs.

    Returns:
        The faster, and the seconds of a pass in each.
    """
    trial, device = copy.deepcopy(network), images.device
    seconds: dict[Arithmetic, float] = {}
    for turn in range(TRIES + 1):
        for precision in ("fp32", "bf16"):
            begin = time.perf_counter()
            with autocast(precision, device):
                outputs = trial(images)
            total = torch.stack([raw.float().sum() for raw in heads(outputs)]).sum()
            total.backward()  # type: ignore[no-untyped-call]
            taken = time.perf_counter() - begin
            if turn:
                seconds[precision] = min(taken, seconds.get(precision, taken))
    return min(seconds, key=lambda precision: seconds[precision]), seconds
