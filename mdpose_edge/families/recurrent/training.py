"""The recurrent family as the trainer and the exporter see it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mdpose_edge.errors import ConfigError
from mdpose_edge.families.base import Finished, FitImage, Loss, People
from mdpose_edge.families.recurrent import fitting
from mdpose_edge.families.recurrent.heads import constants_of
from mdpose_edge.families.recurrent.loss import (
    assign_people,
    at_least_float32,
    heat_loss,
    heat_of_zeros,
    heat_targets,
    map_distances,
    steps_said,
    stop_loss,
)
from mdpose_edge.families.recurrent.network import (
    DeployedNetwork,
    NetworkConfig,
    RecurrentNetwork,
    cell_count,
    make_spec,
    network_config,
)
from mdpose_edge.families.recurrent.targets import encode_people
from mdpose_edge.spec import InputSpec, KeypointSpec, ModelSpec


@dataclass(frozen=True)
class LossConfig:
    """The loss's options: weights of its parts, and what heat maps are to look like."""

    heat_weight: float = 1.0
    """Of the mean over a person's keypoints, where a map of zeros costs 1."""
    stop_weight: float = 1.0
    """Of the cross entropy of the steps of an image."""
    joint_weight: float = 0.5
    """Of the heat maps of everybody at once, learned beside for the features' sake; not exported."""
    heat_sigma: float = 2.0
    """Cells: of the Gaussian around a keypoint; 2 for 128 x 128 cells."""
    positive_weight: float = 20.0
    """A cell counts by 1 + this times what anybody's target is there."""
    stop_after: int = 0
    """Passes of the network before it learns where to stop; until then a step is anybody's who is left."""

    fit_images: int = 2000
    """Training images that the standard deviations are fitted to at the end; 0 keeps those of COCO's annotators."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("heat_weight", 0, 100),
            ("stop_weight", 0, 100),
            ("joint_weight", 0, 100),
            ("heat_sigma", 0.25, 20),
            ("positive_weight", 0, 1000),
            ("stop_after", 0, 10_000_000),
            ("fit_images", 0, 10_000_000),
        ):
            if not low <= getattr(self, name) <= high:
                expected, got = f"a number in [{low}, {high}]", str(getattr(self, name))
                raise ConfigError(f"loss.{name}", expected=expected, got=got, do="change it")


class RecurrentTraining:
    """See `families.base.Training` and `Finishing`."""

    network_config = NetworkConfig
    loss_config = LossConfig
    parts = ("heat", "draft", "stop", "joint")
    figures: Mapping[str, tuple[str, ...]] = {
        "error of the count of people": ("count_error",),
        "probability of a step that is a person's, and of the first that is nobody's": ("p_person", "p_nobody"),
    }

    def make_spec(self, config: NetworkConfig, input_spec: InputSpec, keypoints: KeypointSpec) -> ModelSpec:
        """See `Training`."""
        return make_spec(config, input_spec, keypoints)

    def check_loss(self, spec: ModelSpec, config: LossConfig) -> None:
        """Every loss fits every model."""

    def counts_everybody(self, config: LossConfig) -> bool:
        """Return false: people without keypoints have no maps, so that no step could be theirs."""
        return False

    def encode(self, people: People, spec: ModelSpec, config: LossConfig) -> dict[str, NDArray[Any]]:
        """See `Training` and targets.encode_people."""
        return encode_people(people)

    def network(
        self, spec: ModelSpec, loss: LossConfig | None = None, *, pretrained: bool | str = False
    ) -> RecurrentNetwork:
        """See `Training`."""
        return RecurrentNetwork(spec, pretrained=pretrained)

    def count(self, targets: Mapping[str, Tensor]) -> int:
        """See `Training`."""
        return int(targets["person_mask"].sum())

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
        """See `Training`. There is no chance in it."""
        raw = {name: at_least_float32(tensor) for name, tensor in outputs.items() if name != "passes"}
        learns_to_stop = int(outputs["passes"]) > config.stop_after
        images = [_Image.of(raw, targets, index, config) for index in range(len(raw["joint"]))]
        found = [_image_loss(image, constants_of(spec).people, config, learns_to_stop) for image in images]
        parts = {name: torch.stack([one[name] for one in found]).sum() for name in found[0]}
        return Loss(parts, _stops(images) if measure else {})

    def fit_images(self, config: LossConfig) -> int:
        """See `Finishing`."""
        return config.fit_images

    def finish(self, spec: ModelSpec, images: Iterable[FitImage], config: LossConfig, seed: int) -> Finished:
        """See `Finishing` and fitting.finish; there is no chance in it."""
        return fitting.finish(spec, images)

    def heads(self, outputs: Mapping[str, Tensor], spec: ModelSpec) -> tuple[Tensor, ...]:
        """Return the head tensors; in training, those of the steps that are unrolled."""
        return tuple(outputs[name] for name in spec.outputs if name in outputs)

    def deployed(self, network: nn.Module, spec: ModelSpec) -> DeployedNetwork:
        """See `Training`."""
        assert isinstance(network, RecurrentNetwork)
        return DeployedNetwork(network, spec)

    def for_input(self, weights: Mapping[str, Tensor], old: InputSpec, new: InputSpec) -> dict[str, Tensor]:
        """Return the weights as they are: they say nothing of lengths."""
        return dict(weights)

    def keypoint_rows(self, parameter: str) -> int:
        """See `Training`."""
        *_, layer, _ = ("", *parameter.split("."))
        return int(layer in ("heat", "joint"))

    def summary(self, spec: ModelSpec) -> dict[str, str]:
        """See `Training`."""
        config = network_config(spec)
        head = f"{config.channels}/{config.hidden}, T = {config.people} x {config.calls}"
        return {"head": head + (", refiner" if config.refiner else ""), "cells": f"{cell_count(spec):,}"}


class _Image(NamedTuple):
    """What the network said of one image, and what is so."""

    heat: Tensor
    """(S, K, rows, columns)"""
    draft: Tensor | None
    """Likewise, where a refiner follows."""
    logits: Tensor
    """(S,)"""
    joint: Tensor
    """(K, rows, columns)"""
    truth: Tensor
    """(z, K, rows, columns)"""
    labelled: Tensor
    """(z, K)"""

    @property
    def everybody(self) -> Tensor:
        """Return the maps of everybody at once, (K, rows, columns)."""
        return self.truth.amax(dim=0) if len(self.truth) else torch.zeros_like(self.joint)

    @classmethod
    def of(cls, raw: Mapping[str, Tensor], targets: Mapping[str, Tensor], index: int, config: LossConfig) -> _Image:
        """Take one image of a batch."""
        steps = raw["stop"].shape[1]
        people = targets["person_mask"][index]
        labelled = targets["labelled"][index][people]
        joint = raw["joint"][index]
        points = targets["keypoints"][index][people].to(joint.dtype)
        rows, columns = joint.shape[1:]
        stacked = {
            name: torch.stack([raw[f"{name}_{step}"][index] for step in range(1, steps + 1)])
            for name in ("heat", "draft")
            if f"{name}_1" in raw
        }
        return cls(
            stacked["heat"],
            stacked.get("draft"),
            raw["stop"][index].flatten(),
            joint,
            heat_targets(points, labelled, (rows, columns), config.heat_sigma),
            labelled,
        )


def _image_loss(image: _Image, chunk: int, config: LossConfig, learns_to_stop: bool) -> dict[str, Tensor]:
    """Return the parts of one image's loss."""
    people = len(image.labelled)
    said = steps_said(image.logits.detach()) if learns_to_stop else len(image.logits)
    first = image.heat if image.draft is None else image.draft
    pairs = assigned(first.detach(), image.truth, image.labelled, min(said, people), chunk)
    steps, whom = ([pair[side] for pair in pairs] for side in (0, 1))
    unit = config.heat_weight / heat_of_zeros(config.heat_sigma, config.positive_weight)
    importance = 1 + config.positive_weight * image.everybody

    def of_maps(maps: Tensor) -> Tensor:
        labelled = image.labelled[whom]
        share = labelled / labelled.sum(dim=1, keepdim=True).clamp(min=1)
        return unit * heat_loss(maps[steps], image.truth[whom], share, importance)

    parts = {"heat": of_maps(image.heat)}
    if image.draft is not None:
        parts["draft"] = of_maps(image.draft)
    weight = config.stop_weight if learns_to_stop else 0.0
    return {
        **parts,
        "stop": weight * stop_loss(image.logits, people, said),
        "joint": _joint_loss(image, config),
    }


