"""What accuracy control did, as a part of the gate's page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any


def control_section(control: Mapping[str, Any]) -> str:
    """Return the HTML of what `accuracy.describe` gives, with the speed where some number of layers held."""
    unit = control["cost_unit"]
    returned = [layer for layer in control["layers"] if layer["returned_to_float"]]
    if not returned:
        most = max(trial["layers_in_float"] for trial in control["trials"])
        outcome = f"<p>No number of layers held, up to the {most} costliest, which are half of the arithmetic.</p>"
        return (
            f"<h2>Accuracy control</h2>{outcome}{_layers(control['layers'][:most], unit)}{_trials(control['trials'])}"
        )
    share = f"{control['share_of_arithmetic_in_float']:.1%}"
    return (
        f"<h2>Accuracy control</h2><p>Plain INT8 fell short. {len(returned)} of {len(control['layers'])} layers went "
        f"back to float, {share} of the arithmetic. {escape(speed_sentence(control))}</p>"
        f"{_layers(returned, unit)}{_trials(control['trials'])}"
    )


def speed_sentence(control: Mapping[str, Any]) -> str:
    """Say what the returned layers cost in time, as far as it can be known on this machine."""
    if control["speed"] is None:
        return "What this costs in time shows on the device: mdpose-edge bench."
    times = ", ".join(f"{name} {one['ms']:.1f} ms" for name, one in control["speed"].items())
    return f"One call: {times}."


def _layers(layers: list[Mapping[str, Any]], unit: str) -> str:
    rows = "".join(
        f"<tr><td>{escape(layer['nodes'][0])}</td><td>{layer['cost']:.3g}</td>"
        f"<td>{layer['share_of_arithmetic']:.1%}</td></tr>"
        for layer in layers
    )
    return (
        f'<div class="scroll"><table class="outputs"><tr><th>convolution</th><th>cost alone, {escape(unit)}</th>'
        f"<th>arithmetic</th></tr>{rows}</table></div>"
    )


def _trials(trials: list[Mapping[str, Any]]) -> str:
    rows = "".join(
        f'<tr class="{style}"><td>{trial["layers_in_float"]}</td><td>{_points(trial["AP_drop"])}</td>'
        f'<td class="state {style}">{state}</td></tr>'
        for trial in trials
        for style, state in [("held", "✓ held") if trial["held"] else ("fell", "✗ fell short")]
    )
    return (
        '<p>Numbers of layers that were tried, in this order:</p><div class="scroll"><table class="outputs">'
        f'<tr><th>layers in float</th><th>AP lost, points</th><th class="state">the gate</th></tr>{rows}</table></div>'
    )


def _points(drop: float | None) -> str:
    return "—" if drop is None else f"{drop:.2f}"
