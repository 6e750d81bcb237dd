"""Adaptive keypoints as the trainer and the exporter see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mdpose_edge.errors import ConfigError
from mdpose_edge.families.adaptive import fitting
from mdpose_edge.families.adaptive.loss import at_least_float32, heat_loss, offset_loss
from mdpose_edge.families.adaptive.network import (
    AdaptiveNetwork,
    DeployedNetwork,
    NetworkConfig,
    cell_count,
    make_spec,
    network_config,
)
from mdpose_edge.families.adaptive.targets import TargetOptions, encode_people
from mdpose_edge.families.base import Finished, FitImage, Loss, People
from mdpose_edge.spec import InputSpec, KeypointSpec, ModelSpec


@dataclass(frozen=True)
class LossConfig(TargetOptions):
    """The loss's options; the defaults are those of the authors' codes."""

    heat_weight: float = 1.0
    centre_weight: float = 1.0
    offset_weight: float = 0.03
    """DEKR's; the journal article has 0.01."""
    background: float = 0.1
    """Weight of a heat map's cells far from its keypoints: the trade-off loss; 1 is without."""
    scorer: bool = True
    """Train the scoring net once the network is trained."""
    fit_images: int = 20000
    """Training images, at most, for the scoring net and the table of standard deviations; 0: neither."""

    def __post_init__(self) -> None:
        limits = {
            **dict.fromkeys(("heat_weight", "centre_weight", "offset_weight"), (0.0, 100.0)),
            "background": (0.0, 1.0), "heat_sigma": (0.3, 20.0), "centre_sigma": (0.3, 20.0),
            "offset_radius": (0.5, 50.0), "least_side": (0.0, 1000.0), "fit_images": (0, 10**9),
        }  # fmt: skip
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                got = str(getattr(self, name))
                raise ConfigError(f"loss.{name}", expected=f"a number in [{low:g}, {high:g}]", got=got, do="change it")


class AdaptiveTraining:
    """See `families.base.Training` and `Finishing`."""

    network_config = NetworkConfig
    loss_config = LossConfig
    parts = ("heat", "centre", "offset")
    figures: Mapping[str, tuple[str, ...]] = {
        "mean height of the maps where they should be highest": ("heat_at_keypoints", "heat_at_centres")
    }

    def make_spec(self, config: NetworkConfig, input_spec: InputSpec, keypoints: KeypointSpec) -> ModelSpec:
        """See `Training`."""
        return make_spec(config, input_spec, keypoints)

    def check_loss(self, spec: ModelSpec, config: LossConfig) -> None:
        """Every loss fits every model."""

    def counts_everybody(self, config: LossConfig) -> bool:
        """Return false: people without keypoints, and crowds, are regions of which nothing is known."""
        return False

    def encode(self, people: People, spec: ModelSpec, config: LossConfig) -> dict[str, NDArray[Any]]:
        """See `Training` and targets.encode_people."""
        return encode_people(people, spec, config)

    def network(
        self, spec: ModelSpec, loss: LossConfig | None = None, *, pretrained: bool | str = False
    ) -> AdaptiveNetwork:
        """See `Training`."""
        return AdaptiveNetwork(spec, pretrained=pretrained)

    def count(self, targets: Mapping[str, Tensor]) -> int:
        """Return how many images there are: losses are means over an image's cells."""
        return len(targets["centre"])

    def loss(
        self,
        outputs: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        spec: ModelSpec,
        config: LossConfig,
        generator: torch.Generator,
        *,
        measure: bool = False,
    ) -> Loss:
        """See `Training`; there is no chance in it."""
        raw = {name: at_least_float32(tensor) for name, tensor in outputs.items()}
        heat, centre, known = targets["heat"], targets["centre"][:, None], targets["known"][:, None]
        # The authors take the mean over all maps, the centres' being one of them.
        values = (heat.shape[1] + 1) * heat.shape[2] * heat.shape[3]
        parts = {
            "heat": config.heat_weight * heat_loss(raw["heat"], heat, known, config.background) / values,
            "centre": config.centre_weight * heat_loss(raw["centre"], centre, known, config.background) / values,
            "offset": config.offset_weight
            * offset_loss(raw["offset"], targets["place"], targets["offset"], targets["weight"]),
        }
        return Loss(parts, _heights(raw, heat, centre) if measure else {})

    def heads(self, outputs: Mapping[str, Tensor], spec: ModelSpec) -> tuple[Tensor, ...]:
        """See `Training`."""
        return tuple(outputs[name] for name in spec.outputs)

    def deployed(self, network: nn.Module, spec: ModelSpec) -> DeployedNetwork:
        """See `Training`."""
        assert isinstance(network, AdaptiveNetwork)
        return DeployedNetwork(network, spec)

    def for_input(self, weights: Mapping[str, Tensor], old: InputSpec, new: InputSpec) -> dict[str, Tensor]:
        """Return the weights as they are: head tensors are in cells, that is in pixels, of whatever input."""
        return dict(weights)

    def summary(self, spec: ModelSpec) -> dict[str, str]:
        """See `Training`."""
        config = network_config(spec)
        return {"head": f"{config.structure}, {config.adaptive}", "cells": f"{cell_count(spec):,}"}

    def fit_images(self, config: LossConfig) -> int:
        """See `Finishing`."""
        return config.fit_images

    def finish(self, spec: ModelSpec, images: Iterable[FitImage], config: LossConfig, seed: int) -> Finished:
        """See `Finishing` and fitting.finish."""
        return fitting.finish(spec, images, seed, scorer=config.scorer)


@torch.no_grad()
def _heights(raw: Mapping[str, Tensor], heat: Tensor, centre: Tensor) -> dict[str, float]:
    """Return the mean height at the peaks that the targets have; NaN where there are none."""
    return {
        "heat_at_keypoints": raw["heat"][heat > 0.8].mean().item(),
        "heat_at_centres": raw["centre"][centre > 0.8].mean().item(),
    }


FAMILY = AdaptiveTraining()
