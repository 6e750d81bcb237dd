"""The MDPose network: backbone, feature pyramid, and one head shared by all levels (Seo et al., UAI 2023, section 4).

It takes images as a camera gives them and returns raw head tensors; everything after (sigmoid, softplus, grid, scale)
belongs to the loss and to the decoder, which agree on it by `spec.LevelSpec`.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import timm
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mdpose_edge import __version__
from mdpose_edge.common.strict import read_dataclass
from mdpose_edge.errors import ConfigError
from mdpose_edge.families.pretrained import pretrained_options, unreachable
from mdpose_edge.spec import (
    COCO_KEYPOINTS,
    InputSpec,
    KeypointSpec,
    ModelSpec,
    Provenance,
    head_output_names,
    mdpose_levels,
)

FINEST_EXTRA_LEVEL = 6
"""p6 and up have no backbone map: each is a stride-2 convolution of the level below."""


@dataclass(frozen=True)
class NetworkConfig:
    """The network's options; the defaults are the paper's DLA-34 model."""

    backbone: str = "dla34"
    """A timm model name that supports `features_only` and offers strides 8, 16 and 32."""
    levels: tuple[str, ...] = ("p3", "p4", "p5")
    """Pyramid levels in use, finest first; p6 and p7 are made by stride-2 convolutions."""
    channels: int = 256
    """Width of the pyramid and of the head."""
    head_convs: int = 8
    """3x3 convolutions in the head, the output convolution included."""

    def __post_init__(self) -> None:
        if self.channels < 1 or self.head_convs < 1:
            raise ConfigError(
                "network", expected="channels and head_convs of at least 1", got=str(self), do="raise them"
            )
        known = ("p3", "p4", "p5", "p6", "p7")
        if self.levels[:3] != known[:3] or self.levels != known[: len(self.levels)]:
            raise ConfigError(
                "network.levels", expected="p3, p4, p5, then optionally p6, p7", got=str(self.levels), do="list them so"
            )


class HeadTensors(NamedTuple):
    """Raw outputs of one level, before any activation."""

    o: Tensor
    """(N, 1, H, W)"""
    mu: Tensor
    """(N, 2J, H, W), channels x0, y0, x1, y1, ..."""
    gamma: Tensor
    """(N, 2J, H, W)"""


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

    def __init__(self, in_channels: list[int], channels: int, extra_levels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        self.extra = nn.ModuleList(nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(extra_levels))
        # A constant scale, not a size, so that ONNX holds Resize with constant scales (TensorRT 8.5, NVDLA).
        self.upsample = nn.Upsample(scale_factor=2.0, mode="nearest")

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Map backbone features, finest first, to pyramid levels, finest first."""
        merged = [self.lateral[-1](features[-1])]
        for lateral, feature in zip(list(self.lateral)[-2::-1], features[-2::-1], strict=True):
            merged.insert(0, lateral(feature) + self.upsample(merged[0]))
        levels = [conv(x) for conv, x in zip(self.output, merged, strict=True)]
        for i, conv in enumerate(self.extra):
            levels.append(conv(levels[-1] if i == 0 else torch.relu(levels[-1])))
        return levels


class MixtureHead(nn.Module):
    """Convolutions shared by all levels; the last is kept as three, one per kind of parameter.

    Their ranges differ by orders of magnitude, so each must be a tensor of its own with an INT8 scale of its own.
    """

    def __init__(self, channels: int, convs: int, num_coordinates: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(convs - 1):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.SiLU()]
        self.tower = nn.Sequential(*layers)
        self.o = nn.Conv2d(channels, 1, 3, padding=1)
        self.mu = nn.Conv2d(channels, num_coordinates, 3, padding=1)
        self.gamma = nn.Conv2d(channels, num_coordinates, 3, padding=1)

    def forward(self, level: Tensor) -> HeadTensors:
        """Map (N, C, H, W) to the raw mixture parameters of that level."""
        x = self.tower(level)
        return HeadTensors(self.o(x), self.mu(x), self.gamma(x))


