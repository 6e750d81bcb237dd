"""The losses of adaptive keypoints; in float32 or better whatever autocast does to the network.

Heat maps: squared errors, of which those far from every keypoint of the map's kind weigh a tenth (the trade-off loss),
since such cells are nearly all, and those of people of whom nothing is known nothing. Offsets: smooth L1, a person's
weighed by one over the size, so that large people do not count for more.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

BETA = 1.0 / 9.0
"""Cells: below it smooth L1 is a square (the authors' code)."""


def at_least_float32(raw: Tensor) -> Tensor:
    """Widen what autocast narrowed."""
    return raw.to(torch.promote_types(raw.dtype, torch.float32))


def heat_loss(raw: Tensor, target: Tensor, known: Tensor, background: float) -> Tensor:
    """Return the weighed squared errors, summed.

    Args:
        raw: (B, C, rows, columns) heights.
        target: of the same shape; exactly 0 away from the keypoints.
        known: (B, 1, rows, columns) bool: where nobody is of whom nothing is known.
        background: weight of a cell where the target is 0.
    """
    weight = torch.where(target > 0, 1.0, background * known.to(raw.dtype))
    return (weight * (raw - target).square()).sum()


def offset_loss(raw: Tensor, place: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """Return the mean over the learned offsets of an image, summed over images.

    Args:
        raw: (B, 2K, rows, columns) cells, as x0, y0, x1, y1, ...
        place: (B, n), flat in (K, rows, columns).
        offset: (B, n, 2) cells.
        weight: (B, n), 0 where a row is padding.
    """
    images, channels, rows, columns = raw.shape
    flat = raw.view(images, channels // 2, 2, rows * columns).transpose(2, 3).reshape(images, -1, 2)
    found = flat.gather(1, place[..., None].expand(-1, -1, 2))
    error = functional.smooth_l1_loss(found, offset.to(raw.dtype), reduction="none", beta=BETA)
    counts = 2 * (weight > 0).sum(dim=1)
    return ((error * weight[..., None]).sum(dim=(1, 2)) / counts.clamp(min=1)).sum()
