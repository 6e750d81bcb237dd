"""The network of distribution-aware 3-D pose: backbone, feature pyramid, three towers that all levels share.

The authors' towers have group norm and deformable convolutions; these are convolutions and SiLU alone. The recursive
update is the decoder's: the graph has no GridSample.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mdpose_edge.common.strict import read_dataclass
from mdpose_edge.errors import ConfigError
from mdpose_edge.families.backbone import FeaturePyramid, InputNormalization, fold_batch_norm, make_backbone
from mdpose_edge.families.das.flow import RealNVP
from mdpose_edge.families.das.heads import (
    MOST_UPDATES,
    Constants,
    DepthForm,
    constants_of,
    das_spec,
    pyramid,
)
from mdpose_edge.families.same_padding import make_padding_static
from mdpose_edge.families.solid import root_of
from mdpose_edge.spec import COCO_KEYPOINTS, InputSpec, KeypointSpec, ModelSpec

KNOWN_LEVELS = ("p3", "p4", "p5", "p6", "p7")
FIRST_SCORE = 0.01
"""Of a cell: nearly all speak for nobody (Lin et al., ICCV 2017)."""
FIRST_DEPTH_M = 5.0
"""Of a root, at a camera of an ordinary field of view."""
FIRST_FOCAL = 1.4
"""Of that camera, over the input's longer side."""
TOWERS = {"score": ("o",), "place": ("c", "depth"), "pose": ("uv", "dz", "sigma")}
"""Which head tensors come of which tower."""
SCALED = ("depth", "uv", "dz")
"""Each level has a factor of its own on these."""
FLOWS = {"first_3": 3, "first_2": 2, "last_3": 3, "last_2": 2}
"""Flows of errors before and after the update, by dimensions."""
STATE = 7
"""Of the likelihood: passes so far, and running means of absolute errors and scales in u, v and depth."""


@dataclass(frozen=True)
class NetworkConfig:
    """The network's options; the defaults are the paper's, with ResNet-50."""

    backbone: str = "resnet50"
    """A timm model name that supports `features_only` and offers strides 8, 16 and 32."""
    levels: tuple[str, ...] = ("p3", "p4", "p5", "p6")
    """Pyramid levels in use, finest first; p6 and p7 are made by stride-2 convolutions."""
    channels: int = 256
    """Width of the pyramid and of the towers."""
    head_convs: int = 3
    """3x3 convolutions in each tower, the output convolution included."""
    updates: int = 1
    """Recursive updates of the joints, 0 to 3."""
    depth: DepthForm = "log"
    """How the root's depth is learned; linear: as in the paper."""

    def __post_init__(self) -> None:
        if self.channels < 1 or self.head_convs < 1:
            expected = "channels and head_convs of at least 1"
            raise ConfigError("network", expected=expected, got=str(self), do="raise them")
        if self.levels[:3] != KNOWN_LEVELS[:3] or self.levels != KNOWN_LEVELS[: len(self.levels)]:
            expected = "p3, p4, p5, then optionally p6, p7"
            raise ConfigError("network.levels", expected=expected, got=str(self.levels), do="list them so")
        if not 0 <= self.updates <= MOST_UPDATES:
            expected = f"a whole number in 0..{MOST_UPDATES}"
            raise ConfigError("network.updates", expected=expected, got=str(self.updates), do="change it")


class Outputs(NamedTuple):
    """What the network gives in training; an engine has `heads` alone."""

    heads: dict[str, Tensor]
    """Head tensors by name, raw."""
    flows: dict[str, dict[str, Tensor]]
    """Parameters of the flows."""
    state: Tensor
    """(STATE,) of the likelihood; the loss keeps it."""


class Heads(nn.Module):
    """Towers and last convolutions, which all levels share, and each level's factors."""

    def __init__(self, config: NetworkConfig, num_keypoints: int) -> None:
        super().__init__()
        widths = {"o": 1, "c": 1, "depth": 1, "uv": 2 * num_keypoints, "dz": num_keypoints, "sigma": 3 * num_keypoints}
        self.towers = nn.ModuleDict({name: _tower(config.channels, config.head_convs - 1) for name in TOWERS})
        self.last = nn.ModuleDict(
            {kind: nn.Conv2d(config.channels, count, 3, padding=1) for kind, count in widths.items()}
        )
        self.factors = nn.ParameterDict({kind: nn.Parameter(torch.ones(len(config.levels))) for kind in SCALED})

    def forward(self, level: int, features: Tensor) -> dict[str, Tensor]:
        """Map (N, C, H, W) of a level to its head tensors by kind."""
        found = {}
        for tower, kinds in TOWERS.items():
            x = self.towers[tower](features)
            for kind in kinds:
                raw = self.last[kind](x)
                found[kind] = raw * self.factors[kind][level] if kind in SCALED else raw
        return found

    def bias(self, kind: str, value: float) -> None:
        """Set what a kind of head tensor begins at."""
        conv = self.last[kind]
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        nn.init.normal_(conv.weight, std=0.01)
        nn.init.constant_(conv.bias, value)


