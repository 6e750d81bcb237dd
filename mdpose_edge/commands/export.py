"""`mdpose-edge export`: a checkpoint becomes a bundle."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from mdpose_edge.commands.console import progress_shown


class Target(str, Enum):
    """What an export is for."""

    onnx = "onnx"
    openvino = "openvino"


class Precision(str, Enum):
    """Arithmetic of an exported graph."""

    fp32 = "fp32"
    fp16 = "fp16"


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A .safetensors checkpoint.")],
    out: Annotated[Path, typer.Option(help="The bundle folder to write.")],
    target: Annotated[Target, typer.Option(help="What will run the graph.")],
    precision: Annotated[Precision, typer.Option(help="Arithmetic of the graph.")] = Precision.fp32,
    batch: Annotated[int, typer.Option(min=1, help="Images per call: the graph's shape is static.")] = 1,
) -> None:
    """Turn a checkpoint into a bundle, after comparing its graph with torch."""
    from mdpose_edge.export.bundle import export_checkpoint

    with progress_shown("exporting") as report:
        export_checkpoint(checkpoint, out, target=target.value, precision=precision.value, batch=batch, progress=report)
    typer.echo(str(out))
