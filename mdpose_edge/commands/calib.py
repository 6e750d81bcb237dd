"""`mdpose-edge calib make` and `calib show`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdpose_edge.commands.console import (
    DataFormat,
    Force,
    JsonFile,
    place_for_file,
    print_table,
    progress_shown,
    warn_of_left_out,
    write_json,
)
from mdpose_edge.errors import ConfigError

if TYPE_CHECKING:
    from mdpose_edge.spec import InputSpec


app = typer.Typer(help="Calibration sets: the images that INT8 ranges are measured on.", no_args_is_help=True)


class Resize(str, Enum):
    """How a frame becomes the network input."""

    stretch = "stretch"
    letterbox = "letterbox"


@app.command("make")
def make(
    data: Annotated[Path, typer.Option(help="A folder of images; with --split, a dataset's.")],
    out: Annotated[Path, typer.Option(help="The set's folder.")],
    split: Annotated[
        str | None, typer.Option(help='"train": pick from this split, stratified over its annotations.')
    ] = None,
    like: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="Preprocess as this checkpoint or bundle takes its frames.")
    ] = None,
    height: Annotated[int | None, typer.Option(min=1, help="Of the input, px: instead of --like.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Of the input, px: instead of --like.")] = None,
    resize: Annotated[Resize | None, typer.Option(help="With --height and --width. Default: stretch.")] = None,
    num: Annotated[int, typer.Option(min=1, help="Images to pick.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same set.")] = 0,
    allow_few: Annotated[bool, typer.Option("--allow-few", help="Take fewer than 100 images.")] = False,
    data_format: DataFormat = None,
) -> None:
    """Pick images and write them as a model's inputs, with their hashes and a digest."""
    from mdpose_edge.calib.make import make_calibration_set

    spec = _input_spec(like, height, width, resize)
    warn_of_left_out(data)
    with progress_shown("preprocessing") as report:
        record = make_calibration_set(
            data,
            out,
            spec,
            split=split,
            num=num,
            seed=seed,
            allow_few=allow_few,
            progress=report,
            data_format=data_format,
        )
    for image in record.skipped:
        typer.echo(f"skipped {image.name}: {image.reason}", err=True)
    typer.echo(
        f"{out}: {len(record.images)} images, {len(record.skipped)} unreadable skipped, "
        f"{record.duplicates} duplicates passed over; digest {record.digest}"
    )


@app.command("show")
def show(
    calibration: Annotated[Path, typer.Argument(metavar="CALIB", help="A folder that calib make wrote.")],
    out: Annotated[
        Path, typer.Option(callback=place_for_file, help="Where the contact sheet goes: .png or .jpg.")
    ] = Path("calibration.png"),
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Draw a contact sheet of a calibration set, and print what is in it."""
    from mdpose_edge.calib.dataset import open_calibration_set
    from mdpose_edge.calib.show import calibration_sheet, calibration_statistics
    from mdpose_edge.common.outputs import check_outputs
    from mdpose_edge.datasets.images import write_image

    check_outputs({"--out": out, "--json": json_file}, [calibration], force=force)
    if out.suffix.lower() not in (".jpg", ".png"):
        raise ConfigError("--out", expected="a .png or .jpg file", got=str(out), do="correct the name")
    opened = open_calibration_set(calibration)
    with progress_shown("measuring") as report:
        found = calibration_statistics(opened, report)
    write_image(out, calibration_sheet(opened))
    write_json(json_file, found)
    print_table(
        f"{calibration}: {found['source']}, seed {found['seed']}", ("figure", "value"), _calibration_rows(found)
    )
    typer.echo(f"digest {found['digest']}; contact sheet: {out}")


def _input_spec(like: Path | None, height: int | None, width: int | None, resize: Resize | None) -> InputSpec:
    from mdpose_edge.runtimes.registry import read_model_spec
    from mdpose_edge.spec import InputSpec

    sizes = {"--height": height, "--width": width, "--resize": resize}
    given = [name for name, value in sizes.items() if value is not None]
    if like is not None:
        if given:
            do = "leave one or the other out"
            raise ConfigError("--like", expected="no other word on the input", got=" and ".join(given), do=do)
        return read_model_spec(like).input
    if height is None or width is None:
        got, do = " and ".join(given) or "none of them", "pass --like MODEL"
        raise ConfigError(expected="--like, or --height and --width", got=got, do=do)
    return InputSpec(height, width, resize=(resize or Resize.stretch).value)


def _calibration_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    size = found["input"]
    rows = [
        ("images", str(found["images"])),
        ("input", f"{size['width']}x{size['height']}, {size['resize']}"),
        ("unreadable, skipped", str(len(found["skipped"]))),
        ("duplicates, passed over", str(found["duplicates"])),
    ]
    for trait in ("people", "scale", "occlusion"):
        rows += [(f"{trait} {stratum}", str(count)) for stratum, count in (found[trait] or {}).items()]
    for quantity in ("brightness", "contrast"):
        rows += [(f"{quantity}, {quantile}", f"{value:.1f}") for quantile, value in found[quantity].items()]
    return rows
