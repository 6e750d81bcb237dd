"""`mdpose-edge models`: what the presets cost."""

from __future__ import annotations

from datetime import date
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from mdpose_edge.commands.console import Force, JsonFile, print_table, progress_shown, write_json


class TimedTarget(str, Enum):
    """Whose engine is timed."""

    onnx = "onnx"
    openvino = "openvino"


def models(
    configs: Annotated[
        list[Path] | None, typer.Argument(metavar="CONFIG...", help="Configurations. Default: those of configs/.")
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(metavar="PRECISION", help="Time an export with random weights here and now; may be repeated."),
    ] = None,
    target: Annotated[TimedTarget, typer.Option(help="With --measure: what runs the graph.")] = TimedTarget.openvino,
    threads: Annotated[int, typer.Option(min=1, help="With --measure: CPU threads of the engine.")] = 1,
    repeats: Annotated[int, typer.Option(min=1, help="With --measure: runs that count.")] = 20,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """List configurations with their parameters and GFLOP; times only where they are measured in this very run."""
    from mdpose_edge.bench.statistics import quantiles
    from mdpose_edge.common.outputs import check_outputs
    from mdpose_edge.export.presets import describe, measure_ms, preset_files
    from mdpose_edge.machine.facts import machine_identity

    check_outputs({"--json": json_file}, configs or [], force=force)
    precisions = list(dict.fromkeys(measure or []))
    paths = configs or preset_files()
    presets = [describe(path) for path in paths]
    times: list[dict[str, dict[str, float]]] = [{} for _ in paths]
    with progress_shown("measuring") as report:
        for number, path in enumerate(paths):
            for precision in precisions:
                found = measure_ms(path, target.value, precision, threads=threads, repeats=repeats)
                times[number][precision] = {name: round(ms, 3) for name, ms in quantiles(found).items()}
                report(len(precisions) * number + len(times[number]), len(precisions) * len(paths), path.stem)
    rows = [
        (
            preset.name,
            "x".join(map(str, preset.input_wh)),
            ", ".join(f"{name} {value}" for name, value in preset.summary.items()),
            f"{preset.parameters / 1e6:.2f}",
            f"{preset.gflop:.1f}",
            *(f"{times[number][precision][key]:.1f}" for precision in precisions for key in ("fastest_tenth", "p50")),
        )
        for number, preset in enumerate(presets)
    ]
    heads = [f"{precision}, {what}" for precision in precisions for what in ("fastest tenth", "median")]
    columns = ("preset", "input", "network", "params, M", "GFLOP")
    document: dict[str, Any] = {"presets": [vars(p) | {"ms": t} for p, t in zip(presets, times, strict=True)]}
    title = "per image"
    if precisions:
        conditions = {"target": target.value, "threads": threads, "date": date.today().isoformat()}
        document["measured"] = {**conditions, "machine": machine_identity(), "repeats": repeats}
        title = f"per image; ms: the network alone, {target.value}, {threads} thread(s), {machine_identity()['cpu']}"
    write_json(json_file, document)
    print_table(title, (*columns, *heads), rows)
