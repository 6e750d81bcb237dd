"""Convolutions that look where a person's rotation and scale put things, and what stands in for them on a device.

A 3x3 convolution reads the cells q + d g around a cell q, g the 3x3 grid and d the dilation. An adaptive one reads

    q + d g + (T_q - 1) g + t_q

with a 2x2 matrix T_q and a translation t_q of the cell, which a convolution of the features gives. Here that is one
bilinear sampling at 3 x 3 places a cell (ONNX's GridSample, opset 16), and a 3x3 convolution of stride 3 of what was
sampled, an ordinary one to every target and to INT8. Deformable convolutions, which the authors use, no TensorRT before
10.1 has.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Kind = Literal["sample", "bank", "none"]
"""sample: as above. bank: plain convolutions of dilations 0 to 2, each weighed by a gate of the cell's; it follows
scale alone, and NVDLA runs it. none: a plain convolution."""
BANK = (0, 1, 2)
"""Dilations; 0 is a 1x1 convolution, and of 3 NVDLA refuses the padding."""
MOVES = 6
"""Channels of (T - 1 | t), rows y and x: T_yy - 1, T_yx, t_y, T_xy, T_xx - 1, t_x. As mmpose stores them."""
TAPS = 9


class Sampling(nn.Module):
    """Features at the nine moved places of each cell, (N, C, 3 rows, 3 columns).

    Args:
        groups: of channels that move alike.
        channels: in all.
        dilation: d.
        cells: (rows, columns).
    """

    taps: Tensor
    base: Tensor

    def __init__(self, groups: int, channels: int, dilation: int, cells: tuple[int, int]) -> None:
        super().__init__()
        self.groups, self.channels, self.cells = groups, channels, cells
        self.register_buffer("taps", _taps(cells), persistent=False)
        self.register_buffer("base", _base(dilation, cells), persistent=False)
        self.folded = False

    def forward(self, x: Tensor, moves: Tensor) -> Tensor:
        """Sample; `moves` is (N, 6 groups, rows, columns), or what `fold_into` makes of it."""
        rows, columns = self.cells
        moves = moves.reshape(-1, 2 * TAPS if self.folded else MOVES, rows, columns)
        places = moves if self.folded else functional.conv2d(moves, self.taps)
        grid = functional.pixel_shuffle(places, 3) + self.base
        x = x.reshape(-1, self.channels // self.groups, rows, columns)
        sampled = functional.grid_sample(x, grid.permute(0, 2, 3, 1), "bilinear", "zeros", align_corners=False)
        return sampled.reshape(-1, self.channels, 3 * rows, 3 * columns)

    def fold_into(self, transform: nn.Conv2d) -> nn.Conv2d:
        """Return a convolution that gives places where `transform` gives moves; from now on this takes such.

        Without it the map from moves to places would be a convolution too, whose input INT8 rounds.
        """
        assert transform.bias is not None
        taps = self.taps[:, :, 0, 0]
        folded = nn.Conv2d(
            transform.in_channels, 2 * TAPS * self.groups, 3, padding=1, groups=transform.groups,
        )  # fmt: skip
        weight = transform.weight.detach().view(self.groups, MOVES, -1, 3, 3)
        folded.weight = nn.Parameter(torch.einsum("pm,gmcij->gpcij", taps, weight).flatten(0, 1))
        bias = transform.bias.detach().view(self.groups, MOVES)
        folded.bias = nn.Parameter((bias @ taps.T).flatten())
        self.folded = True
        return folded


class AdaptiveConv(nn.Module):
    """A 3x3 convolution without bias, as `kind` says.

    Args:
        kind: see `Kind`.
        channels: in and out.
        groups: of channels that move alike, and are convolved apart.
        dilation: where it is sampled or plain.
        cells: (rows, columns) of the maps.
    """

    def __init__(self, kind: Kind, channels: int, groups: int, dilation: int, cells: tuple[int, int]) -> None:
        super().__init__()
        self.kind = kind
        if kind == "sample":
            self.transform = nn.Conv2d(channels, MOVES * groups, 3, padding=1, groups=groups)
            nn.init.zeros_(self.transform.weight)
            assert self.transform.bias is not None
            nn.init.zeros_(self.transform.bias)  # T = 1: it begins as a plain convolution
            self.sampling = Sampling(groups, channels, dilation, cells)
            self.conv = nn.Conv2d(channels, channels, 3, stride=3, groups=groups, bias=False)
        elif kind == "bank":
            self.gates = nn.ModuleList(nn.Conv2d(channels, channels, 1, groups=groups) for _ in BANK)
            self.convs = nn.ModuleList(
                nn.Sequential(_plain(channels, groups, dilation), nn.BatchNorm2d(channels)) for dilation in BANK
            )
        else:
            self.conv = _plain(channels, groups, dilation)

    def forward(self, x: Tensor, about: Tensor) -> Tensor:
        """Convolve x (N, C, rows, columns), moved or weighed by what `about`, of the same shape, says of each cell."""
        if self.kind == "sample":
            result: Tensor = self.conv(self.sampling(x, self.transform(about)))
            return result
        if self.kind == "bank":
            parts: list[Tensor] = [
                gate(about).sigmoid() * conv(x) for gate, conv in zip(self.gates, self.convs, strict=True)
            ]
            return parts[0] + parts[1] + parts[2]
        plain: Tensor = self.conv(x)
        return plain

    def fold(self) -> None:
        """Make it ready for export, in place."""
        if self.kind == "sample":
            self.transform = self.sampling.fold_into(self.transform)


class AdaptiveBlock(nn.Module):
    """Adaptive convolutions with batch norms and a skip: one, ReLU(x + BN(A(x))), as DEKR has it; or the journal's two.

    x + BN(A2(ReLU(BN(A1(x))))), ReLU, where both are moved by what the block's input x says.
    """

    def __init__(
        self, kind: Kind, channels: int, cells: tuple[int, int], *, count: int, groups: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        self.adapt = nn.ModuleList(AdaptiveConv(kind, channels, groups, dilation, cells) for _ in range(count))
        # A bank's convolutions have their own: one after the sum could not be folded into them.
        norms = (nn.Identity() if kind == "bank" else nn.BatchNorm2d(channels) for _ in range(count))
        self.norm = nn.ModuleList(norms)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, rows, columns) to the same shape."""
        y = x
        for index, (adapt, norm) in enumerate(zip(self.adapt, self.norm, strict=True)):
            y = norm(adapt(y if index == 0 else y.relu(), x))
        return (y + x).relu()


