"""Mixture dense regression as the trainer and the exporter see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mdpose_edge.errors import ConfigError
from mdpose_edge.families.base import Loss, People
from mdpose_edge.families.mixture_dense.heads import components_of, constants_of
from mdpose_edge.families.mixture_dense.loss import at_cells, at_least_float32, focal_loss, l1_loss, log_joint, spread
from mdpose_edge.families.mixture_dense.network import (
    DeployedNetwork,
    MixtureDenseNetwork,
    NetworkConfig,
    cell_count,
    make_box_spec,
    make_spec,
    network_config,
)
from mdpose_edge.families.mixture_dense.targets import Radius, encode_boxes, encode_people
from mdpose_edge.spec import InputSpec, KeypointSpec, ModelSpec


@dataclass(frozen=True)
class LossConfig:
    """The loss's options: weights of its parts, the defaults being those of the authors' code."""

    pose_weight: float = 0.1
    """Of the negative log-likelihood of the keypoints, or of the sizes of boxes: lambda_T."""
    centre_weight: float = 1.0
    size_weight: float = 0.1
    offset_weight: float = 1.0
    heat_weight: float = 1.0
    heat_offset_weight: float = 1.0
    radius: Radius = "published"
    """Of the blob around a centre or keypoint: "exact", an IoU of 0.7, is a third of what published figures were got
    with."""

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if field.name.endswith("_weight")):
            if not 0 <= getattr(self, name) <= 100:
                got = str(getattr(self, name))
                raise ConfigError(f"loss.{name}", expected="a number in [0, 100]", got=got, do="change it")


class MixtureDenseTraining:
    """See `families.base.Training`."""

    network_config = NetworkConfig
    loss_config = LossConfig
    parts = ("pose", "centre", "size", "offset", "heat", "heat_offset")
    figures: Mapping[str, tuple[str, ...]] = {
        "share of people who are the most and the least used component's": ("component_most", "component_least")
    }

    def make_spec(self, config: NetworkConfig, input_spec: InputSpec, keypoints: KeypointSpec) -> ModelSpec:
        """See `Training`."""
        return make_spec(config, input_spec, keypoints)

    def make_box_spec(self, config: NetworkConfig, input_spec: InputSpec, classes: tuple[str, ...]) -> ModelSpec:
        """See `BoxTraining`."""
        return make_box_spec(config, input_spec, classes)

    def check_loss(self, spec: ModelSpec, config: LossConfig) -> None:
        """Every loss fits every model."""

    def counts_everybody(self, config: LossConfig) -> bool:
        """Return true: people without keypoints have a centre all the same, and a crowd has centres that none knows."""
        return True

    def encode(self, people: People, spec: ModelSpec, config: LossConfig) -> dict[str, NDArray[Any]]:
        """See `Training`, targets.encode_people and targets.encode_boxes."""
        encode = encode_people if spec.keypoints.names else encode_boxes
        return encode(people, spec, config.radius)

    def network(
        self, spec: ModelSpec, loss: LossConfig | None = None, *, pretrained: bool | str = False
    ) -> MixtureDenseNetwork:
        """See `Training`."""
        return MixtureDenseNetwork(spec, pretrained=pretrained)

    def count(self, targets: Mapping[str, Tensor]) -> int:
        """See `Training`."""
        return int(targets["person_mask"].sum())

    def loss(
        self,
        outputs: Sequence[Mapping[str, Tensor]],
        targets: Mapping[str, Tensor],
        spec: ModelSpec,
        config: LossConfig,
        generator: torch.Generator,
        *,
        measure: bool = False,
    ) -> Loss:
        """See `Training`; the mean over the stacks, the figures of the last. There is no chance in it."""
        found = [self._stack_loss(stack, targets, spec, config) for stack in outputs]
        parts = {name: torch.stack([one[name] for one, _ in found]).mean() for name in found[0][0]}
        return Loss(parts, _use_of_components(found[-1][1]) if measure else {})

    def _stack_loss(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], spec: ModelSpec, config: LossConfig
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the parts of one stack's loss, and log(pi_m prod N) of its people."""
        raw = {name: at_least_float32(tensor) for name, tensor in outputs.items()}
        people, cells = targets["person_mask"], targets["cell"]
        joint = _people_log_joint(raw, targets, spec)
        centre = raw["centre"].reshape(targets["centre"].shape)
        parts = {
            "pose": config.pose_weight * -joint.logsumexp(dim=1).sum(),
            "centre": config.centre_weight * focal_loss(centre, targets["centre"]),
        }
        if spec.keypoints.names:  # of boxes, the components say it
            size = l1_loss(at_cells(raw["size"], cells)[people], targets["size"][people])
            parts["size"] = config.size_weight * size
        offset = l1_loss(at_cells(raw["offset"], cells)[people], targets["offset"][people])
        parts["offset"] = config.offset_weight * offset
        if constants_of(spec).heatmaps:
            parts |= _heat_parts(raw, targets, config)
        return parts, joint

    def heads(self, outputs: Sequence[Mapping[str, Tensor]], spec: ModelSpec) -> tuple[Tensor, ...]:
        """See `Training`."""
        return tuple(outputs[-1][name] for name in spec.outputs)

    def deployed(self, network: nn.Module, spec: ModelSpec) -> DeployedNetwork:
        """See `Training`."""
        assert isinstance(network, MixtureDenseNetwork)
        return DeployedNetwork(network, spec)

    def for_input(self, weights: Mapping[str, Tensor], old: InputSpec, new: InputSpec) -> dict[str, Tensor]:
        """Return the weights as they are: head tensors are in cells, that is in pixels, of whatever input."""
        return dict(weights)

    def keypoint_rows(self, parameter: str) -> int:
        """See `Training`."""
        layer = parameter.split(".")[-2]
        return 2 if layer.startswith("mu_") else int(layer == "heat")

    def summary(self, spec: ModelSpec) -> dict[str, str]:
        """See `Training`."""
        config = network_config(spec)
        head = f"{config.channels}/{config.head_channels}, M = {config.components}"
        return {"head": head, "cells": f"{cell_count(spec):,}"}


