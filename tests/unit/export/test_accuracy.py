"""Accuracy control as such: what a layer is, in which order layers go back, and where the search stops."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("onnx")

from mdpose_edge.common.onnx_graph import OnnxGraph
from mdpose_edge.export.accuracy import (
    Layer,
    LayerCost,
    describe,
    find_layers,
    most_returnable,
    rank_layers,
    search,
)
from tests.artifacts import SIZE, Artifacts


def layers(*macs: int) -> list[Layer]:
    return [Layer((f"conv{i}",), n) for i, n in enumerate(macs)]


def test_convolutions_that_share_weights_are_one_layer(artifacts: Artifacts) -> None:
    import onnx

    model = onnx.load(str(artifacts.bundle("onnx") / "model.onnx"))
    names = {node.name for node in model.graph.node}
    found = find_layers(OnnxGraph(model), names)
    by_first = {layer.name: layer for layer in found}
    tower = by_first["/network/head/tower/tower.0/Conv"]
    assert tower.nodes == tuple(f"/network/head/tower/tower.0{level}/Conv" for level in ("", "_1", "_2"))
    cells = sum((SIZE // stride) ** 2 for stride in (8, 16, 32))
    assert tower.macs == cells * 16 * 16 * 9
    assert sum(len(layer.nodes) for layer in found) == sum(node.op_type == "Conv" for node in model.graph.node)
    assert find_layers(OnnxGraph(model), names - set(tower.nodes)) == [layer for layer in found if layer is not tower]


def test_layers_are_ranked_by_what_each_costs_when_it_alone_is_int8() -> None:
    costs = {"conv0": 0.1, "conv1": 3.0, "conv2": 0.1}
    seen: list[Collection[str]] = []

    def distance(keep_float: Collection[str]) -> float:
        seen.append(keep_float)
        (quantized,) = costs.keys() - keep_float
        return costs[quantized]

    ranked = rank_layers(layers(5, 5, 1), distance)
    assert [cost.layer.name for cost in ranked] == ["conv1", "conv2", "conv0"]
    assert seen == [{"conv1", "conv2"}, {"conv0", "conv2"}, {"conv0", "conv1"}]


def test_no_more_than_half_of_the_arithmetic_goes_back() -> None:
    costs = [LayerCost(layer, 1.0) for layer in layers(10, 30, 10, 10, 40)]
    assert most_returnable(costs, 100) == 3
    assert most_returnable(costs[-1:], 70) == 0
    assert most_returnable(costs[1:2], 60) == 1


@given(most=st.integers(1, 60), data=st.data())
def test_the_fewest_that_hold_are_found_in_few_measurements(most: int, data: st.DataObject) -> None:
    enough = data.draw(st.integers(1, most + 5))
    asked: list[int] = []

    def measure(count: int) -> tuple[bool, int]:
        asked.append(count)
        return count >= enough, count

    found = search(most, measure, 0)
    assert len(asked) == len(set(asked)) <= 2 * most.bit_length() + 1
    assert max(asked) <= most
    if enough > most:
        assert found.best is None
        assert asked[-1] == most
    else:
        assert found.best is not None
        assert (found.best.count, found.best.found) == (enough, enough)


def test_what_is_chosen_was_measured_and_held_even_where_more_is_worse() -> None:
    holds = {4, 6}
    found = search(8, lambda count: (count in holds, count), 0)
    assert found.best is not None
    assert found.best.count == 4


def test_the_report_lists_each_layer_with_its_cost() -> None:
    costs = [LayerCost(layer, 1.0 / (i + 1)) for i, layer in enumerate(layers(10, 30, 60))]
    found = search(2, lambda count: (count >= 2, 0.4 * count), 3.0)
    report = describe(costs, "nats per image", found, lambda drop: drop)
    assert [layer["returned_to_float"] for layer in report["layers"]] == [True, True, False]
    assert [layer["cost"] for layer in report["layers"]] == [1.0, 0.5, pytest.approx(1 / 3)]
    assert report["cost_unit"] == "nats per image"
    assert report["share_of_arithmetic_in_float"] == pytest.approx(0.4)
    assert report["trials"][0] == {"layers_in_float": 0, "held": False, "AP_drop": 3.0}
    assert [trial["layers_in_float"] for trial in report["trials"]] == [0, 1, 2]


def test_nothing_to_return_is_no_search(tmp_path: Path) -> None:
    found = search(0, lambda count: pytest.fail("measured"), "plain")
    assert found.best is None
    assert [trial.count for trial in found.trials] == [0]
