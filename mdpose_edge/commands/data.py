"""`mdpose-edge data check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdpose_edge.commands.console import (
    DataFormat,
    Force,
    JsonFile,
    Keypoints,
    Split,
    place_for_file,
    print_table,
    progress_shown,
    write_json,
)
from mdpose_edge.errors import ConfigError

if TYPE_CHECKING:
    from mdpose_edge.datasets.faults import Fault

app = typer.Typer(help="Datasets: are they sound?", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `check` a word of its own, although it is the only one."""


@app.command("check")
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A dataset's folder: docs/data.md has the layouts.")],
    split: Split = "val",
    data_format: DataFormat = None,
    keypoints: Keypoints = None,
    out: Annotated[
        Path | None, typer.Option(callback=place_for_file, help="A contact sheet of the suspects: .png or .jpg.")
    ] = None,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Look for every fault of a split: 0 none, 1 some, 2 it cannot be read."""
    from mdpose_edge.common.outputs import check_outputs
    from mdpose_edge.datasets.check import check_data, suspects_sheet
    from mdpose_edge.datasets.images import write_image
    from mdpose_edge.datasets.keypoints import keypoint_set

    check_outputs({"--out": out, "--json": json_file}, [folder, keypoints], force=force)
    if out is not None and out.suffix.lower() not in (".jpg", ".png"):
        raise ConfigError("--out", expected="a .png or .jpg file", got=str(out), do="correct the name")
    wanted = None if keypoints is None else keypoint_set(keypoints)
    with progress_shown("checking") as report:
        found = check_data(folder, split, data_format, keypoints=wanted, progress=report)
    if out is not None and found.faults:
        write_image(out, suspects_sheet(found))
    write_json(json_file, found.to_json_dict())
    what = f"{found.people} people, {found.labelled_people} with keypoints"
    if found.categories:
        what = f"{found.people} boxes: " + ", ".join(f"{count} {name}" for name, count in found.categories.items())
    typer.echo(f"{found.annotation_file} ({found.format}): {found.images} images, {what}")
    if not found.faults:
        typer.echo("no faults")
        return
    first = {fault.kind: fault for fault in reversed(found.faults)}
    rows = [(kind, str(count), _fault_line(first[kind])) for kind, count in found.counts().items()]
    total = len(found.faults)
    print_table(f"{total} fault{'' if total == 1 else 's'}", ("kind", "count", "the first"), rows)
    if out is not None:
        typer.echo(f"suspects: {out}")
    raise typer.Exit(1)


def _fault_line(fault: Fault) -> str:
    """Name what is at fault, where it is one image or person, and say what was found."""
    subject = fault.image or ("" if fault.annotation is None else f"annotation {fault.annotation}")
    return f"{subject}: {fault.detail}" if subject else fault.detail