class DASNetwork(nn.Module):
    """uint8 images to raw head tensors.

    Args:
        spec: input, levels and keypoints; `spec.network` holds the NetworkConfig.
        pretrained: load the backbone's ImageNet weights through timm; text names the file that holds them.

    Raises:
        ConfigError: timm has no such backbone, it lacks the strides, or its weights cannot be had.
    """

    state: Tensor

    def __init__(self, spec: ModelSpec, *, pretrained: bool | str = False) -> None:
        super().__init__()
        config, constants = network_config(spec), constants_of(spec)
        self.levels = tuple(level.name for level in constants.levels)
        self.normalize = InputNormalization(spec.input)
        self.backbone = make_backbone(config.backbone, pretrained)
        feature_info: Any = self.backbone.feature_info
        self.pyramid = FeaturePyramid(feature_info.channels(), config.channels, len(self.levels) - 3)
        self.heads = Heads(config, len(spec.keypoints.names))
        self.heads.bias("o", -math.log(1 / FIRST_SCORE - 1))
        depth = FIRST_DEPTH_M * constants.reference_focal / (FIRST_FOCAL * max(spec.input.height, spec.input.width))
        self.heads.bias("depth", math.log(depth) if constants.depth == "log" else depth)
        self.flows = nn.ModuleDict({name: RealNVP(dimensions) for name, dimensions in FLOWS.items()})
        self.register_buffer("state", torch.zeros(STATE))

    def head_tensors(self, images: Tensor) -> dict[str, Tensor]:
        """Map (N, H, W, 3) uint8 BGR images to the head tensors by name."""
        found = {}
        for index, features in enumerate(self.pyramid(self.backbone(self.normalize(images)))):
            for kind, tensor in self.heads(index, features).items():
                found[f"{kind}_{self.levels[index]}"] = tensor
        return found

    def forward(self, images: Tensor) -> Outputs:
        """Run the network; see `head_tensors`."""
        flows: dict[str, dict[str, Tensor]] = {name: dict(flow.named_parameters()) for name, flow in self.flows.items()}
        return Outputs(self.head_tensors(images), flows, self.state)


class LevelHeads(nn.Module):
    """The same for export: a level's factors are in the weights of its last convolutions."""

    def __init__(self, heads: Heads, levels: int) -> None:
        super().__init__()
        self.towers, self.last = heads.towers, nn.ModuleDict({k: heads.last[k] for k in heads.last if k not in SCALED})
        self.scaled = nn.ModuleDict(
            {kind: nn.ModuleList(_scaled(heads, kind, level) for level in range(levels)) for kind in SCALED}
        )

    def forward(self, level: int, features: Tensor) -> dict[str, Tensor]:
        """See `Heads`."""
        found = {}
        for tower, kinds in TOWERS.items():
            x = self.towers[tower](features)
            for kind in kinds:
                found[kind] = self._last(kind, level)(x)
        return found

    def _last(self, kind: str, level: int) -> nn.Module:
        if kind not in SCALED:
            return self.last[kind]
        convs = self.scaled[kind]
        assert isinstance(convs, nn.ModuleList)
        return convs[level]


class DeployedNetwork(nn.Module):
    """The network for export: batch norms and factors folded, no flows, outputs as a flat tuple, without gradients."""

    def __init__(self, network: DASNetwork, spec: ModelSpec) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval().float()
        del self.network.flows
        self.network.heads = LevelHeads(self.network.heads, len(network.levels))  # type: ignore[assignment]
        self.outputs = spec.outputs
        fold_batch_norm(self.network.backbone)
        device = self.network.normalize.mean.device
        blank = torch.zeros(1, spec.input.height, spec.input.width, 3, dtype=torch.uint8, device=device)
        with torch.no_grad():
            make_padding_static(self.network.backbone, lambda: self.network.head_tensors(blank))
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the head tensors in the order of `ModelSpec.outputs`."""
        tensors = self.network.head_tensors(images)
        return tuple(tensors[name] for name in self.outputs)


def network_config(spec: ModelSpec) -> NetworkConfig:
    """Read the network's options from a spec, strictly."""
    return read_dataclass(NetworkConfig, spec.network, where="network", error=ConfigError, defaults=True)


def make_spec(config: NetworkConfig, input_spec: InputSpec, keypoints: KeypointSpec = COCO_KEYPOINTS) -> ModelSpec:
    """Return the spec of a network that is about to be trained.

    Raises:
        ConfigError: the input is no multiple of the coarsest stride, or the keypoints have no root.
    """
    levels = pyramid(input_spec, config.levels)
    for axis in ("height", "width"):
        size, stride = getattr(input_spec, axis), levels[-1].stride
        if size % stride:
            do = f"use {max(1, round(size / stride)) * stride}"
            raise ConfigError(f"input.{axis}", expected=f"a multiple of {stride}", got=str(size), do=do)
    constants = Constants(levels, root_of(keypoints), depth=config.depth, updates=config.updates)
    return das_spec(input_spec, constants, keypoints, network_options(config))


def network_options(config: NetworkConfig) -> Mapping[str, Any]:
    """Return the options as JSON gives them back."""
    return {**asdict(config), "levels": list(config.levels)}


def _tower(channels: int, convs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(convs):
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.SiLU()]
    return nn.Sequential(*layers)


def _scaled(heads: Heads, kind: str, level: int) -> nn.Conv2d:
    conv = copy.deepcopy(heads.last[kind])
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    factor = heads.factors[kind].detach()[level]
    conv.weight = nn.Parameter(conv.weight.detach() * factor)
    conv.bias = nn.Parameter(conv.bias.detach() * factor)
    return conv
