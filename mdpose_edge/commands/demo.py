"""`mdpose-edge demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdpose_edge.commands.console import print_table, progress_shown


def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the drawn people and of training.")] = 0,
) -> None:
    """Go the whole way on drawn people: synth, train, export, eval on each engine, INT8, infer. No download, no GPU.

    A photograph is shown beside them, through the shipped model for photographs in INT8.
    """
    from mdpose_edge.demo import INT8_BUNDLE, INT8_REPORT, PHOTO_MODEL, run_demo

    with progress_shown("demo") as report:
        summary = run_demo(out, seed=seed, progress=report)
    rows = [
        (name, f"{figures['AP']:.3f}", f"{figures['AP50']:.3f}", f"{figures['ms']:.1f}")
        for name, figures in [*summary["engines"].items(), ("openvino int8", summary["int8"])]
    ]
    print_table(f"{summary['seconds']:.0f} s in all", ("engine", "AP", "AP50", "ms per image"), rows)
    typer.echo(f"{out / INT8_BUNDLE}: the gate {summary['int8']['verdict']} ({out / INT8_REPORT / 'index.html'})")
    photo = summary["photo"]
    scores = ", ".join(f"{score:.2f}" for score in photo["scores"]) or "none"
    typer.echo(f"{PHOTO_MODEL}: the gate {photo['verdict']}; it is weak at portraits (docs/model-card-people.md)")
    typer.echo(f"{photo['file']}, a portrait by NASA: poses with scores {scores}")
    typer.echo(f"look at {out / 'poses.png'}; figures in {out / 'summary.json'}")
