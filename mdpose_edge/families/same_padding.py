"""TensorFlow's "same" padding, which timm's `tf_` backbones compute from the size of each input, made a constant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same_arg
from torch import Tensor, nn
from torch.nn import functional


def make_padding_static(module: nn.Module, run: Callable[[], object]) -> None:
    """Replace each convolution that pads by its input's size by one that pads as it does for one size, in place.

    Args:
        module: a network; it serves inputs of that size alone afterwards.
        run: sends an input of that size through it.
    """
    padding: dict[str, tuple[int, int, int, int]] = {}
    hooks = [
        conv.register_forward_pre_hook(_note(padding, name))
        for name, conv in module.named_modules()
        if isinstance(conv, Conv2dSame)
    ]
    if not hooks:
        return
    run()
    for hook in hooks:
        hook.remove()
    for name, sides in padding.items():
        module.set_submodule(name, _padded(module.get_submodule(name), sides))


def _note(padding: dict[str, tuple[int, int, int, int]], name: str) -> Callable[[Any, tuple[Tensor]], None]:
    def hook(conv: Any, inputs: tuple[Tensor]) -> None:
        left, right, top, bottom = pad_same_arg(
            list(inputs[0].shape[-2:]), conv.kernel_size, conv.stride, conv.dilation
        )
        padding[name] = (left, right, top, bottom)

    return hook


def _padded(same: Any, sides: tuple[int, int, int, int]) -> nn.Module:
    """Return a convolution with these weights that pads so: an ordinary one where both sides are alike."""
    left, right, top, bottom = sides
    is_even = left == right and top == bottom
    conv = (nn.Conv2d if is_even else PaddedConv2d)(
        same.in_channels,
        same.out_channels,
        same.kernel_size,
        stride=same.stride,
        padding=(top, left) if is_even else 0,
        dilation=same.dilation,
        groups=same.groups,
        bias=same.bias is not None,
    )
    conv.weight, conv.bias = same.weight, same.bias
    if isinstance(conv, PaddedConv2d):
        conv.sides = sides
    return conv


class PaddedConv2d(nn.Conv2d):
    """A convolution that pads each side by a number of its own; one node in ONNX, without gradients."""

    sides: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Left, right, top, bottom, px."""

    def forward(self, input: Tensor) -> Tensor:
        """Pad with zeros and convolve."""
        result: Tensor = _PaddedConvolution.apply(
            input, self.weight, self.bias, self.sides, self.stride, self.dilation, self.groups
        )
        return result


class _PaddedConvolution(torch.autograd.Function):
    """Exists for `symbolic`: torch has no such convolution, and writes a padding before one as eight nodes."""

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        sides: tuple[int, int, int, int],
        stride: tuple[int, int],
        dilation: tuple[int, int],
        groups: int,
    ) -> Tensor:
        """Compute it as two steps."""
        padded = functional.pad(image, sides)
        return functional.conv2d(padded, weight, bias, stride, dilation=dilation, groups=groups)

    @staticmethod
    def symbolic(
        g: Any,
        image: Any,
        weight: Any,
        bias: Any,
        sides: tuple[int, int, int, int],
        stride: tuple[int, int],
        dilation: tuple[int, int],
        groups: int,
    ) -> Any:
        """Write it as one Conv."""
        left, right, top, bottom = sides
        inputs = (image, weight) if bias is None else (image, weight, bias)
        return g.op(
            "Conv",
            *inputs,
            dilations_i=dilation,
            group_i=groups,
            kernel_shape_i=weight.type().sizes()[2:],
            pads_i=(top, left, bottom, right),
            strides_i=stride,
        )
