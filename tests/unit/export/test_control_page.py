"""What a page says of accuracy control."""

from __future__ import annotations

from typing import Any

import pytest

from mdpose_edge.commands.export import _print_findings
from mdpose_edge.export.control_page import control_section

SPEED = {"float": {"engine": "openvino", "ms": 20.0}, "int8": {"engine": "openvino", "ms": 5.04}}


def control(held: bool, speed: Any) -> dict[str, Any]:
    layers = [
        {
            "nodes": [f"/{name}"],
            "cost": cost,
            "share_of_arithmetic": 0.25,
            "returned_to_float": held and first,
        }
        for name, cost, first in (("a<b>", 0.5, True), ("c", 0.1, False))
    ]
    trials = [
        {"layers_in_float": 0, "held": False, "AP_drop": 1.25},
        {"layers_in_float": 1, "held": held, "AP_drop": None},
    ]
    share = 0.25 if held else 0.0
    return {
        "cost_unit": "<unit>",
        "layers": layers,
        "trials": trials,
        "share_of_arithmetic_in_float": share,
        "speed": speed,
    }


@pytest.mark.parametrize(
    ("speed", "words"),
    [(SPEED, "One call: float 20.0 ms, int8 5.0 ms."), (None, "What this costs in time shows on the device")],
)
def test_layers_trials_and_speed_are_listed(speed: Any, words: str) -> None:
    html = control_section(control(True, speed))
    assert "1 of 2 layers went back to float, 25.0% of the arithmetic" in html and words in html
    assert "<td>/a&lt;b&gt;</td><td>0.5</td><td>25.0%</td>" in html and "<td>/c</td>" not in html
    assert "cost alone, &lt;unit&gt;" in html
    assert "<td>1.25</td>" in html and "<td>—</td>" in html


def test_a_budget_out_of_reach_is_told_with_what_was_tried() -> None:
    html = control_section({name: value for name, value in control(False, None).items() if name != "speed"})
    assert "No number of layers held, up to the 1 costliest" in html and "✗ fell short" in html


def test_the_terminal_lists_the_returned_layers_with_their_cost(capsys: pytest.CaptureFixture[str]) -> None:
    found = {"accuracy_control": control(True, SPEED), "gate": {"caution": "", "sentence": "held"}}
    _print_findings(found)
    said = capsys.readouterr().out
    assert "cost, <unit>" in said and "/a<b>" in said and "0.5" in said and "/c" not in said
