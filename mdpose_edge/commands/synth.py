"""`mdpose-edge synth`: drawn people in COCO's layout, in pictures or in motion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mdpose_edge.commands.console import progress_shown
from mdpose_edge.errors import ConfigError

Out = Annotated[Path, typer.Argument(help="The folder to make, in COCO's layout.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")]


class ImagesByDefault(TyperGroup):
    """A group whose first word may be the folder: `synth OUT` is `synth images OUT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put "images" before what is no subcommand."""
        if args and args[0] not in (*self.commands, "--help"):
            args = ["images", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=ImagesByDefault,
    no_args_is_help=True,
    help="Draw people with ground truth: a dataset in COCO's layout. `synth OUT` is `synth images OUT`.",
)


@app.command()
def images(
    out: Out,
    images: Annotated[int, typer.Option(min=2, help="Images in all.")] = 1000,
    val_images: Annotated[
        int | None, typer.Option(min=1, help="How many of them are val2017. Default: 1 in 10.")
    ] = None,
    size: Annotated[int, typer.Option(help="Width and height, px.")] = 736,
    seed: Seed = 0,
    people: Annotated[str, typer.Option(help="People in an image: a number, a range like 1-8, 0 for nobody.")] = "1-8",
    occlusion: Annotated[float, typer.Option(help="0: people apart; 1: every person overlapped by another.")] = 0.2,
    variety: Annotated[float, typer.Option(help="Share in any pose; the others stand or walk, facing us.")] = 1.0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw; any number gives the same bytes.")] = 1,
) -> None:
    """Draw pictures of people with ground truth."""
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


@app.command()
def video(
    out: Out,
    seconds: Annotated[float, typer.Option(help="How long.")] = 10.0,
    fps: Annotated[float, typer.Option(help="Frames per second.")] = 30.0,
    size: Annotated[str, typer.Option(metavar="WxH", help="Of a frame, px; one number is a square.")] = "640x360",
    people: Annotated[int, typer.Option(help="How many.")] = 4,
    seed: Seed = 0,
    mp4: Annotated[bool, typer.Option("--mp4", help="Write video.mp4 (MPEG-4) beside the frames.")] = False,
) -> None:
    """Draw moving people with ground truth for every frame: joints, identities, 3-D, camera."""
    from mdpose_edge.synth import write_video

    with progress_shown("drawing") as report:
        write_video(
            out,
            seconds=seconds,
            fps=fps,
            size_wh=_size(size),
            people=people,
            seed=seed,
            mp4=mp4,
            progress=report,
        )
    typer.echo(f"{out}: {round(seconds * fps)} frames in val2017" + (", and video.mp4" if mp4 else ""))


def _range(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    if not low.isdecimal() or (dash and not high.isdecimal()):
        raise ConfigError("--people", expected="a number or a range like 1-8", got=text, do="correct it")
    return int(low), int(high or low)


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.partition("x")
    if not width.isdecimal() or (cross and not height.isdecimal()):
        raise ConfigError("--size", expected="WxH or one number, px", got=text, do="correct it")
    return int(width), int(height or width)
