"""The stacked hourglass of CornerNet and CenterNet: a backbone that gives a map of stride 4 for each of its stacks.

Parts have the names that those codes give them, so that their weights can be recognised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mdpose_edge.errors import ConfigError


@dataclass(frozen=True)
class HourglassShape:
    """Widths and depths."""

    stem: tuple[int, int]
    """Channels after the 7x7 convolution, at stride 2, and after the residual block, at stride 4."""
    widths: tuple[int, ...]
    """At stride 4 and at each halving of it."""
    blocks: tuple[int, ...]
    """Residual blocks, likewise."""
    channels: int
    """Of the maps that are given."""
    stacks: int = 2

    @property
    def coarsest_stride(self) -> int:
        """What the sides of the input are multiples of."""
        return int(4 * 2 ** (len(self.widths) - 1))


HOURGLASSES = {
    "hourglass104": HourglassShape((128, 256), (256, 256, 384, 384, 384, 512), (2, 2, 2, 2, 2, 4), channels=256)
}


class Hourglass(nn.Module):
    """Stacks of hourglasses; each but the last is for training alone, and for the next to refine."""

    def __init__(self, shape: HourglassShape) -> None:
        super().__init__()
        first, width = shape.stem
        if width != shape.widths[0]:
            raise ValueError(f"the stem gives {width} channels, and the hourglass takes {shape.widths[0]}")
        self.pre = nn.Sequential(Convolution(3, first, 7, stride=2), Residual(first, width, stride=2))
        between = range(shape.stacks - 1)
        self.kps = nn.ModuleList(_Stack(shape.widths, shape.blocks) for _ in range(shape.stacks))
        self.cnvs = nn.ModuleList(Convolution(width, shape.channels, 3) for _ in range(shape.stacks))
        self.inters_ = nn.ModuleList(_projection(width, width) for _ in between)
        self.cnvs_ = nn.ModuleList(_projection(shape.channels, width) for _ in between)
        self.inters = nn.ModuleList(Residual(width, width) for _ in between)
        self.feature_info = _FeatureInfo(shape.channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map (N, 3, H, W) to one (N, C, H/4, W/4) for each stack."""
        x, maps = self.pre(images), []
        for index, (stack, convolution) in enumerate(zip(self.kps, self.cnvs, strict=True)):
            maps.append(convolution(stack(x)))
            if index < len(self.inters):
                x = self.inters[index](torch.relu(self.inters_[index](x) + self.cnvs_[index](maps[-1])))
        return maps


class Convolution(nn.Module):
    """A convolution, a batch norm and ReLU."""

    def __init__(self, in_channels: int, channels: int, size: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, size, stride, padding=size // 2, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply all three."""
        return torch.relu(self.bn(self.conv(x)))


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norms, beside a skip that is projected where the shape changes."""

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        changes = stride != 1 or in_channels != channels
        self.skip = _projection(in_channels, channels, stride) if changes else nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        """Add the convolutions to the skip."""
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.skip(x))


class _Stack(nn.Module):
    """One level of an hourglass around the next: a branch at full size, and one at half of it and back."""

    def __init__(self, widths: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        super().__init__()
        (width, below, *_), count = widths, blocks[0]
        self.up1 = nn.Sequential(*(Residual(width, width) for _ in range(count)))
        self.low1 = nn.Sequential(Residual(width, below, stride=2), *(Residual(below, below) for _ in range(count - 1)))
        self.low2: nn.Module = (
            _Stack(widths[1:], blocks[1:])
            if len(widths) > 2
            else nn.Sequential(*(Residual(below, below) for _ in range(blocks[1])))
        )
        self.low3 = nn.Sequential(*(Residual(below, below) for _ in range(count - 1)), Residual(below, width))
        self.up2 = nn.Upsample(scale_factor=2.0, mode="nearest")

    def forward(self, x: Tensor) -> Tensor:
        return self.up1(x) + self.up2(self.low3(self.low2(self.low1(x))))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _FeatureInfo:
    """What `freeze_backbone` asks of a backbone, as timm's say it: all of it is up to its map of stride 4."""

    width: int

    def reduction(self) -> list[int]:
        return [4]

    def channels(self) -> list[int]:
        return [self.width]

    def module_name(self) -> list[str]:
        return ["inters"]


def make_hourglass(name: str, pretrained: bool | str) -> Hourglass:
    """Return a backbone by its name in HOURGLASSES.

    Raises:
        ConfigError: weights of ImageNet are asked for, which there are none of.
    """
    if pretrained:
        do = "set pretrained=false: it is trained from scratch"
        raise ConfigError("pretrained", expected=f"false for {name}", got=str(pretrained), do=do)
    return Hourglass(HOURGLASSES[name])


def _projection(in_channels: int, channels: int, stride: int = 1) -> nn.Sequential:
    layers: list[Any] = [nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)]
    return nn.Sequential(*layers)
