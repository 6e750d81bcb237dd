"""How a network begins: at random, from ImageNet, or from what another checkpoint has that fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor, nn

from mdpose_edge.checkpoint import read_checkpoint
from mdpose_edge.errors import CheckpointError
from mdpose_edge.families.registry import training_of
from mdpose_edge.shipped import checkpoint_path
from mdpose_edge.spec import ModelSpec
from mdpose_edge.train.config import TrainConfig


def begin(
    config: TrainConfig, spec: ModelSpec, *, is_start: bool, note: Callable[[str], None] | None = None
) -> nn.Module:
    """Return the network of a run.

    Args:
        config: of the run.
        spec: of the model.
        is_start: False builds a network that is given its weights later: neither `init` nor the hub need be in reach.
        note: called with a sentence on what was taken from `config.init`, and what was left.

    Raises:
        CheckpointError: `config.init` cannot be read, nothing of it fits, or all of one of another family is asked for.
        ConfigError: the backbone does not fit, or its weights cannot be had.
    """
    family = training_of(config.family)
    if not is_start:
        return family.network(spec)
    if config.init is None:
        return family.network(spec, config.loss, pretrained=config.pretrained)
    network = family.network(spec, config.loss)
    start = read_checkpoint(checkpoint_path(config.init))
    if start.spec.family != spec.family and config.init_only is None:
        expected, do = f"a checkpoint of {spec.family}", "set init_only=backbone. to take the trunk alone"
        raise CheckpointError(config.init, expected=expected, got=f"one of {start.spec.family}", do=do)
    weights = training_of(start.spec.family).for_input(start.weights, start.spec.input, spec.input)
    sentence = take_over(network, weights, config)
    if note is not None:
        note(sentence)
    return network


def take_over(network: nn.Module, weights: Mapping[str, Tensor], config: TrainConfig) -> str:
    """Load the weights that fit by name and shape, of the part that is asked for; a layer as a whole or not at all.

    Returns:
        A sentence on what was taken and what was left.

    Raises:
        CheckpointError: nothing fits.
    """
    own = network.state_dict()
    misfits = {
        _layer(name) for name, tensor in own.items() if name not in weights or weights[name].shape != tensor.shape
    }
    wanted = {name for name in own if name.startswith(config.init_only or "") and _layer(name) not in misfits}
    fits = {name: weights[name] for name in wanted}
    if not fits:
        do = "give a checkpoint of a like network, or correct init_only"
        expected = f"weights that fit {config.init_only or 'this network'}"
        raise CheckpointError(str(config.init), expected=expected, got="none", do=do)
    network.load_state_dict({**own, **fits})
    taken = f"took {len(fits)} of {len(own)} tensors from {config.init}"
    return f"{taken}; began anew: {_parts(own.keys() - fits.keys())}; left: {_parts(weights.keys() - fits.keys())}"


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _parts(names: Iterable[str]) -> str:
    """Return names by their first two words, with how many there are of each."""
    counted = Counter(".".join(name.split(".")[:2]) for name in names)
    return ", ".join(f"{name} ({count})" for name, count in sorted(counted.items())) or "none"
