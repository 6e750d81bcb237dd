"""Distribution-aware 3-D pose as the trainer and the exporter see it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from mdpose_edge.errors import ConfigError
from mdpose_edge.families.base import Loss, People
from mdpose_edge.families.das.heads import Constants, constants_of
from mdpose_edge.families.das.loss import (
    Joints,
    at_least_float32,
    depth_loss,
    errors_of,
    flow_log_density,
    focal_loss,
    laplace_nll,
    scale_of,
    updated,
)
from mdpose_edge.families.das.network import DASNetwork, DeployedNetwork, NetworkConfig, Outputs, make_spec
from mdpose_edge.families.das.targets import IGNORED, POSITIVE, Center, encode_people
from mdpose_edge.spec import InputSpec, KeypointSpec, ModelSpec

CELLS_OF_A_PERSON = 9
"""A person has so many positive cells as a rule; the focal loss is divided by them, not by people."""
MEMORY = 0.99
"""Of the running means of errors and scales, from pass to pass."""
METRES = 1000.0
"""Millimetres in one."""


@dataclass(frozen=True)
class LossConfig:
    """The loss's options: weights of its parts, the defaults being those of the authors' code."""

    score_weight: float = 1.0
    centerness_weight: float = 1.0
    depth_weight: float = 1.0
    pose_weight: float = 2.0
    likelihood: Literal["flow", "laplace", "l1"] = "flow"
    """Of the joints: residual log-likelihood with a flow; Laplace distributions alone; distances alone, which leave the
    scales as they began."""
    laplace_first: int = 500
    """Passes before the flow moves the joints: until then it learns alone, from errors that are still wild."""
    center: Center = "root"
    """What cells are assigned by; box: the middle of the box, which the paper compares the root with."""

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if field.name.endswith("_weight")):
            if not 0 <= getattr(self, name) <= 100:
                got = str(getattr(self, name))
                raise ConfigError(f"loss.{name}", expected="a number in [0, 100]", got=got, do="change it")
        if self.laplace_first < 0:
            got = str(self.laplace_first)
            raise ConfigError("loss.laplace_first", expected="at least 0", got=got, do="raise it")


@dataclass(frozen=True)
class _Said:
    """What N positive cells say, before and after the update."""

    first: Joints
    last: Joints
    scales: Tensor
    """(N, K, 3)"""
    centerness: Tensor
    """(N,) logits."""
    depth: Tensor
    """(N,)"""


class DASTraining:
    """See `families.base.Training`."""

    network_config = NetworkConfig
    loss_config = LossConfig
    parts = ("score", "centerness", "depth", "pose")
    figures: Mapping[str, tuple[str, ...]] = {
        "error of joints, cells of their level, and of their relative depth, mm": ("error_uv", "error_dz"),
        "relative error of the root's depth": ("error_depth",),
    }

    def make_spec(self, config: NetworkConfig, input_spec: InputSpec, keypoints: KeypointSpec) -> ModelSpec:
        """See `Training`."""
        return make_spec(config, input_spec, keypoints)

    def check_loss(self, spec: ModelSpec, config: LossConfig) -> None:
        """Every loss fits every model."""

    def counts_everybody(self, config: LossConfig) -> bool:
        """Return true: cells on people whose root nobody knows teach nothing, and in a crowd there are many."""
        return True

    def encode(self, people: People, spec: ModelSpec, config: LossConfig) -> dict[str, NDArray[Any]]:
        """See `Training` and targets.encode_people."""
        return encode_people(people, spec, config.center)

    def network(self, spec: ModelSpec, loss: LossConfig | None = None, *, pretrained: bool | str = False) -> DASNetwork:
        """See `Training`."""
        return DASNetwork(spec, pretrained=pretrained)

    def count(self, targets: Mapping[str, Tensor]) -> int:
        """See `Training`."""
        return int(targets["person_mask"].sum())

    def loss(
        self,
        outputs: Outputs,
        targets: Mapping[str, Tensor],
        spec: ModelSpec,
        config: LossConfig,
        generator: torch.Generator,
        *,
        measure: bool = False,
    ) -> Loss:
        """See `Training`. There is no chance in it; it keeps the network's `state`."""
        raw = {name: at_least_float32(tensor) for name, tensor in outputs.heads.items()}
        chosen = _Positives(targets)
        said, constants = _read(raw, chosen, spec), constants_of(spec)
        target = Joints(chosen.of("uv").to(said.depth), chosen.of("dz").to(said.depth))
        logits = torch.cat([raw[f"o_{level.name}"].flatten(1) for level in constants.levels], dim=1)
        counted = targets["labels"] != IGNORED
        focal = focal_loss(logits[counted], (targets["labels"] == POSITIVE)[counted]) / CELLS_OF_A_PERSON
        weight, solid = chosen.of("weight").to(said.depth), chosen.of("solid")
        centerness = functional.binary_cross_entropy_with_logits(
            said.centerness, chosen.of("centerness").to(said.depth), reduction="none"
        )
        depth = torch.where(solid, depth_loss(said.depth, chosen.of("depth").to(said.depth)), 0.0)
        pose = _pose_loss(said, target, chosen, outputs, config)
        parts = {
            "score": config.score_weight * focal,
            "centerness": config.centerness_weight * (weight * centerness).sum(),
            "depth": config.depth_weight * (weight * depth).sum(),
            "pose": config.pose_weight * (weight * pose).sum() + _nothing(outputs),
        }
        _remember(outputs.state, said, target, chosen)
        return Loss(parts, _figures(said, target, chosen, constants) if measure else {})

    def heads(self, outputs: Outputs, spec: ModelSpec) -> tuple[Tensor, ...]:
        """See `Training`."""
        return tuple(outputs.heads[name] for name in spec.outputs)

    def deployed(self, network: nn.Module, spec: ModelSpec) -> DeployedNetwork:
        """See `Training`."""
        assert isinstance(network, DASNetwork)
        return DeployedNetwork(network, spec)

    def for_input(self, weights: Mapping[str, Tensor], old: InputSpec, new: InputSpec) -> dict[str, Tensor]:
        """Return the weights as they are: offsets are in cells, and depths over the focal length, in input pixels."""
        return dict(weights)

    def finished_spec(self, spec: ModelSpec, network: nn.Module) -> ModelSpec:
        """Return the spec of a network that is trained: its scales calibrated by the errors of the last passes."""
        assert isinstance(network, DASNetwork)
        _, *means = network.state.tolist()
        factors = [
            error / scale if error > 0 and scale > 0 else 1.0 for error, scale in zip(means[:3], means[3:], strict=True)
        ]
        return dataclasses.replace(spec, constants={**spec.constants, "sigma_factors": factors})

    def summary(self, spec: ModelSpec) -> dict[str, str]:
        """See `Training`."""
        cells = sum(math.prod(spec.cells(level.stride)) for level in constants_of(spec).levels)
        return {"head": f"{spec.network['channels']} x {spec.network['head_convs']}", "cells": f"{cells:,}"}


