"""The network of adaptive keypoints: a backbone, its maps joined at stride 4, heat maps and offsets.

Two structures: "dekr", of the CVPR paper, where each keypoint's offsets have channels and adaptive blocks of their own;
and "guided", of the journal article, where heat maps, of adaptive blocks themselves, guide one head for all offsets.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mdpose_edge.common.strict import read_dataclass
from mdpose_edge.errors import ConfigError
from mdpose_edge.families.adaptive.blocks import AdaptiveBlock, AdaptiveConv, BasicBlock, Kind, transition
from mdpose_edge.families.adaptive.heads import STRIDE, adaptive_spec
from mdpose_edge.families.backbone import FinestLevel, InputNormalization, fold_batch_norm, make_backbone
from mdpose_edge.families.same_padding import make_padding_static
from mdpose_edge.spec import COCO_KEYPOINTS, InputSpec, KeypointSpec, ModelSpec

STRIDES = (4, 8, 16, 32)
"""Of the backbone's feature maps."""
DILATIONS = (1, 2, 3)
"""Of the adaptive blocks beside one another whose mean the heat maps are read from, where these are adaptive."""


@dataclass(frozen=True)
class NetworkConfig:
    """The network's options; the defaults are DEKR's with HRNet-W32."""

    backbone: str = "hrnet_w32"
    """A timm model name that supports `features_only` and offers strides 4, 8, 16 and 32."""
    neck: Literal["concat", "pyramid"] = "concat"
    """concat: all maps upsampled to stride 4, side by side, as the authors do with HRNet. pyramid: added up from the
    coarsest, for backbones whose fine maps know little."""
    channels: int = 64
    """Width of the pyramid; the other neck has the backbone's."""
    structure: Literal["dekr", "guided"] = "dekr"
    adaptive: Kind = "sample"
    """How adaptive convolutions are made: see `blocks.Kind`."""
    guidance: bool = True
    """guided: the heat maps go into the head of the offsets."""
    heat_channels: int = 32
    """Width of the heat maps' head."""
    channels_per_keypoint: int = 15
    """dekr: width of each keypoint's own part of the offsets' head."""
    pose_channels: int = 256
    """guided: width of the offsets' head."""

    def __post_init__(self) -> None:
        for name in ("channels", "heat_channels", "channels_per_keypoint", "pose_channels"):
            if getattr(self, name) < 1:
                got = str(getattr(self, name))
                raise ConfigError(f"network.{name}", expected="at least 1", got=got, do="raise it")


