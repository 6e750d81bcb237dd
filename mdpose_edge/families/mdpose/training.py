"""MDPose as the trainer and the exporter see it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mdpose_edge.errors import ConfigError
from mdpose_edge.families.base import Loss, People
from mdpose_edge.families.mdpose.heads import MERGING, constants_of
from mdpose_edge.families.mdpose.loss import count_nll, group_keypoints, mixture_from_heads, person_nll
from mdpose_edge.families.mdpose.network import DeployedNetwork, HeadTensors, MDPoseNetwork, NetworkConfig, make_spec
from mdpose_edge.families.mdpose.underflow import underflow_ratio
from mdpose_edge.spec import DecodeSpec, InputSpec, KeypointSpec, ModelSpec


@dataclass(frozen=True)
class LossConfig:
    """The loss's options; the defaults are the paper's."""

    group_size: int = 3
    """K_g: keypoints per random group (random keypoint grouping, RKG)."""
    count_weight: float = 0.0
    """Weight of the count term, 0 for none (the paper): with rate sum(o), the Poisson likelihood of N people adds
    sum(o) - N log sum(o) for each image. Above 0, people with a box alone take part by its centre, and images with a
    crowd, which nobody counted, are left out."""

    def __post_init__(self) -> None:
        if self.group_size < 1:
            raise ConfigError("loss.group_size", expected="at least 1", got=str(self.group_size), do="raise it")
        if not 0 <= self.count_weight <= 100:
            got = str(self.count_weight)
            raise ConfigError("loss.count_weight", expected="a number in [0, 100]", got=got, do="change it")


class MDPoseTraining:
    """See `families.base.Training`.

    The box centre is one keypoint more in training, the last, and is cut from the head tensors.
    """

    network_config = NetworkConfig
    loss_config = LossConfig
    parts = ("nll", "count")
    figures: Mapping[str, tuple[str, ...]] = {"share of naive underflow": ("underflow", "underflow_persons")}

    def make_spec(self, config: NetworkConfig, input_spec: InputSpec, keypoints: KeypointSpec) -> ModelSpec:
        """See `Training`."""
        return make_spec(config, input_spec, keypoints)

    def check_loss(self, spec: ModelSpec, config: LossConfig) -> None:
        """Refuse what `group_keypoints` would refuse at the first iteration."""
        group_keypoints(len(spec.keypoints.names) + 1, config.group_size, torch.Generator())

    def counts_everybody(self, config: LossConfig) -> bool:
        """See `Training`."""
        return config.count_weight > 0

    def encode(self, people: People, spec: ModelSpec, config: LossConfig) -> dict[str, NDArray[Any]]:
        """Return the keypoints, the centre last, in the coordinate frame of the head tensors.

        `keypoints_xy` (P, K + 1, 2), in [0, coordinate_extent) where labelled; `labelled` (P, K + 1); `person_mask`
        (P,), which is false where a row is padding.
        """
        count = len(people.centers_xy)
        points = np.concatenate([people.keypoints_xy, people.centers_xy[:, None]], axis=1)
        size = np.array([spec.input.width, spec.input.height], np.float32)
        return {
            "keypoints_xy": points * (constants_of(spec).coordinate_extent / size),
            "labelled": np.concatenate([people.labelled, np.ones((count, 1), np.bool_)], axis=1),
            "person_mask": np.ones(count, np.bool_),
        }

    def network(
        self, spec: ModelSpec, loss: LossConfig | None = None, *, pretrained: bool | str = False
    ) -> MDPoseNetwork:
        """See `Training`; where people are counted, the scores begin with a sum of about 1."""
        network = MDPoseNetwork(spec, auxiliary_center=True, pretrained=pretrained)
        if loss is not None and loss.count_weight:
            network.expect_one_person(spec)
        return network

    def count(self, targets: Mapping[str, Tensor]) -> int:
        """See `Training`."""
        return int(targets["person_mask"].sum())

    def loss(
        self,
        outputs: Sequence[HeadTensors],
        targets: Mapping[str, Tensor],
        spec: ModelSpec,
        config: LossConfig,
        generator: torch.Generator,
        *,
        measure: bool = False,
    ) -> Loss:
        """See `Training`; `figures` are shares of the naive likelihood that underflow (underflow.py)."""
        people = targets["keypoints_xy"], targets["labelled"], targets["person_mask"]
        groups = group_keypoints(people[0].shape[2], config.group_size, generator)
        constants = constants_of(spec)
        mixture = mixture_from_heads(
            outputs, constants.levels, num_keypoints=len(spec.keypoints.names), extent=constants.coordinate_extent
        )
        parts = {"nll": person_nll(mixture, *people, groups).sum()}
        if config.count_weight:
            counts = count_nll([level.o for level in outputs], people[2].sum(dim=1))
            parts["count"] = config.count_weight * counts.sum()
        shares = underflow_ratio(mixture, *people, groups) if measure else (math.nan, math.nan)
        return Loss(parts, dict(zip(("underflow", "underflow_persons"), shares, strict=True)) if measure else {})

    def heads(self, outputs: Sequence[HeadTensors], spec: ModelSpec) -> tuple[Tensor, ...]:
        """See `Training`."""
        channels = 2 * len(spec.keypoints.names)
        return tuple(t for level in outputs for t in (level.o, level.mu[:, :channels], level.gamma[:, :channels]))

    def deployed(self, network: nn.Module, spec: ModelSpec) -> DeployedNetwork:
        """See `Training`."""
        assert isinstance(network, MDPoseNetwork)
        return DeployedNetwork(network, spec)

    def for_input(self, weights: Mapping[str, Tensor], old: InputSpec, new: InputSpec) -> dict[str, Tensor]:
        """Scale the last convolutions by the ratio of the sizes.

        Head tensors are in units of the whole input (docs/tensor-contract.md), so a person of the same pixels spans
        another share of it. It is exact for mu, and for gamma where softplus is near the exponential, which holds for
        small gamma.
        """
        ratio_xy = torch.tensor([old.width / new.width, old.height / new.height])
        ratio = ratio_xy.repeat(len(weights["head.mu.bias"]) // 2)
        return {
            **weights,
            "head.mu.weight": weights["head.mu.weight"] * ratio.view(-1, 1, 1, 1),
            "head.mu.bias": weights["head.mu.bias"] * ratio,
            "head.gamma.bias": weights["head.gamma.bias"] + ratio.log(),
        }

    def keypoint_rows(self, parameter: str) -> int:
        """See `Training`; rows after the last keypoint are the box centre's."""
        return 2 if parameter.startswith(("head.mu.", "head.gamma.")) else 0

    def decode(self, loss: LossConfig) -> DecodeSpec | None:
        """See `Training`: where scores are expected numbers of people, what shows one person is merged."""
        return MERGING if loss.count_weight else None

    def summary(self, spec: ModelSpec) -> dict[str, str]:
        """See `Training`."""
        cells = sum(math.prod(spec.cells(level.stride)) for level in constants_of(spec).levels)
        network = spec.network
        return {"head": f"{network['channels']} x {network['head_convs']}", "cells": f"{cells:,}"}


FAMILY = MDPoseTraining()