class _Positives:
    """The positive cells of a batch, one after another.

    Args:
        targets: of the batch.
    """

    def __init__(self, targets: Mapping[str, Tensor]) -> None:
        self._targets, self._rows = targets, targets["positive"].bool()
        self.images = self._rows.nonzero()[:, 0]

    def of(self, name: str) -> Tensor:
        """Return a target of each positive cell, (N, ...)."""
        return self._targets[name][self._rows]


def _read(raw: Mapping[str, Tensor], chosen: _Positives, spec: ModelSpec) -> _Said:
    """Read what the positive cells say, level by level."""
    constants, joints = constants_of(spec), len(spec.keypoints.names)
    cells, start, order, parts = chosen.of("cell"), 0, [], []
    for level in constants.levels:
        stop = start + math.prod(spec.cells(level.stride))
        here = ((cells >= start) & (cells < stop)).nonzero()[:, 0]
        level_raw = {kind: raw[f"{kind}_{level.name}"] for kind in ("c", "depth", "uv", "dz", "sigma")}
        parts.append(_read_level(level_raw, chosen.images[here], cells[here] - start, joints, constants.updates))
        order.append(here)
        start = stop
    back = torch.cat(order).argsort()
    uv, dz, last_uv, last_dz, scales, centerness, depth = (torch.cat(one)[back] for one in zip(*parts, strict=True))
    return _Said(Joints(uv, dz), Joints(last_uv, last_dz), scales, centerness, depth)