def _people_log_joint(raw: Mapping[str, Tensor], targets: Mapping[str, Tensor], spec: ModelSpec) -> Tensor:
    """Return log(pi_m prod N) of every person of the batch, (N, M); people without keypoints have a density of 1.

    Of boxes, the one "keypoint" is (width, height), and its constant 1.
    """
    people, cells, constants = targets["person_mask"], targets["cell"], constants_of(spec)
    numbers = components_of(constants)
    mu = torch.stack([at_cells(raw[f"mu_{m}"], cells)[people] for m in numbers], dim=1)
    sigma = torch.stack([at_cells(raw[f"sigma_{m}"], cells)[people] for m in numbers], dim=1)
    if spec.keypoints.names:
        points, labelled = targets["keypoints"][people], targets["labelled"][people]
    else:
        points = targets["size"][people][:, None]
        labelled = torch.ones_like(points[..., 0], dtype=torch.bool)
    return log_joint(
        mu.view(*mu.shape[:2], len(spec.keypoints.names) or 1, 2),
        spread(sigma, constants.sigma_floor),
        at_cells(raw["alpha"], cells)[people],
        points.to(mu.dtype),
        labelled,
        torch.tensor(spec.keypoints.sigmas or (1.0,), dtype=mu.dtype, device=mu.device),
    )


def _heat_parts(raw: Mapping[str, Tensor], targets: Mapping[str, Tensor], config: LossConfig) -> dict[str, Tensor]:
    """Return the losses of the heat maps: means over labelled keypoints, times the people of the pass.

    All parts are divided by the number of people; so these have the weight that they have in the paper.
    """
    people, labelled = targets["person_mask"], targets["labelled"]
    per_keypoint = people.sum() / labelled.sum().clamp(min=1)
    offsets = at_cells(raw["heat_offset"], targets["heat_cell"].flatten(1)).view(*labelled.shape, 2)
    offset = l1_loss(offsets[labelled], targets["heat_offset"][labelled])
    heat = focal_loss(raw["heat"], targets["heat"])
    # A pass of nobody labelled has empty maps to learn all the same.
    scale = torch.where(labelled.any(), per_keypoint, 1.0)
    return {
        "heat": config.heat_weight * heat * scale,
        "heat_offset": config.heat_offset_weight * offset * per_keypoint,
    }


@torch.no_grad()
def _use_of_components(joint: Tensor) -> dict[str, float]:
    """Return the shares of people who are most likely the most and the least used component's; NaN without people."""
    shares = torch.bincount(joint.argmax(dim=1), minlength=joint.shape[1]) / len(joint)
    return {"component_most": shares.max().item(), "component_least": shares.min().item()}


FAMILY = MixtureDenseTraining()
