"""The recurrent network: a backbone, a pyramid down to stride 4, and a decoder that runs once or more for each person.

The decoder is of convolutional LSTMs. What a gate's convolution takes is no Concat of input, state and maps fed back,
but each has a convolution of its own: that of the features is computed once for an image, and each has its own INT8
range. Nothing loops in the graph: T people are unrolled, with shared weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mdpose_edge.common.strict import read_dataclass
from mdpose_edge.errors import ConfigError
from mdpose_edge.families.backbone import FinestLevel, InputNormalization, fold_batch_norm, make_backbone
from mdpose_edge.families.heat_sigma import prior
from mdpose_edge.families.recurrent.heads import (
    HEAT_THRESHOLD,
    MOST_PEOPLE,
    STOP_THRESHOLD,
    STRIDE,
    Constants,
    recurrent_spec,
)
from mdpose_edge.families.same_padding import make_padding_static
from mdpose_edge.spec import COCO_KEYPOINTS, InputSpec, KeypointSpec, ModelSpec

STRIDES = (4, 8, 16, 32)
"""Of the backbone's feature maps."""
REFINER_LAYERS = 2
"""Of the second decoder (the paper)."""
FIRST_FORGET = 1.0
"""Bias of the forget gates, so that a state lasts from the start."""
FIRST_STOP = 1.0
"""Bias of the stop logit: until it has learned, no step is the last."""


@dataclass(frozen=True)
class NetworkConfig:
    """The network's options."""

    backbone: str = "dla34"
    """A timm model name that supports `features_only` and offers strides 4, 8, 16 and 32."""
    channels: int = 64
    """Width of the stride-4 map that the decoder reads."""
    hidden: int = 64
    """Width of the first layer's state; each further layer has half of it."""
    layers: int = 3
    people: int = 8
    """T: so many people at most; all of them are computed, whether there or not."""
    calls: int = 2
    """Of the decoder for each person: in all but the first it is given the maps that the call before gave."""
    refiner: bool = False
    """A second decoder, of two layers, corrects the maps."""
    chunks: int = 1
    """In training, T people are unrolled so many times: each takes over the state of the one before, and gradients stay
    within it, computed anew on the way back, so that memory is that of T people."""
    curriculum: int = 0
    """In training, passes after which one step more is unrolled, from two on; 0 for all from the start."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("channels", 1, 1024),
            ("hidden", 1, 1024),
            ("layers", 1, 4),
            ("people", 1, MOST_PEOPLE),
            ("calls", 1, 3),
            ("chunks", 1, 16),
            ("curriculum", 0, 1_000_000),
        ):
            if not low <= getattr(self, name) <= high:
                expected, got = f"a whole number in {low}..{high}", str(getattr(self, name))
                raise ConfigError(f"network.{name}", expected=expected, got=got, do="change it")
        halvings = max(self.layers, REFINER_LAYERS if self.refiner else 1) - 1
        if self.hidden % 2**halvings:
            expected = f"a multiple of {2**halvings}, as each layer has half the width of the one before"
            raise ConfigError("network.hidden", expected=expected, got=str(self.hidden), do="change it")


class State(NamedTuple):
    """Of one layer, (N, C, rows, columns) each."""

    hidden: Tensor
    """In (-1, 1)."""
    cell: Tensor
    """Its magnitude is at most the number of calls, so that float16 holds it."""


class ConvLSTM(nn.Module):
    """A layer: what it is given, convolved already, and its state become its next state.

    Args:
        channels: of the state.
        remembers: whether there is ever a state to begin from.
    """

    def __init__(self, channels: int, *, remembers: bool = True) -> None:
        super().__init__()
        self.channels = channels
        self.from_hidden = _gates(channels, channels, bias=False) if remembers else None

    def forward(self, given: Tensor, state: State | None) -> State:
        """Take a step; the gates' channels are input, forget, output, candidate.

        Args:
            given: (N, 4C, rows, columns), the sum of the convolutions of what the layer is given.
            state: None for a state of zeros.
        """
        if state is not None:
            assert self.from_hidden is not None
            given = given + self.from_hidden(state.hidden)
        enter, forget, leave, candidate = (
            given[:, gate * self.channels : (gate + 1) * self.channels] for gate in range(4)
        )
        cell = enter.sigmoid() * candidate.tanh()
        if state is not None:
            cell = forget.sigmoid() * state.cell + cell
        return State(leave.sigmoid() * cell.tanh(), cell)


class Decoder(nn.Module):
    """Layers of convolutional LSTMs under a convolution to heat maps.

    Args:
        config: of the network.
        layers: how many.
        num_keypoints: heat maps of a person.
        fed_back: whether it is ever given maps.
        remembers: whether it is ever called twice for an image.
    """

    def __init__(
        self, config: NetworkConfig, layers: int, num_keypoints: int, *, fed_back: bool, remembers: bool
    ) -> None:
        super().__init__()
        widths = self.widths = [config.hidden // 2**layer for layer in range(layers)]
        self.from_features = _gates(config.channels, widths[0])
        self.from_maps = _gates(num_keypoints, widths[0], bias=False) if fed_back else None
        self.from_below = nn.ModuleList(_gates(below, width) for below, width in pairwise(widths))
        self.layers = nn.ModuleList(ConvLSTM(width, remembers=remembers) for width in widths)
        self.heat = nn.Conv2d(widths[-1], num_keypoints, 3, padding=1)
        for conv in (self.from_features, *self.from_below):
            _open_forget_gates(conv)

    def forward(self, seen: Tensor, maps: Tensor | None, states: Sequence[State | None]) -> list[State]:
        """Take a step with every layer.

        Args:
            seen: what `from_features` makes of the features.
            maps: (N, K, rows, columns) to be fed back; None for none.
            states: of the layers.
        """
        given = seen
        if maps is not None:
            assert self.from_maps is not None
            given = given + self.from_maps(maps)
        found: list[State] = []
        for number, (layer, state) in enumerate(zip(self.layers, states, strict=True)):
            if number:
                given = self.from_below[number - 1](found[-1].hidden)
            found.append(layer(given, state))
        return found


class StopHead(nn.Module):
    """The logit that a step is a person, of the largest value of each channel of each layer's state."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=not number) for number, width in enumerate(widths))
        first = self.layers[0]
        assert isinstance(first, nn.Conv2d) and first.bias is not None
        nn.init.constant_(first.bias, FIRST_STOP)

    def forward(self, states: Sequence[State]) -> Tensor:
        """Map states to (N, 1, 1, 1)."""
        said = [
            conv(state.hidden.amax(dim=(2, 3), keepdim=True)) for conv, state in zip(self.layers, states, strict=True)
        ]
        total: Tensor = said[0]
        for one in said[1:]:
            total = total + one
        return total