def _read_level(
    raw: Mapping[str, Tensor], images: Tensor, cells: Tensor, joints: int, updates: int
) -> tuple[Tensor, ...]:
    values = {kind: tensor.flatten(2)[images, :, cells] for kind, tensor in raw.items()}
    first = Joints(values["uv"].view(-1, joints, 2), values["dz"])
    last = updated(raw["uv"], raw["dz"], first, images, cells, updates)
    scales = scale_of(values["sigma"].view(-1, joints, 3))
    return *first, *last, scales, values["c"][:, 0], values["depth"][:, 0]


def _pose_loss(said: _Said, target: Joints, chosen: _Positives, outputs: Outputs, config: LossConfig) -> Tensor:
    """Return the loss of each positive cell, (N,): the mean over its known joints, before and after the update."""
    known, solid = chosen.of("known"), chosen.of("solid")
    total = said.depth.new_zeros(known.shape)
    stages = (("first", said.first), ("last", said.last))
    for stage, joints in stages:
        errors = torch.where(known[..., None], errors_of(joints, target), 0.0)
        if config.likelihood == "l1":
            total = total + errors[..., :2].abs().sum(dim=2) + torch.where(solid[:, None], errors[..., 2].abs(), 0.0)
            continue
        total = total + laplace_nll(errors, said.scales, solid)
        if config.likelihood == "flow":
            relative = errors / said.scales
            if outputs.state[0] < config.laplace_first:
                relative = relative.detach()
            flows = {dimensions: outputs.flows[f"{stage}_{dimensions}"] for dimensions in (2, 3)}
            total = total - flow_log_density(relative, solid, known, flows)
    counts = known.sum(dim=1).clamp(min=1)
    return torch.where(known, total, 0.0).sum(dim=1) / counts / len(stages)


def _nothing(outputs: Outputs) -> Tensor:
    """Return 0 that depends on everything: processes that train together wait for every parameter's gradient."""
    tensors = [*outputs.heads.values(), *(weights for flow in outputs.flows.values() for weights in flow.values())]
    return 0.0 * torch.stack([tensor.float().mean() for tensor in tensors]).sum()


@torch.no_grad()
def _remember(state: Tensor, said: _Said, target: Joints, chosen: _Positives) -> None:
    """Count a pass, and let the running means follow its errors and scales."""
    known, solid = chosen.of("known"), chosen.of("solid")
    errors, deep = errors_of(said.last, target).abs(), known & solid[:, None]
    for axis in range(3):
        of = deep if axis == 2 else known
        if not of.any():
            continue
        for place, values in ((1 + axis, errors), (4 + axis, said.scales)):
            mean = values[..., axis][of].mean()
            state[place] = mean if state[place] == 0 else MEMORY * state[place] + (1 - MEMORY) * mean
    state[0] += 1


@torch.no_grad()
def _figures(said: _Said, target: Joints, chosen: _Positives, constants: Constants) -> dict[str, float]:
    """Return mean errors of joints and roots; NaN where there are none."""
    known, solid = chosen.of("known"), chosen.of("solid")
    errors = errors_of(said.last, target)
    depth = (said.depth - chosen.of("depth").to(said.depth)).abs()
    if constants.depth == "linear":
        depth = depth / chosen.of("depth").to(depth).clamp(min=1e-6)
    deep = errors[..., 2].abs()[known & solid[:, None]]
    return {
        "error_uv": errors[..., :2].norm(dim=2)[known].mean().item(),
        "error_dz": METRES * constants.z_norm * deep.mean().item(),
        "error_depth": depth[solid].mean().item(),
    }


FAMILY = DASTraining()
