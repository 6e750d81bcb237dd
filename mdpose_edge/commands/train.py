"""`mdpose-edge train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdpose_edge.commands.console import Data, Split, progress_shown


def train(
    config: Annotated[Path, typer.Argument(help="A YAML file, as in configs/.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="The run's folder.")],
    split: Split = "train",
    override: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key, like optimizer.lr=0.001.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
) -> None:
    """Train a model; writes OUT/model.safetensors, log.csv, and last.safetensors to resume from."""
    from mdpose_edge.train.config import load_config
    from mdpose_edge.train.loop import Progress
    from mdpose_edge.train.loop import train as run

    settings = load_config(config, override or [])
    with progress_shown("training") as report:

        def show(step: Progress) -> None:
            report(step.iteration, step.iterations, f"loss {step.loss:.3f}, {step.images_per_s:.0f} images/s")

        model = run(settings, data, out, split=split, resume=resume, report=show)
    typer.echo(str(model))
