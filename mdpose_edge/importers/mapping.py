"""Tensors of other codes under the names of ours: every one of them is used, and every one of ours is found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mdpose_edge.errors import CheckpointError
from mdpose_edge.importers.pth import Stored

BOOKKEEPING = "num_batches_tracked"
"""Of batch norms, for training; codes older than it have none."""
_DO = "give the whole file as its authors publish it"


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Rule:
    """Where tensors come from whose names begin alike; of several rules the longest beginning holds."""

    ours: str
    """How our names begin."""
    theirs: str | tuple[str, ...]
    """How theirs begin; what follows is alike. Several become one tensor, by `change`."""
    change: Callable[..., Tensor] = _as_it_is
    """Makes ours of theirs."""

    def sources(self, name: str) -> list[str]:
        """Return their names for one of ours."""
        theirs = (self.theirs,) if isinstance(self.theirs, str) else self.theirs
        return [beginning + name.removeprefix(self.ours) for beginning in theirs]


def map_tensors(
    found: Mapping[str, Stored],
    wanted: Mapping[str, Tensor],
    rules: Sequence[Rule],
    *,
    unused: Sequence[str] = (),
    where: str,
) -> dict[str, Tensor]:
    """Return the weights of a network.

    Args:
        found: what the file holds.
        wanted: the network's own state, for names and shapes.
        rules: from one to the other.
        unused: beginnings of their names that are not the network's, or have no effect in theirs either.
        where: the file, for messages.

    Raises:
        CheckpointError: a tensor is missing, left over, or of another shape.
    """
    weights, used = {}, set[str]()
    sources = {name: (rule, rule.sources(name)) for name in wanted for rule in [_rule_of(name, rules)]}
    _refuse_missing(found, {theirs for _, names in sources.values() for theirs in names}, where)
    for name, (rule, names) in sources.items():
        used.update(names)
        if names and names[0].endswith(BOOKKEEPING):
            weights[name] = torch.zeros((), dtype=torch.int64)
            continue
        weights[name] = _made(rule, [found[theirs] for theirs in names], names[0], wanted[name], where)
    left = [name for name in found if name not in used and not name.startswith(tuple(unused))]
    if left:
        expected = "no tensor beside those of the network"
        raise CheckpointError(where, expected=expected, got=f"{len(left)} left over, the first {left[0]}", do=_DO)
    return weights


def _made(rule: Rule, stored: Sequence[Stored], first: str, wanted: Tensor, where: str) -> Tensor:
    """Return one of our tensors."""
    try:
        made: Tensor | None = rule.change(*(one.load() for one in stored))
    except (RuntimeError, IndexError):  # torch's, over shapes that it cannot be made of
        made = None
    if made is None or made.shape != wanted.shape:
        expected, got = f"{first} of a shape that becomes {tuple(wanted.shape)}", str(stored[0].shape)
        raise CheckpointError(where, expected=expected, got=got, do="give a file of one of the published sizes")
    return made.to(wanted.dtype)


def _rule_of(name: str, rules: Sequence[Rule]) -> Rule:
    fitting = [rule for rule in rules if name.startswith(rule.ours)]
    assert fitting, f"no rule for {name}"
    return max(fitting, key=lambda rule: len(rule.ours))


def _refuse_missing(found: Mapping[str, Stored], needed: set[str], where: str) -> None:
    missing = sorted(name for name in needed - found.keys() if not name.endswith(BOOKKEEPING))
    if missing:
        expected = f"{len(needed)} tensors of the network"
        raise CheckpointError(where, expected=expected, got=f"{len(missing)} missing, the first {missing[0]}", do=_DO)


def rows(start: int, stop: int, *, more: int = 0) -> Callable[[Tensor], Tensor]:
    """Return what takes output channels, and adds some of zeros behind them."""

    def change(tensor: Tensor) -> Tensor:
        taken = tensor[start:stop]
        return torch.cat([taken, taken.new_zeros(more, *taken.shape[1:])]) if more else taken.clone()

    return change


def turned(tensor: Tensor) -> Tensor:
    """Turn the input channels of a stem around: it saw RGB, and sees BGR here."""
    return tensor.flip(1)
