"""`mdpose-edge import`: the authors' own weights become a checkpoint."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from mdpose_edge.commands.console import Force, place_for_file
from mdpose_edge.errors import OutputError


class SourceName(str, Enum):
    """Whose weights a file holds."""

    dekr = "dekr"
    hrnet_bottom_up = "hrnet-bottom-up"
    mmpose_dekr = "mmpose-dekr"
    centernet_mdn = "centernet-mdn"
    mdpose = "mdpose"


def import_weights(
    file: Annotated[Path, typer.Argument(help="A published .pth, or its tensors as .safetensors.")],
    source: Annotated[SourceName, typer.Option("--from", help="The code that it is of.")],
    out: Annotated[Path, typer.Option(callback=place_for_file, help="The .safetensors checkpoint to write.")],
    height: Annotated[
        int | None, typer.Option(min=1, help="Of the input, px. Default: what the authors publish.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, help="Of the input, px. Default: what the authors publish.")
    ] = None,
    scorer: Annotated[
        Path | None, typer.Option(metavar="FILE", help="dekr, hrnet-bottom-up: the scoring net, published apart.")
    ] = None,
    force: Force = False,
) -> None:
    """Turn the authors' own weights into a checkpoint, which then goes the way of all checkpoints.

    Nothing in the file is run: a pickle with code in it is refused. Every tensor is used, and every one of the network
    is found, or there is no checkpoint. What is not as it was in the authors' code is printed, and kept in the spec.
    """
    from mdpose_edge.common.outputs import check_outputs
    from mdpose_edge.importers.packages import require_packages

    if out.suffix != ".safetensors":
        raise OutputError("--out", expected="a name that ends in .safetensors", got=str(out), do="change it")
    check_outputs({"--out": out}, [file, scorer], force=force)
    require_packages()
    from mdpose_edge.importers.run import import_weights as run

    imported = run(file, source.value, out, height=height, width=width, scorer=scorer)
    typer.echo(f"{imported.tensors} tensors, none left over; not as in the authors' code:")
    for note in imported.notes:
        typer.echo(f"- {note}")
    typer.echo(str(imported.path))
