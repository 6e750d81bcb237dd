"""Accuracy control: which layers an INT8 graph may keep in float, found with as few measurements of AP as will do.

Layers are ranked by what each costs when it alone is quantized; then the costliest are returned to float, first 1, then
2, 4, 8, until the gate holds, and between the last number that fell short and the first that held the fewest is looked
for. Only callables are known here, so that every target is controlled alike. Why so:
docs/decisions/0008-accuracy-control.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from mdpose_edge.common.onnx_graph import OnnxGraph
from mdpose_edge.common.progress import Progress

MAX_FLOAT_SHARE = 0.5
"""Of the multiply-accumulates, that may go back to float: beyond, it would be a float graph by the name of INT8."""

T = TypeVar("T")


@dataclass(frozen=True)
class Layer:
    """Convolutions that share their weights: one, or the same one at every level of the pyramid."""

    nodes: tuple[str, ...]
    """Their names in the float graph."""
    macs: int
    """Multiply-accumulates of one image, all of them together."""

    @property
    def name(self) -> str:
        """The first node's."""
        return self.nodes[0]


@dataclass(frozen=True)
class LayerCost:
    """What INT8 costs in one layer."""

    layer: Layer
    distance: float
    """Of the graph from the float one where this layer alone is quantized."""


@dataclass(frozen=True)
class Trial(Generic[T]):
    """A number of layers that was tried."""

    count: int
    """So many of the costliest are float."""
    held: bool
    found: T
    """What was measured."""


@dataclass(frozen=True)
class Search(Generic[T]):
    """What the search came to."""

    trials: tuple[Trial[T], ...]
    """In the order in which they were made."""

    @property
    def best(self) -> Trial[T] | None:
        """The one with the fewest layers in float that held, or None."""
        return min((trial for trial in self.trials if trial.held), key=lambda trial: trial.count, default=None)


def find_layers(graph: OnnxGraph, candidates: Collection[str]) -> list[Layer]:
    """List the layers of a float graph.

    Args:
        graph: in float.
        candidates: names of the convolutions that INT8 is for.

    Returns:
        In the order of the graph.
    """
    nodes: dict[str, list[str]] = defaultdict(list)
    macs: dict[str, int] = defaultdict(int)
    for node in graph.nodes:
        if node.op_type == "Conv" and node.name in candidates:
            weight = node.input[1]
            nodes[weight].append(node.name)
            # (N, C, H, W) of the output times (C_in / groups, kH, kW) of the weight, per image
            macs[weight] += int(np.prod(graph.shapes[node.output[0]][1:]) * np.prod(graph.shapes[weight][1:]))
    return [Layer(tuple(names), macs[weight]) for weight, names in nodes.items()]


def rank_layers(
    layers: Sequence[Layer],
    distance: Callable[[Collection[str]], float],
    progress: Progress | None = None,
) -> list[LayerCost]:
    """Find what INT8 costs in each layer.

    Args:
        layers: of the graph.
        distance: maps nodes to how far the graph is from the float one in which these are float and all others int8.
        progress: called with (layers done, layers in all).

    Returns:
        The costliest first; of equals, the one with less arithmetic, which costs less to return.
    """
    everything = {name for layer in layers for name in layer.nodes}
    costs = []
    for done, layer in enumerate(layers, 1):
        costs.append(LayerCost(layer, distance(everything - set(layer.nodes))))
        if progress is not None:
            progress(done, len(layers))
    return sorted(costs, key=lambda cost: (-cost.distance, cost.layer.macs))


def most_returnable(costs: Sequence[LayerCost], total_macs: int) -> int:
    """Count how many of the costliest layers may go back to float: see MAX_FLOAT_SHARE."""
    shares = np.cumsum([cost.layer.macs for cost in costs]) / total_macs
    return int(np.searchsorted(shares, MAX_FLOAT_SHARE, side="right"))


def search(most: int, measure: Callable[[int], tuple[bool, T]], plain: T) -> Search[T]:
    """Find the fewest layers that have to be float.

    That more float layers are no worse is taken for granted where it saves measurements, and nowhere else: the number
    that is chosen was itself measured, and held.

    Args:
        most: layers that may go back.
        measure: says of a graph with so many of the costliest layers in float whether it held, and what was found.
        plain: what was found with none of them in float, which did not hold.
    """
    trials = [Trial(0, False, plain)]

    def attempt(count: int) -> bool:
        held, found = measure(count)
        trials.append(Trial(count, held, found))
        return held

    fell, held_at = 0, None
    for count in _doubling(most):
        if attempt(count):
            held_at = count
            break
        fell = count
    while held_at is not None and held_at - fell > 1:
        middle = (fell + held_at) // 2
        if attempt(middle):
            held_at = middle
        else:
            fell = middle
    return Search(tuple(trials))


def describe(
    costs: Sequence[LayerCost], unit: str, found: Search[Any], drop: Callable[[Any], float | None]
) -> dict[str, Any]:
    """Return what a bundle's report says of the control, as JSON.

    Args:
        costs: the costliest first.
        unit: of a cost.
        found: the search.
        drop: maps what a trial found to the AP points lost.
    """
    total = sum(cost.layer.macs for cost in costs)
    returned = costs[: found.best.count] if found.best else []
    return {
        "cost_unit": unit,
        "layers": [
            {
                "nodes": list(cost.layer.nodes),
                "cost": cost.distance,
                "share_of_arithmetic": cost.layer.macs / total,
                "returned_to_float": cost in returned,
            }
            for cost in costs
        ],
        "trials": [
            {"layers_in_float": trial.count, "held": trial.held, "AP_drop": drop(trial.found)} for trial in found.trials
        ],
        "share_of_arithmetic_in_float": sum(cost.layer.macs for cost in returned) / total,
    }


def _doubling(most: int) -> Iterable[int]:
    count = 1
    while count < most:
        yield count
        count *= 2
    if most:
        yield most
