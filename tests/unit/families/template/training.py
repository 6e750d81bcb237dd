"""The torch half of the family for tests."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mdpose_edge import __version__
from mdpose_edge.families.backbone import InputNormalization, fold_batch_norm, make_backbone
from mdpose_edge.families.base import Loss, People
from mdpose_edge.spec import InputSpec, KeypointSpec, ModelSpec, Provenance
from tests.unit.families.template.decode import HEADS, STRIDE


@dataclass(frozen=True)
class NetworkConfig:
    backbone: str = "test_resnet"
    channels: int = 16


@dataclass(frozen=True)
class LossConfig:
    size_weight: float = 1.0


class TemplateNetwork(nn.Module):
    def __init__(self, spec: ModelSpec, pretrained: bool | str) -> None:
        super().__init__()
        self.normalize = InputNormalization(spec.input)
        self.backbone = make_backbone(spec.network["backbone"], pretrained)
        finest = self.backbone.feature_info.channels()[0]
        channels = spec.network["channels"]
        self.neck = nn.Sequential(
            nn.Conv2d(finest, channels, 3, padding=1), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.heads = nn.ModuleList(nn.Conv2d(channels, head.channels, 1) for head in HEADS)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = functional.silu(self.neck(self.backbone(self.normalize(images))[0]))
        return tuple(head(x) for head in self.heads)


class TemplateTraining:
    network_config, loss_config = NetworkConfig, LossConfig
    parts = ("centre", "size")
    figures = {"share of centres": ("centres",)}  # noqa: RUF012

    def make_spec(self, config: NetworkConfig, input_spec: InputSpec, keypoints: KeypointSpec) -> ModelSpec:
        heights = np.linspace(-0.9, 0.9, len(keypoints.names))
        constants = {"skeleton_xy": [[(-1) ** i * 0.3, float(y)] for i, y in enumerate(heights)]}
        provenance = Provenance(toolkit_version=__version__)
        return ModelSpec("template", asdict(config), input_spec, HEADS, constants, keypoints, provenance)

    def check_loss(self, spec: ModelSpec, config: LossConfig) -> None: ...

    def counts_everybody(self, config: LossConfig) -> bool:
        return False

    def encode(self, people: People, spec: ModelSpec, config: Any) -> dict[str, np.ndarray]:
        rows, columns = spec.cells(STRIDE)
        centre, size = np.zeros((1, rows, columns), np.float32), np.zeros((2, rows, columns), np.float32)
        column, row = (people.centers_xy // STRIDE).astype(int).T
        centre[0, row, column] = 1
        half = np.maximum(people.boxes_xyxy[:, 2:] - people.boxes_xyxy[:, :2], 1) / 2
        size[:, row, column] = np.log(half / STRIDE).T
        return {"centre": centre, "size": size}

    def network(self, spec: ModelSpec, loss: Any = None, *, pretrained: bool | str = False) -> nn.Module:
        return TemplateNetwork(spec, pretrained)

    def count(self, targets: Any) -> int:
        return int(targets["centre"].sum())

    def loss(
        self, outputs: Any, targets: Any, spec: ModelSpec, config: LossConfig, generator: Any, *, measure: bool = False
    ) -> Loss:
        centre, size = (output.float() for output in outputs)
        entropy = functional.binary_cross_entropy_with_logits(centre, targets["centre"], reduction="sum")
        error = (functional.smooth_l1_loss(size, targets["size"], reduction="none") * targets["centre"]).sum()
        parts = {"centre": entropy, "size": config.size_weight * error}
        return Loss(parts, {"centres": float(targets["centre"].mean())} if measure else {})

    def heads(self, outputs: Any, spec: ModelSpec) -> tuple[torch.Tensor, ...]:
        return tuple(outputs)

    def deployed(self, network: nn.Module, spec: ModelSpec) -> nn.Module:
        copied = copy.deepcopy(network).eval().float().requires_grad_(False)
        fold_batch_norm(copied.backbone)  # type: ignore[arg-type]
        return copied

    def for_input(self, weights: Any, old: InputSpec, new: InputSpec) -> dict[str, torch.Tensor]:
        return dict(weights)

    def summary(self, spec: ModelSpec) -> dict[str, str]:
        return {"channels": str(spec.network["channels"])}


FAMILY = TemplateTraining()
