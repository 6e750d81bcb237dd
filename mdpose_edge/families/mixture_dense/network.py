"""The network of mixture dense regression: a backbone, a pyramid down to stride 4, a branch for each kind of output.

The authors' DLA-34 goes up by deformable and transposed convolutions, which TensorRT 8.5 and NVDLA do not have; here it
is nearest upsampling and 1x1 convolutions. What is left to the device is convolutions, SiLU, additions and upsampling.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mdpose_edge.common.strict import read_dataclass
from mdpose_edge.errors import ConfigError
from mdpose_edge.families.backbone import FinestLevel, InputNormalization, fold_batch_norm, make_backbone
from mdpose_edge.families.hourglass import HOURGLASSES, make_hourglass
from mdpose_edge.families.mixture_dense.heads import (
    MOST_COMPONENTS,
    STRIDE,
    Constants,
    constants_of,
    mixture_dense_spec,
)
from mdpose_edge.families.same_padding import make_padding_static
from mdpose_edge.spec import COCO_KEYPOINTS, NO_KEYPOINTS, InputSpec, KeypointSpec, ModelSpec

STRIDES = (4, 8, 16, 32)
"""Of the backbone's feature maps."""
FIRST_SCORE_BIAS = -2.19
"""Scores of centres and keypoints begin at 0.1 (CenterNet), since nearly all cells are empty."""
FIRST_SPREAD = 1 / 4
"""The components' spread s begins at this part of the input's longer side, near where it ends (the paper: 58 to 76
cells of 128 at 512 px): from the floor up, the first steps would be spent on it alone."""


@dataclass(frozen=True)
class NetworkConfig:
    """The network's options; the defaults are the paper's, with DLA-34."""

    backbone: str = "dla34"
    """A timm model name that supports `features_only` and offers strides 4, 8, 16 and 32; or hourglass104, the paper's
    for poses, whose stacks all learn."""
    channels: int = 64
    """Width of the stride-4 map that a timm backbone's are joined to."""
    head_channels: int = 256
    """Width of each branch's 3x3 convolution."""
    components: int = 3
    """M, 1 to 5: alternatives at each centre."""
    sigma_floor: float = 1.0
    """Cells: see `heads.Constants`; smaller where the input is."""
    heatmaps: bool = True
    """Learn a heat map of each keypoint, which refines the poses; false of boxes."""

    def __post_init__(self) -> None:
        if self.channels < 1 or self.head_channels < 1:
            raise ConfigError(
                "network", expected="channels and head_channels of at least 1", got=str(self), do="raise them"
            )
        if not 1 <= self.components <= MOST_COMPONENTS:
            expected = f"a whole number in 1..{MOST_COMPONENTS}"
            raise ConfigError("network.components", expected=expected, got=str(self.components), do="change it")
        if not 0 <= self.sigma_floor <= 100:
            got = str(self.sigma_floor)
            raise ConfigError("network.sigma_floor", expected="a number in [0, 100]", got=got, do="change it")


FIRST_BOX_SPREAD = 1 / 16
"""Likewise, of the sizes of boxes, whose constant is 1."""


class Branch(nn.Module):
    """A 3x3 convolution, and a 1x1 convolution for each head tensor that comes of it."""

    def __init__(self, in_channels: int, channels: int, outputs: dict[str, int], activation: nn.Module) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1), activation)
        self.last = nn.ModuleDict({name: nn.Conv2d(channels, count, 1) for name, count in outputs.items()})

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Map (N, C, H, W) to head tensors by name."""
        x = self.tower(features)
        return {name: conv(x) for name, conv in self.last.items()}


class Branches(nn.ModuleDict):
    """All branches of one map of stride 4: by the kind of what they give."""

    def __init__(self, in_channels: int, config: NetworkConfig, spec: ModelSpec) -> None:
        kinds: dict[str, dict[str, int]] = {}
        for head in spec.heads:
            kind, _, number = head.name.rpartition("_")
            kinds.setdefault(kind if number.isdigit() else head.name, {})[head.name] = head.channels
        activation = nn.ReLU() if config.backbone in HOURGLASSES else nn.SiLU()
        super().__init__(
            {kind: Branch(in_channels, config.head_channels, outputs, activation) for kind, outputs in kinds.items()}
        )
        self._begin(spec)

    def _begin(self, spec: ModelSpec) -> None:
        """Set what the last biases begin at."""
        share = FIRST_SPREAD if spec.keypoints.names else FIRST_BOX_SPREAD
        spread = share * max(spec.input.height, spec.input.width) / STRIDE
        raw = spread - 1.0 - constants_of(spec).sigma_floor
        first = {"centre": FIRST_SCORE_BIAS, "heat": FIRST_SCORE_BIAS, "sigma": raw if raw > 0 else 0.0}
        for kind, branch in self.items():
            assert isinstance(branch, Branch)
            for conv in branch.last.values():
                assert isinstance(conv, nn.Conv2d) and conv.bias is not None
                if kind in first:
                    nn.init.normal_(conv.weight, std=0.001)
                nn.init.constant_(conv.bias, first.get(kind, 0.0))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Map (N, C, H, W) to all head tensors by name."""
        return {name: tensor for branch in self.values() for name, tensor in branch(features).items()}


