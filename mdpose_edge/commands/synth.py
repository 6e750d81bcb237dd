"""`mdpose-edge synth`: drawn people in COCO's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdpose_edge.commands.console import progress_shown
from mdpose_edge.errors import ConfigError


def synth(
    out: Annotated[Path, typer.Argument(help="The folder to make, in COCO's layout.")],
    images: Annotated[int, typer.Option(min=2, help="Images in all.")] = 1000,
    val_images: Annotated[
        int | None, typer.Option(min=1, help="How many of them are val2017. Default: 1 in 10.")
    ] = None,
    size: Annotated[int, typer.Option(help="Width and height, px.")] = 736,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 0,
    people: Annotated[str, typer.Option(help="People in an image: a number, or a range like 1-8.")] = "1-8",
    occlusion: Annotated[float, typer.Option(help="0: people apart; 1: every person overlapped by another.")] = 0.2,
    variety: Annotated[float, typer.Option(help="Share in any pose; the others stand or walk, facing us.")] = 1.0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw; any number gives the same bytes.")] = 1,
) -> None:
    """Draw people with ground truth: a dataset in COCO's layout."""
    from mdpose_edge.synth import write_dataset

    held_out = max(1, images // 10) if val_images is None else val_images
    if held_out >= images:
        raise ConfigError("--val-images", expected=f"less than --images {images}", got=str(held_out), do="lower it")
    with progress_shown("drawing") as report:
        write_dataset(
            out,
            train_images=images - held_out,
            val_images=held_out,
            size=size,
            seed=seed,
            people=_range(people),
            occlusion=occlusion,
            variety=variety,
            workers=workers,
            progress=report,
        )
    typer.echo(f"{out}: {images - held_out} images in train2017, {held_out} in val2017")


def _range(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    if not low.isdecimal() or (dash and not high.isdecimal()):
        raise ConfigError("--people", expected="a number or a range like 1-8", got=text, do="correct it")
    return int(low), int(high or low)
