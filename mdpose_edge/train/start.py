"""How a network begins: at random, from ImageNet, or from what another checkpoint has that fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from mdpose_edge.checkpoint import read_checkpoint
from mdpose_edge.errors import CheckpointError
from mdpose_edge.families.registry import training_of, training_spec
from mdpose_edge.shipped import checkpoint_path
from mdpose_edge.spec import KeypointSpec, ModelSpec
from mdpose_edge.train.config import TrainConfig


def spec_of_run(config: TrainConfig, keypoints: KeypointSpec, classes: tuple[str, ...] = ("person",)) -> ModelSpec:
    """Return the spec of what a run trains; arguments and errors as of `registry.training_spec`."""
    family = training_of(config.family)
    spec = training_spec(config.family, config.network, config.input.spec(), keypoints, classes)
    decode = family.decode(config.loss) if hasattr(family, "decode") else None
    return spec if decode is None else replace(spec, decode=decode)


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
    same_keypoints = start.spec.keypoints.names == spec.keypoints.names
    if not same_keypoints and config.init_only is None:
        weights = carry_keypoints(weights, network.state_dict(), start.spec, spec)
    sentence = take_over(network, weights, config)
    if note is not None:
        note(sentence if same_keypoints else f"{sentence}; {_keypoint_words(start.spec, spec)}")
    return network


def carry_keypoints(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], old: ModelSpec, new: ModelSpec
) -> dict[str, Tensor]:
    """Return weights for other keypoints: the rows of those that both sets name, and the network's own for the others.

    Args:
        weights: of a model of the keypoints of `old`.
        own: of the network that is about to be trained, of those of `new`.
        old: of the model.
        new: of the network, of the same family; where the family does not say which rows are a keypoint's, no row goes
            over.
    """
    rows_of = getattr(training_of(new.family), "keypoint_rows", lambda _: 0)
    return {
        name: _carried(tensor, own[name], rows, old.keypoints.names, new.keypoints.names)
        if (rows := rows_of(name)) and name in own and own[name].shape[1:] == tensor.shape[1:]
        else tensor
        for name, tensor in weights.items()
    }


def _carried(given: Tensor, own: Tensor, rows: int, old: Sequence[str], new: Sequence[str]) -> Tensor:
    """Put rows of `given` into a copy of `own` by keypoint; what comes after the last keypoint goes over as it is."""
    result = own.clone()
    for position, name in enumerate(new):
        if name in old:
            start = rows * old.index(name)
            result[rows * position : rows * (position + 1)] = given[start : start + rows]
    result[rows * len(new) :] = given[rows * len(old) :]
    return result


def _keypoint_words(old: ModelSpec, new: ModelSpec) -> str:
    known = set(old.keypoints.names) if hasattr(training_of(new.family), "keypoint_rows") else set()
    fresh = [name for name in new.keypoints.names if name not in known]
    count = len(new.keypoints.names)
    return f"of {count} keypoints {count - len(fresh)} went over by name; began anew: {', '.join(fresh) or 'none'}"


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
