"""What the networks of several families are built of: input, timm backbone, pyramid; and batch norms folded away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from typing_extensions import Self

from mdpose_edge.errors import ConfigError
from mdpose_edge.families.pretrained import pretrained_options, unreachable
from mdpose_edge.spec import InputSpec


class InputNormalization(nn.Module):
    """uint8 (N, H, W, 3) to normalised float (N, 3, H, W), inside the graph so that no device has to."""

    mean: Tensor
    inverse_std: Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("inverse_std", 1 / torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Cast first: TensorRT takes a uint8 input only straight into a Cast."""
        return (images.float().permute(0, 3, 1, 2) - self.mean) * self.inverse_std


class FeaturePyramid(nn.Module):
    """Top-down pyramid: 1x1 lateral convolutions, nearest x2 upsampling, 3x3 output convolutions."""

    def __init__(
        self, in_channels: list[int], channels: int, extra_levels: int, *, extra_from_backbone: bool = False
    ) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        self.extra_from_backbone = extra_from_backbone
        widths = [in_channels[-1] if extra_from_backbone else channels, *[channels] * extra_levels]
        self.extra = nn.ModuleList(
            nn.Conv2d(width, channels, 3, stride=2, padding=1) for width in widths[:extra_levels]
        )
        # A constant scale, not a size, so that ONNX holds Resize with constant scales (TensorRT 8.5, NVDLA).
        self.upsample = nn.Upsample(scale_factor=2.0, mode="nearest")

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Map backbone features, finest first, to pyramid levels, finest first."""
        merged = [self.lateral[-1](features[-1])]
        for lateral, feature in zip(list(self.lateral)[-2::-1], features[-2::-1], strict=True):
            merged.insert(0, lateral(feature) + self.upsample(merged[0]))
        levels = [conv(x) for conv, x in zip(self.output, merged, strict=True)]
        for i, conv in enumerate(self.extra):
            first = features[-1] if self.extra_from_backbone else levels[-1]
            levels.append(conv(first if i == 0 else torch.relu(levels[-1])))
        return levels


class FinestLevel(nn.Module):
    """The same pyramid down to its finest level, the only one that is kept."""

    def __init__(self, in_channels: list[int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.output = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.SiLU())
        self.upsample = nn.Upsample(scale_factor=2.0, mode="nearest")

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map backbone features, finest first, to one map of the finest stride."""
        merged = self.lateral[-1](features[-1])
        for lateral, feature in zip(list(self.lateral)[-2::-1], features[-2::-1], strict=True):
            merged = lateral(feature) + self.upsample(merged)
        result: Tensor = self.output(merged)
        return result


def fold_batch_norm(module: nn.Module) -> None:
    """Fold every BatchNorm2d into the Conv2d that feeds it, in place; the module must be in eval mode.

    Pairs are found by tracing, so that the names a backbone gives its layers do not matter. A batch norm that no
    convolution feeds alone stays as it is.
    """
    graph = _BatchNormTracer().trace(module)
    modules = dict(module.named_modules())
    for node in graph.nodes:
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        (source,) = node.all_input_nodes
        if source.op != "call_module" or len(source.users) > 1:
            continue
        if type(modules[source.target]) not in (nn.Conv2d, Conv2dSame):  # others may normalise their weights
            continue
        norm = modules[node.target]
        module.set_submodule(source.target, fuse_conv_bn_eval(modules[source.target], norm))
        module.set_submodule(node.target, norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity())


class _BatchNormTracer(fx.Tracer):
    """Sees every convolution and batch norm as one node.

    It would trace into timm's own: a batch norm that holds the activation too, a convolution whose padding follows from
    the size of its input.
    """

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (nn.Conv2d, nn.BatchNorm2d)) or super().is_leaf_module(m, module_qualified_name)