class Memory(NamedTuple):
    """What goes on from person to person: the layers' states, None where nobody was found yet."""

    decoder: Sequence[State | None]
    refiner: Sequence[State | None]

    def detached(self) -> Memory:
        """Cut the way back for gradients."""
        return Memory(*([None if s is None else State(*(t.detach() for t in s)) for s in states] for states in self))


class RecurrentNetwork(nn.Module):
    """uint8 images to raw head tensors by name.

    Args:
        spec: input and head tensors; `spec.network` holds the NetworkConfig.
        pretrained: load the backbone's ImageNet weights through timm; text names the file that holds them.

    Raises:
        ConfigError: timm has no such backbone, it lacks the strides, or its weights cannot be had.
    """

    passes: Tensor

    def __init__(self, spec: ModelSpec, *, pretrained: bool | str = False) -> None:
        super().__init__()
        config = self.config = network_config(spec)
        num_keypoints = len(spec.keypoints.names)
        self.normalize = InputNormalization(spec.input)
        self.backbone = make_backbone(config.backbone, pretrained, STRIDES)
        feature_info: Any = self.backbone.feature_info
        self.pyramid = FinestLevel(feature_info.channels(), config.channels)
        several = config.people > 1
        self.decoder = Decoder(
            config,
            config.layers,
            num_keypoints,
            fed_back=config.calls > 1,
            remembers=several or config.calls > 1,
        )
        self.stop = StopHead(self.decoder.widths)
        self.refiner: Decoder | None = None
        if config.refiner:
            self.refiner = Decoder(config, REFINER_LAYERS, num_keypoints, fed_back=True, remembers=several)
        self.joint = nn.Conv2d(config.channels, num_keypoints, 1)
        self.register_buffer("passes", torch.zeros((), dtype=torch.long))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Run the network.

        Args:
            images: (N, H, W, 3) uint8, BGR, of the spec's size.

        Returns:
            `heat_1` ... and `stop`: in training of as many people as are unrolled, else the head tensors. In training,
            too: `joint`, the heat maps of everybody at once; `draft_1` ..., what a refiner was given; `passes`.
        """
        features = self.pyramid(self.backbone(self.normalize(images)))
        if not self.training:
            return self._people(features, self.config.people)
        self.passes += 1
        found = self._people(features, self.steps())
        return {**found, "joint": self.joint(features), "passes": self.passes.clone()}

    def steps(self) -> int:
        """Return how many people are unrolled in training, by the curriculum."""
        every, curriculum = self.config.people * self.config.chunks, self.config.curriculum
        return min(every, 2 + (int(self.passes) - 1) // curriculum) if curriculum else every

    def _people(self, features: Tensor, steps: int) -> dict[str, Tensor]:
        seen = self.decoder.from_features(features)
        seen_again = None if self.refiner is None else self.refiner.from_features(features)
        refiner_layers = 0 if self.refiner is None else REFINER_LAYERS
        memory = Memory([None] * self.config.layers, [None] * refiner_layers)
        found: list[dict[str, Tensor]] = []
        for start in range(0, steps, self.config.people):
            count = min(self.config.people, steps - start)
            given = (seen, seen_again, memory.detached(), count)
            if steps > self.config.people:
                people, memory = checkpoint(self._chunk, *given, use_reentrant=False, preserve_rng_state=False)
            else:
                people, memory = self._chunk(*given)
            found += people
        outputs = {
            f"{name}_{step}": maps for step, one in enumerate(found, 1) for name, maps in one.items() if name != "stop"
        }
        return {**outputs, "stop": torch.cat([one["stop"] for one in found], dim=1)}

    def _chunk(
        self, seen: Tensor, seen_again: Tensor | None, memory: Memory, count: int
    ) -> tuple[list[dict[str, Tensor]], Memory]:
        people = []
        for _ in range(count):
            one, memory = self.person(seen, seen_again, memory)
            people.append(one)
        return people, memory

    def person(self, seen: Tensor, seen_again: Tensor | None, memory: Memory) -> tuple[dict[str, Tensor], Memory]:
        """Find one person more."""
        states, refined_states = memory
        maps: Tensor | None = None
        for _ in range(self.config.calls):
            found = self.decoder(seen, maps, states)
            states, maps = found, self.decoder.heat(found[-1].hidden)
        assert maps is not None
        said = self.stop(found)
        if self.refiner is None:
            return {"heat": maps, "stop": said}, Memory(states, refined_states)
        refined = self.refiner(seen_again, maps, refined_states)
        heat = self.refiner.heat(refined[-1].hidden)
        return {"heat": heat, "draft": maps, "stop": said}, Memory(states, refined)


class DeployedNetwork(nn.Module):
    """The network for export: batch norms folded, T people's head tensors as a flat tuple, without gradients."""

    def __init__(self, network: RecurrentNetwork, spec: ModelSpec) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval().float()
        del self.network.joint
        self.outputs = spec.outputs
        fold_batch_norm(self.network.backbone)
        device = self.network.normalize.mean.device
        blank = torch.zeros(1, spec.input.height, spec.input.width, 3, dtype=torch.uint8, device=device)
        with torch.no_grad():
            make_padding_static(self.network.backbone, lambda: self.network(blank))
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the head tensors in the order of `ModelSpec.outputs`."""
        found = self.network(images)
        return tuple(found[name] for name in self.outputs)


def network_config(spec: ModelSpec) -> NetworkConfig:
    """Read the network's options from a spec, strictly."""
    return read_dataclass(NetworkConfig, spec.network, where="network", error=ConfigError, defaults=True)


