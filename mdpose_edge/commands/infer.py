"""`mdpose-edge infer`: poses of what one has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdpose_edge.commands.console import JsonFile, Model, Runtime, Threads, progress_shown, write_json


def infer(
    model: Model,
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Images, folders, or quoted globs.")],
    out: Annotated[Path, typer.Option(help="The folder for painted copies.")],
    runtime: Runtime = None,
    threads: Threads = None,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Poses scoring at or below this are left out.")] = 0.3,
    sigma: Annotated[bool, typer.Option("--sigma", help="Draw each keypoint's uncertainty as an ellipse.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Find people in images: painted copies, and keypoints with scores and uncertainty as JSON."""
    from mdpose_edge.infer import infer_images

    with progress_shown("inferring") as report:
        document = infer_images(
            model,
            sources,
            out,
            runtime=runtime,
            threads=threads,
            threshold=threshold,
            sigma=sigma,
            progress=report,
        )
    write_json(json_file, document)
    poses = sum(len(image["poses"]) for image in document["images"])
    typer.echo(f"{out}: {poses} poses in {len(document['images'])} images")