def make_backbone(
    name: str, pretrained: bool | str, strides: tuple[int, ...] = (8, 16, 32), *, branches: bool = False
) -> nn.Module:
    """Return a timm backbone that gives the feature maps of these strides, finest first.

    Args:
        name: a timm model that supports `features_only`.
        pretrained: load its ImageNet weights through timm, the stem turned to BGR; text names the file that holds them.
        strides: of the feature maps, ascending.
        branches: of an HRNet, take its branches as they are, not what its classifier widens them to.

    Raises:
        ConfigError: timm has no such model, it lacks the strides, or its weights cannot be had.
    """
    indices = _feature_indices(name, strides)
    options = pretrained_options(name, pretrained)
    if branches:
        options["feature_location"] = ""
    try:
        backbone: nn.Module = timm.create_model(name, features_only=True, out_indices=indices, **options)
    except (OSError, RuntimeError) as error:  # the download broke off
        raise unreachable(name, error) from error
    if pretrained:
        _to_bgr(backbone)
    return backbone


def freeze_backbone(network: nn.Module, stride: int) -> None:
    """Keep a network's backbone up to its map of a stride as it is: weights, and batch statistics in training too.

    Args:
        network: whose `backbone` was made by `make_backbone`. Changed in place.
        stride: of one of its maps.

    Raises:
        ConfigError: it has no such map.
    """
    backbone: Any = network.backbone
    offered = list(backbone.feature_info.reduction())
    if stride not in offered:
        expected = f"one of the strides {', '.join(map(str, offered))}"
        raise ConfigError("frozen_stride", expected=expected, got=str(stride), do="choose one of these, or 0")
    kind = type(backbone)
    backbone.__class__ = type(f"PartlyFrozen{kind.__name__}", (_PartlyFrozen, kind), {})
    backbone.frozen_up_to = backbone.feature_info.module_name()[offered.index(stride)]
    for module in backbone.frozen():
        module.eval().requires_grad_(False)


class _PartlyFrozen(nn.Module):
    """Mixed into a backbone's class, so that its parts keep their names: `train` leaves the frozen ones alone."""

    frozen_up_to: str

    def frozen(self) -> Iterator[nn.Module]:
        return _up_to(self, self.frozen_up_to)

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation, but for what is frozen."""
        super().train(mode)
        for module in self.frozen():
            module.eval()
        return self


def _up_to(module: nn.Module, path: str) -> Iterator[nn.Module]:
    """Return the parts of a module in their order, the last of them that of a dotted path."""
    first, _, rest = path.partition(".")
    for name, child in module.named_children():
        if name == first:
            yield from _up_to(child, rest) if rest else (child,)
            return
        yield child


def _feature_indices(name: str, strides: tuple[int, ...]) -> list[int]:
    listed = f"{', '.join(map(str, strides[:-1]))} and {strides[-1]}"
    expected, do = f"a timm backbone with features at strides {listed}", "choose another; the default is dla34"
    try:
        info: Any = timm.create_model(name, features_only=True, pretrained=False).feature_info
        index_of = dict(zip(info.reduction(), info.out_indices, strict=True))
    except (RuntimeError, AttributeError) as error:  # no such model; no feature maps
        raise ConfigError("network.backbone", expected=expected, got=f"{name} ({error})", do=do) from error
    if not set(strides) <= index_of.keys():
        offered = ", ".join(map(str, sorted(index_of)))
        raise ConfigError("network.backbone", expected=expected, got=f"{name} with strides {offered}", do=do)
    return [index_of[stride] for stride in strides]


def _to_bgr(backbone: nn.Module) -> None:
    """Reorder the stem of a network trained on RGB, so that no graph has to swap channels."""
    stem = next(m for m in backbone.modules() if isinstance(m, nn.Conv2d))
    with torch.no_grad():
        stem.weight.copy_(stem.weight.flip(1))


def keep_channels(conv: nn.Conv2d, count: int) -> None:
    """Cut all but the first output channels of a convolution, in place."""
    assert conv.bias is not None
    conv.weight = nn.Parameter(conv.weight.detach()[:count].clone())
    conv.bias = nn.Parameter(conv.bias.detach()[:count].clone())
    conv.out_channels = count