def assigned(predicted: Tensor, truth: Tensor, labelled: Tensor, count: int, chunk: int) -> list[tuple[int, int]]:
    """Pair the first `count` steps with people, (step, person) each: a chunk of steps at a time, who is taken is taken.

    Args:
        predicted: (S, K, rows, columns).
        truth: (z, K, rows, columns).
        labelled: (z, K).
        count: at most S and z.
        chunk: steps that gradients connect.
    """
    count = min(count, len(predicted))
    left = list(range(len(truth)))
    pairs: list[tuple[int, int]] = []
    for start in range(0, count, chunk):
        here = slice(start, min(start + chunk, count))
        cost = map_distances(predicted[here], truth[left], labelled[left])
        found = [(start + step, left[person]) for step, person in assign_people(cost.double().cpu().numpy())]
        pairs += found
        left = [person for person in left if person not in {taken for _, taken in found}]
    return pairs


def _joint_loss(image: _Image, config: LossConfig) -> Tensor:
    """Return the loss of everybody's heat maps at once: a person's share is of the size of his own maps' loss."""
    everybody = image.everybody
    unit = config.joint_weight / heat_of_zeros(config.heat_sigma, config.positive_weight) / len(image.joint)
    every = torch.ones(1, len(image.joint), device=image.joint.device)
    return unit * heat_loss(image.joint[None], everybody[None], every, 1 + config.positive_weight * everybody)


@torch.no_grad()
def _stops(images: list[_Image]) -> dict[str, float]:
    """Return how well the steps are counted."""
    errors, person, nobody = [], [], []
    for image in images:
        people, p = len(image.labelled), image.logits.sigmoid().tolist()
        errors.append(abs(min(people, len(p)) - steps_said(image.logits)))
        person += p[:people]
        nobody += p[people : people + 1]
    means = {"count_error": errors, "p_person": person, "p_nobody": nobody}
    return {name: sum(values) / len(values) if values else float("nan") for name, values in means.items()}


FAMILY = RecurrentTraining()