def make_spec(config: NetworkConfig, input_spec: InputSpec, keypoints: KeypointSpec = COCO_KEYPOINTS) -> ModelSpec:
    """Return the spec of a network that is about to be trained.

    Its standard deviations are those of COCO's annotators, until they are fitted.

    Raises:
        ConfigError: the input is no multiple of the coarsest stride, to which each map is half of the one before.
    """
    for axis in ("height", "width"):
        size = getattr(input_spec, axis)
        if size % STRIDES[-1]:
            do = f"use {max(1, round(size / STRIDES[-1])) * STRIDES[-1]}"
            raise ConfigError(f"input.{axis}", expected=f"a multiple of {STRIDES[-1]}", got=str(size), do=do)
    if not keypoints.names:
        raise ConfigError("data.keypoints", expected="at least one keypoint", got="none", do="name a keypoint set")
    constants = Constants(config.people, STOP_THRESHOLD, HEAT_THRESHOLD, prior(keypoints.sigmas))
    return recurrent_spec(input_spec, constants, keypoints, asdict(config))


def cell_count(spec: ModelSpec) -> int:
    """Return how many cells a heat map has."""
    return math.prod(spec.cells(STRIDE))


def _gates(inputs: int, channels: int, *, bias: bool = True) -> nn.Conv2d:
    """Return the convolution of all four gates."""
    return nn.Conv2d(inputs, 4 * channels, 3, padding=1, bias=bias)


def _open_forget_gates(conv: nn.Module) -> None:
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    channels = conv.out_channels // 4
    nn.init.zeros_(conv.bias)
    nn.init.constant_(conv.bias[channels : 2 * channels], FIRST_FORGET)
