"""`mdpose-edge train`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from mdpose_edge.commands.console import (
    Data,
    DataFormat,
    Force,
    Keypoints,
    Split,
    place_for_folder,
    progress_shown,
)
from mdpose_edge.common.progress import Progress, no_progress
from mdpose_edge.errors import ConfigError

if TYPE_CHECKING:
    from mdpose_edge.train.loop import TrainProgress
    from mdpose_edge.train.validation import Validation


class TrainCommand(TyperCommand):
    """Lets `--resume` stand alone or take the word auto, which Typer's options cannot."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write out the value that a bare --resume stands for."""
        spelled = list[str]()
        for word, after in zip(args, [*args[1:], ""], strict=True):
            spelled.append("--resume=always" if word == "--resume" and after != "auto" else word)
        return super().parse_args(ctx, spelled)


def train(
    config: Annotated[Path, typer.Argument(help="A YAML file, as in configs/.")],
    data: Data,
    out: Annotated[Path, typer.Option(callback=place_for_folder, help="The run's folder.")],
    split: Split = "train",
    val: Annotated[str, typer.Option(help="The split to evaluate on every eval_every iterations.")] = "val",
    override: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key, like optimizer.lr=0.001.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Start from this checkpoint, or from people: the shipped model.")
    ] = None,
    data_format: DataFormat = None,
    keypoints: Keypoints = None,
    resume: Annotated[
        str,
        typer.Option(
            "--resume",
            metavar="[auto]",
            show_default=False,
            help="Go on from the run's last checkpoint; with `auto`, start where there is none.",
        ),
    ] = "never",
    force: Force = False,
) -> None:
    """Train a model; writes OUT/model.safetensors, log.csv, and last.safetensors to resume from."""
    _wait_passively()
    from mdpose_edge.common.outputs import check_output
    from mdpose_edge.datasets.layout import BOX_FORMAT, locate
    from mdpose_edge.train.config import load_config
    from mdpose_edge.train.loop import CONFIG_FILE, MODEL_FILE, RESUME_FILE, Interrupted
    from mdpose_edge.train.loop import train as run

    if not (out / RESUME_FILE).is_file():
        check_output("--out", out / CONFIG_FILE, (), force=force)
    given = {"init": init, "data.format": data_format, "data.keypoints": keypoints}
    overrides = [*(override or []), *(f"{key}={value}" for key, value in given.items() if value is not None)]
    settings = load_config(config, overrides)
    located = locate(data, split, settings.data.format)
    if _is_main():
        typer.echo(f"data: {located.annotation_file} ({located.format})", err=True)
    boxes = located.format == BOX_FORMAT
    validation = _validation(data, val, settings.family, boxes=boxes) if settings.eval_every else None
    try:
        with _progress_of_main() as report:

            def show(step: TrainProgress) -> None:
                report(step.iteration, step.iterations, _note(step))

            outcome = run(
                settings,
                data,
                out,
                split=split,
                resume=_resume(resume),
                validation=validation,
                report=show,
                note=lambda sentence: typer.echo(sentence, err=True),
            )
    except KeyboardInterrupt as stop:
        if _is_main():
            typer.echo(_interrupted(out / RESUME_FILE, saved=isinstance(stop, Interrupted)), err=True)
        raise typer.Exit(128 + signal.SIGINT) from stop
    if not _is_main():
        return
    if outcome.name == MODEL_FILE:
        typer.echo(str(outcome))
    else:
        typer.echo(f"stopped by SIGTERM; --resume goes on from {outcome}", err=True)


def _wait_passively() -> None:
    """Let OpenMP's threads sleep where they wait for one another, unless the environment says how they shall.

    They would spin: alone on the machine that is as fast, beside one other process ten times slower. The variables
    are read when torch is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")


def _interrupted(checkpoint: Path, *, saved: bool) -> str:
    if saved:
        return f"stopped by Ctrl-C; --resume goes on from {checkpoint}"
    if checkpoint.is_file():
        return f"ended at once by Ctrl-C; --resume goes on from {checkpoint}, the last that was written"
    return "ended at once by Ctrl-C, before the first checkpoint"


def _resume(text: str) -> bool | Literal["auto"]:
    if text == "auto":
        return "auto"
    if text not in ("never", "always"):
        raise ConfigError("--resume", expected="nothing or auto after it", got=text, do="correct it")
    return text == "always"


def _validation(data: Path, split: str, family: str, *, boxes: bool) -> Validation:
    """Hand training the protocol of evaluation, which it does not know itself."""
    from mdpose_edge.common.optional import require
    from mdpose_edge.evaluate import figure_names, protocol_figures
    from mdpose_edge.families.registry import evaluation_options
    from mdpose_edge.train.validation import Validation

    require("faster_coco_eval", extra="eval", feature="eval_every")  # before hours of training
    decode = evaluation_options(family, boxes=boxes)
    return Validation(data, split, decode, protocol_figures, figure_names)


@contextmanager
def _progress_of_main() -> Iterator[Progress]:
    """Show progress in the one process of a run that reports it."""
    if _is_main():
        with progress_shown("training") as report:
            yield report
    else:
        yield no_progress


def _is_main() -> bool:
    from mdpose_edge.train.distributed import is_main_process

    return is_main_process()


def _note(step: TrainProgress) -> str:
    parts = [f"loss {step.loss:.3f}", f"{step.images_per_s:.0f} images/s", f"data wait {step.data_wait:.0%}"]
    if step.gpu_use is not None:
        parts.append(f"GPU {step.gpu_use:.0%}")
    accuracy = None if step.figures is None else step.figures.get("AP")
    if accuracy is not None:
        parts.append(f"AP {accuracy:.3f}")
    return ", ".join(parts)