class BasicBlock(nn.Module):
    """ResNet's: two plain 3x3 convolutions with batch norms, and a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _plain(channels, 1, 1), nn.BatchNorm2d(channels)
        self.conv2, self.norm2 = _plain(channels, 1, 1), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, rows, columns) to the same shape."""
        y = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        result: Tensor = (y + x).relu()
        return result


def transition(in_channels: int, channels: int) -> nn.Sequential:
    """Return a 1x1 convolution, batch norm and ReLU."""
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())


def _plain(channels: int, groups: int, dilation: int) -> nn.Conv2d:
    if not dilation:
        return nn.Conv2d(channels, channels, 1, groups=groups, bias=False)
    return nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, groups=groups, bias=False)


def _taps(cells: tuple[int, int]) -> Tensor:
    """Return the map from moves to how far each tap moves, (18, 6, 1, 1), x of all taps first, in GridSample's unit."""
    rows, columns = cells
    taps = torch.zeros(2, TAPS, MOVES)
    for tap in range(TAPS):
        y, x = divmod(tap, 3)
        move = torch.tensor([y - 1.0, x - 1.0, 1.0])
        taps[0, tap, 3:], taps[1, tap, :3] = move * (2.0 / columns), move * (2.0 / rows)
    return taps.reshape(2 * TAPS, MOVES, 1, 1)


def _base(dilation: int, cells: tuple[int, int]) -> Tensor:
    """Return where a plain convolution's taps lie, (1, x and y, 3 rows, 3 columns), in GridSample's unit."""
    axes = []
    for count in cells:
        place = torch.arange(count)[:, None] + dilation * torch.arange(-1, 2)
        axes.append((2.0 * place.flatten() + 1.0) / count - 1.0)
    y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x, y])[None]
