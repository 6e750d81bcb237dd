"""The MDPose network: backbone, feature pyramid, and one head shared by all levels (Seo et al., UAI 2023, section 4).

It takes images as a camera gives them and returns raw head tensors; everything after (sigmoid, softplus, grid, scale)
belongs to the loss and to the decoder, which agree on it by heads.py.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from mdpose_edge.common.strict import read_dataclass
from mdpose_edge.errors import ConfigError
from mdpose_edge.families.backbone import (
    FeaturePyramid,
    InputNormalization,
    fold_batch_norm,
    keep_channels,
    make_backbone,
)
from mdpose_edge.families.mdpose.heads import constants_of, mdpose_spec
from mdpose_edge.families.same_padding import make_padding_static
from mdpose_edge.spec import COCO_KEYPOINTS, InputSpec, KeypointSpec, ModelSpec

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
    p6_from: Literal["p5", "c5"] = "p5"
    """What p6 is made of: the pyramid's level below, or, as in the authors' code, the backbone's map of that stride."""

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
        self.backbone = make_backbone(config.backbone, pretrained)
        extra = sum(int(name[1:]) >= FINEST_EXTRA_LEVEL for name in config.levels)
        feature_info: Any = self.backbone.feature_info
        self.pyramid = FeaturePyramid(
            feature_info.channels(), config.channels, extra, extra_from_backbone=config.p6_from == "c5"
        )
        joints = len(spec.keypoints.names) + auxiliary_center
        self.head = MixtureHead(config.channels, config.head_convs, 2 * joints)

    def expect_one_person(self, spec: ModelSpec) -> None:
        """Let o begin with a sum of about 1 over the cells of all levels, rather than half of their number."""
        cells = sum(math.prod(spec.cells(level.stride)) for level in constants_of(spec).levels)
        assert self.head.o.bias is not None
        nn.init.constant_(self.head.o.bias, -math.log(cells))

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
        device = self.network.normalize.mean.device
        blank = torch.zeros(1, spec.input.height, spec.input.width, 3, dtype=torch.uint8, device=device)
        with torch.no_grad():
            make_padding_static(self.network.backbone, lambda: self.network(blank))
        for conv in (self.network.head.mu, self.network.head.gamma):
            keep_channels(conv, 2 * len(spec.keypoints.names))
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the head tensors in the order of `ModelSpec.outputs`."""
        return tuple(tensor for level in self.network(images) for tensor in level)


def network_config(spec: ModelSpec) -> NetworkConfig:
    """Read the network's options from a spec, strictly."""
    return read_dataclass(NetworkConfig, spec.network, where="network", error=ConfigError, defaults=True)


def make_spec(config: NetworkConfig, input_spec: InputSpec, keypoints: KeypointSpec = COCO_KEYPOINTS) -> ModelSpec:
    """Return the spec of a network that is about to be trained."""
    network = {**asdict(config), "levels": list(config.levels)}  # as JSON gives it back
    return mdpose_spec(input_spec, keypoints, config.levels, network)