class MDPoseNetwork(nn.Module):
    """uint8 images to raw head tensors.

    Args:
        spec: input, levels and keypoints; `spec.network` holds the NetworkConfig.
        auxiliary_center: predict the box centre as one keypoint more, for training only.
        pretrained: load the backbone's ImageNet weights through timm; text names the file that holds them.

    Raises:
        ConfigError: timm has no such backbone, it lacks the strides, or its weights cannot be had.
    """

    def __init__(self, spec: ModelSpec, *, auxiliary_center: bool = False, pretrained: bool | str = False) -> None:
        super().__init__()
        config = network_config(spec)
        self.normalize = InputNormalization(spec.input)
        self.backbone = _backbone(config.backbone, pretrained)
        extra = sum(int(name[1:]) >= FINEST_EXTRA_LEVEL for name in config.levels)
        feature_info: Any = self.backbone.feature_info
        self.pyramid = FeaturePyramid(feature_info.channels(), config.channels, extra)
        joints = len(spec.keypoints.names) + auxiliary_center
        self.head = MixtureHead(config.channels, config.head_convs, 2 * joints)

    def forward(self, images: Tensor) -> list[HeadTensors]:
        """Run the network.

        Args:
            images: (N, H, W, 3) uint8, BGR, of the spec's size.

        Returns:
            One HeadTensors per level, finest first.
        """
        return [self.head(level) for level in self.pyramid(self.backbone(self.normalize(images)))]


class DeployedNetwork(nn.Module):
    """The network for export: batch norm folded, auxiliary keypoint cut, outputs as a flat tuple, without gradients."""

    def __init__(self, network: MDPoseNetwork, spec: ModelSpec) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval().float()
        fold_batch_norm(self.network.backbone)
        for conv in (self.network.head.mu, self.network.head.gamma):
            _keep_channels(conv, 2 * len(spec.keypoints.names))
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Give the head tensors in the order of `ModelSpec.outputs`."""
        return tuple(tensor for level in self.network(images) for tensor in level)


def network_config(spec: ModelSpec) -> NetworkConfig:
    """Read the network's options from a spec, strictly."""
    return read_dataclass(NetworkConfig, spec.network, where="network", error=ConfigError, defaults=True)


def make_spec(config: NetworkConfig, input_spec: InputSpec, keypoints: KeypointSpec = COCO_KEYPOINTS) -> ModelSpec:
    """Describe a network that is about to be trained."""
    levels = mdpose_levels(config.levels)
    return ModelSpec(
        family="mdpose",
        network={**asdict(config), "levels": list(config.levels)},  # as JSON gives it back
        input=input_spec,
        levels=levels,
        keypoints=keypoints,
        outputs=head_output_names(levels),
        provenance=Provenance(toolkit_version=__version__),
    )


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
        if source.op != "call_module" or not isinstance(modules[source.target], nn.Conv2d) or len(source.users) > 1:
            continue
        norm = modules[node.target]
        module.set_submodule(source.target, fuse_conv_bn_eval(modules[source.target], norm))
        module.set_submodule(node.target, norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity())


class _BatchNormTracer(fx.Tracer):
    """Sees every batch norm as one node: timm's, which holds the activation too, would be traced into."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.BatchNorm2d) or super().is_leaf_module(m, module_qualified_name)


def _backbone(name: str, pretrained: bool | str) -> nn.Module:
    indices = _feature_indices(name)
    options = pretrained_options(name, pretrained)
    try:
        backbone: nn.Module = timm.create_model(name, features_only=True, out_indices=indices, **options)
    except (OSError, RuntimeError) as error:  # the download broke off
        raise unreachable(name, error) from error
    if pretrained:
        _to_bgr(backbone)
    return backbone


def _feature_indices(name: str) -> list[int]:
    """Find the feature maps of strides 8, 16 and 32 of a timm backbone."""
    expected, do = "a timm backbone with features at strides 8, 16 and 32", "choose another; the default is dla34"
    try:
        info: Any = timm.create_model(name, features_only=True, pretrained=False).feature_info
        index_of = dict(zip(info.reduction(), info.out_indices, strict=True))
    except (RuntimeError, AttributeError) as error:  # no such model; no feature maps
        raise ConfigError("network.backbone", expected=expected, got=f"{name} ({error})", do=do) from error
    if not {8, 16, 32} <= index_of.keys():
        offered = ", ".join(map(str, sorted(index_of)))
        raise ConfigError("network.backbone", expected=expected, got=f"{name} with strides {offered}", do=do)
    return [index_of[stride] for stride in (8, 16, 32)]


def _to_bgr(backbone: nn.Module) -> None:
    """Reorder the stem of a network trained on RGB, so that no graph has to swap channels."""
    stem = next(m for m in backbone.modules() if isinstance(m, nn.Conv2d))
    with torch.no_grad():
        stem.weight.copy_(stem.weight.flip(1))


def _keep_channels(conv: nn.Conv2d, count: int) -> None:
    """Cut all but the first output channels, in place."""
    assert conv.bias is not None
    conv.weight = nn.Parameter(conv.weight.detach()[:count].clone())
    conv.bias = nn.Parameter(conv.bias.detach()[:count].clone())
    conv.out_channels = count
