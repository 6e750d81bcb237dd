"""`mdpose-edge triton`: a bundle becomes a model repository of NVIDIA Triton Inference Server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdpose_edge.commands.console import progress_shown


def triton(
    bundle: Annotated[Path, typer.Argument(help="A bundle for onnx, openvino or tensorrt.")],
    out: Annotated[Path, typer.Option(help="The model repository to write: for tritonserver --model-repository.")],
    name: Annotated[str, typer.Option(help="The ensemble's name, which clients ask for.")] = "pose",
    max_batch: Annotated[int, typer.Option(min=1, help="Images that the graph runs at a time.")] = 8,
    queue_delay_us: Annotated[
        int, typer.Option(min=0, help="Microseconds that a request may wait for others to fill a batch.")
    ] = 2000,
    instances: Annotated[int, typer.Option(min=1, help="Copies of the graph that run side by side.")] = 1,
) -> None:
    """Write a Triton model repository: the graph, the decoder, and the ensemble of both."""
    from mdpose_edge.triton.config import ServingOptions
    from mdpose_edge.triton.repository import write_repository

    options = ServingOptions(name, max_batch, queue_delay_us, instances)
    with progress_shown("writing the repository") as report:
        write_repository(bundle, out, options, progress=report)
    typer.echo(str(out))