class MixtureDenseNetwork(nn.Module):
    """uint8 images to raw head tensors by name.

    Args:
        spec: input and head tensors; `spec.network` holds the NetworkConfig.
        pretrained: load the backbone's ImageNet weights through timm; text names the file that holds them.

    Raises:
        ConfigError: timm has no such backbone, it lacks the strides, or its weights cannot be had.
    """

    def __init__(self, spec: ModelSpec, *, pretrained: bool | str = False) -> None:
        super().__init__()
        config = network_config(spec)
        self.normalize = InputNormalization(spec.input)
        self.backbone: nn.Module
        self.pyramid: nn.Module
        if config.backbone in HOURGLASSES:
            shape = HOURGLASSES[config.backbone]
            self.backbone, self.pyramid = make_hourglass(config.backbone, pretrained), nn.Identity()
            channels, stacks = shape.channels, shape.stacks
        else:
            self.backbone = make_backbone(config.backbone, pretrained, STRIDES)
            feature_info: Any = self.backbone.feature_info
            self.pyramid = FinestLevel(feature_info.channels(), config.channels)
            channels, stacks = config.channels, 1
        self.branches = nn.ModuleList(Branches(channels, config, spec) for _ in range(stacks))

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Run the network.

        Args:
            images: (N, H, W, 3) uint8, BGR, of the spec's size.

        Returns:
            The head tensors by name, raw, of each stack; the last is what counts, the others learn the same.
        """
        found = self.pyramid(self.backbone(self.normalize(images)))
        maps = found if isinstance(found, list) else [found]
        return [branches(one) for branches, one in zip(self.branches, maps[-len(self.branches) :], strict=True)]


class DeployedNetwork(nn.Module):
    """The network for export: batch norms folded, the last stack's outputs as a flat tuple, without gradients."""

    def __init__(self, network: MixtureDenseNetwork, spec: ModelSpec) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval().float()
        self.network.branches = self.network.branches[-1:]
        self.outputs = spec.outputs
        fold_batch_norm(self.network.backbone)
        device = self.network.normalize.mean.device
        blank = torch.zeros(1, spec.input.height, spec.input.width, 3, dtype=torch.uint8, device=device)
        with torch.no_grad():
            make_padding_static(self.network.backbone, lambda: self.network(blank))
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the head tensors in the order of `ModelSpec.outputs`."""
        (tensors,) = self.network(images)
        return tuple(tensors[name] for name in self.outputs)


def network_config(spec: ModelSpec) -> NetworkConfig:
    """Read the network's options from a spec, strictly."""
    return read_dataclass(NetworkConfig, spec.network, where="network", error=ConfigError, defaults=True)


def make_spec(config: NetworkConfig, input_spec: InputSpec, keypoints: KeypointSpec = COCO_KEYPOINTS) -> ModelSpec:
    """Return the spec of a network that is about to be trained.

    Raises:
        ConfigError: the input is no multiple of the coarsest stride, to which each map is half of the one before.
    """
    _check_input(config, input_spec)
    if not keypoints.names:
        raise ConfigError("data.keypoints", expected="at least one keypoint", got="none", do="name a keypoint set")
    constants = Constants(config.components, float(config.sigma_floor), config.heatmaps)
    return mixture_dense_spec(input_spec, constants, keypoints, asdict(config))


def make_box_spec(config: NetworkConfig, input_spec: InputSpec, classes: tuple[str, ...]) -> ModelSpec:
    """Return the spec of a network of boxes of these classes that is about to be trained.

    Raises:
        ConfigError: as of `make_spec`, or heat maps of keypoints are asked for.
    """
    _check_input(config, input_spec)
    if config.heatmaps:
        do = "set it to false"
        raise ConfigError("network.heatmaps", expected="false, of boxes without keypoints", got="true", do=do)
    constants = Constants(config.components, float(config.sigma_floor), heatmaps=False)
    return mixture_dense_spec(input_spec, constants, NO_KEYPOINTS, asdict(config), classes)


def _check_input(config: NetworkConfig, input_spec: InputSpec) -> None:
    shape = HOURGLASSES.get(config.backbone)
    stride = STRIDES[-1] if shape is None else shape.coarsest_stride
    for axis in ("height", "width"):
        size = getattr(input_spec, axis)
        if size % stride:
            do = f"use {max(1, round(size / stride)) * stride}"
            raise ConfigError(f"input.{axis}", expected=f"a multiple of {stride}", got=str(size), do=do)


def cell_count(spec: ModelSpec) -> int:
    """Return how many cells a head tensor has."""
    return math.prod(spec.cells(STRIDE))