class Concat(nn.Module):
    """All maps bilinearly upsampled to the finest, side by side, finest first."""

    def __init__(self) -> None:
        super().__init__()
        # Constant scales, not sizes, so that ONNX holds Resize with constant scales (TensorRT 8.5, NVDLA).
        self.upsample = nn.ModuleList(
            nn.Upsample(scale_factor=float(stride // STRIDES[0]), mode="bilinear", align_corners=False)
            for stride in STRIDES[1:]
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map feature maps, finest first, to one."""
        coarser = [up(feature) for up, feature in zip(self.upsample, features[1:], strict=True)]
        return torch.cat([features[0], *coarser], dim=1)


class DekrHeads(nn.Module):
    """Plain heat maps, and offsets by groups of channels, one a keypoint."""

    def __init__(self, in_channels: int, config: NetworkConfig, count: int, cells: tuple[int, int]) -> None:
        super().__init__()
        width, each = config.heat_channels, config.channels_per_keypoint
        self.heat_stem = nn.Sequential(transition(in_channels, width), BasicBlock(width))
        self.heat, self.centre = nn.Conv2d(width, count, 1), nn.Conv2d(width, 1, 1)
        self.offset_stem = transition(in_channels, count * each)
        self.offset_blocks = nn.Sequential(
            *(AdaptiveBlock(config.adaptive, count * each, cells, count=1, groups=count) for _ in range(2))
        )
        self.offset = nn.Conv2d(count * each, 2 * count, 1, groups=count)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Map (N, C, rows, columns) to the head tensors by name."""
        heat = self.heat_stem(features)
        pose = self.offset_blocks(self.offset_stem(features))
        return {"heat": self.heat(heat), "centre": self.centre(heat), "offset": self.offset(pose)}


class GuidedHeads(nn.Module):
    """Heat maps of adaptive blocks of three dilations, and offsets and centres that are told of them."""

    def __init__(self, in_channels: int, config: NetworkConfig, count: int, cells: tuple[int, int]) -> None:
        super().__init__()
        width, wide = config.heat_channels, config.pose_channels
        dilations = DILATIONS if config.adaptive == "sample" else (1,)  # a bank has its own
        self.heat_stem = transition(in_channels, width)
        self.heat_blocks = nn.ModuleList(
            AdaptiveBlock(config.adaptive, width, cells, count=2, dilation=dilation) for dilation in dilations
        )
        self.heat = nn.Conv2d(width, count, 1)
        self.guidance = config.guidance
        self.pose_stem = transition(in_channels + count * config.guidance, wide)
        self.pose_block = AdaptiveBlock(config.adaptive, wide, cells, count=2)
        self.offset, self.centre = nn.Conv2d(wide, 2 * count, 1), nn.Conv2d(wide, 1, 1)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Map (N, C, rows, columns) to the head tensors by name."""
        stem = self.heat_stem(features)
        found = [block(stem) for block in self.heat_blocks]
        # The authors average the maps of all blocks; the last convolution, which they share, is linear.
        mean = found[0] if len(found) == 1 else (found[0] + found[1] + found[2]) / len(found)
        heat = self.heat(mean)
        pose = self.pose_block(self.pose_stem(torch.cat([features, heat], dim=1) if self.guidance else features))
        return {"heat": heat, "centre": self.centre(pose), "offset": self.offset(pose)}


class AdaptiveNetwork(nn.Module):
    """uint8 images to raw head tensors by name.

    Args:
        spec: input and head tensors; `spec.network` holds the NetworkConfig.
        pretrained: load the backbone's ImageNet weights through timm; text names the file that holds them.

    Raises:
        ConfigError: timm has no such backbone, it lacks the strides, or its weights cannot be had.
    """

    def __init__(self, spec: ModelSpec, *, pretrained: bool | str = False) -> None:
        super().__init__()
        config, count = network_config(spec), len(spec.keypoints.names)
        self.normalize = InputNormalization(spec.input)
        self.backbone = make_backbone(config.backbone, pretrained, STRIDES, branches=is_hrnet(config.backbone))
        feature_info: Any = self.backbone.feature_info
        widths = feature_info.channels()
        self.pyramid: nn.Module = Concat() if config.neck == "concat" else FinestLevel(widths, config.channels)
        in_channels = sum(widths) if config.neck == "concat" else config.channels
        make_heads = DekrHeads if config.structure == "dekr" else GuidedHeads
        self.heads = make_heads(in_channels, config, count, spec.cells(STRIDE))
        for name in ("heat", "centre", "offset"):
            conv = getattr(self.heads, name)
            nn.init.normal_(conv.weight, std=0.001)
            nn.init.zeros_(conv.bias)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Run the network.

        Args:
            images: (N, H, W, 3) uint8, BGR, of the spec's size.

        Returns:
            The head tensors by name, raw.
        """
        tensors: dict[str, Tensor] = self.heads(self.pyramid(self.backbone(self.normalize(images))))
        return tensors


class DeployedNetwork(nn.Module):
    """The network for export: batch norms and places folded, outputs as a flat tuple, no gradients."""

    def __init__(self, network: AdaptiveNetwork, spec: ModelSpec) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval().float()
        self.outputs = spec.outputs
        fold_batch_norm(self.network.backbone)
        fold_batch_norm(self.network.heads)
        for module in self.network.heads.modules():
            if isinstance(module, AdaptiveConv):
                module.fold()
        device = self.network.normalize.mean.device
        blank = torch.zeros(1, spec.input.height, spec.input.width, 3, dtype=torch.uint8, device=device)
        with torch.no_grad():
            make_padding_static(self.network.backbone, lambda: self.network(blank))
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the head tensors in the order of `ModelSpec.outputs`."""
        tensors = self.network(images)
        return tuple(tensors[name] for name in self.outputs)


def is_hrnet(backbone: str) -> bool:
    """Return whether a backbone's own branches are wanted, rather than the widths of its classifier."""
    return backbone.startswith("hrnet_")


def network_config(spec: ModelSpec) -> NetworkConfig:
    """Read the network's options from a spec, strictly."""
    return read_dataclass(NetworkConfig, spec.network, where="network", error=ConfigError, defaults=True)


def make_spec(config: NetworkConfig, input_spec: InputSpec, keypoints: KeypointSpec = COCO_KEYPOINTS) -> ModelSpec:
    """Return the spec of a network that is about to be trained.

    Raises:
        ConfigError: the input is no multiple of the coarsest stride, or there is no keypoint.
    """
    for axis in ("height", "width"):
        size = getattr(input_spec, axis)
        if size % STRIDES[-1]:
            do = f"use {max(1, round(size / STRIDES[-1])) * STRIDES[-1]}"
            raise ConfigError(f"input.{axis}", expected=f"a multiple of {STRIDES[-1]}", got=str(size), do=do)
    if not keypoints.names:
        raise ConfigError("data.keypoints", expected="at least one keypoint", got="none", do="name a keypoint set")
    return adaptive_spec(input_spec, keypoints, network=asdict(config))


def cell_count(spec: ModelSpec) -> int:
    """Return how many cells a head tensor has."""
    return math.prod(spec.cells(STRIDE))
