"""The command `mdpose-edge`: parses, then imports the command's code inside the function.

Exit codes: 0 done, 1 a gate fell short, 2 bad input or a missing package, in one sentence on stderr.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from mdpose_edge import __version__
from mdpose_edge.errors import ConfigError, MdposeError

if TYPE_CHECKING:
    from mdpose_edge.spec import InputSpec

app = typer.Typer(
    help="Multi-person pose estimation on edge devices: train, export, run and check MDPose.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)

Model = Annotated[Path, typer.Argument(help="A bundle folder, or a .safetensors checkpoint.")]
Data = Annotated[Path, typer.Option(help="A folder in COCO's layout: annotations/, train2017/, val2017/.")]
Split = Annotated[str, typer.Option(help='"val" reads DIR/val2017 and its person_keypoints annotations.')]
Runtime = Annotated[str | None, typer.Option(help="The engine: onnxruntime, openvino, torch. Default: the artifact's.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads of the engine. Default: its own choice.")]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here as JSON.")]


calib = typer.Typer(help="Calibration sets: the images that INT8 ranges are measured on.", no_args_is_help=True)
app.add_typer(calib, name="calib")


class Target(str, Enum):
    """What an export is for."""

    onnx = "onnx"
    openvino = "openvino"


class Precision(str, Enum):
    """Arithmetic of an exported graph."""

    fp32 = "fp32"
    fp16 = "fp16"


class Resize(str, Enum):
    """How a frame becomes the network input."""

    stretch = "stretch"
    letterbox = "letterbox"


@app.command()
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
    with _progress("drawing") as report:
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
    with _progress("training") as report:

        def show(step: Progress) -> None:
            report(step.iteration, step.iterations, f"loss {step.loss:.3f}, {step.images_per_s:.0f} images/s")

        model = run(settings, data, out, split=split, resume=resume, report=show)
    typer.echo(str(model))


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A .safetensors checkpoint.")],
    out: Annotated[Path, typer.Option(help="The bundle folder to write.")],
    target: Annotated[Target, typer.Option(help="What will run the graph.")],
    precision: Annotated[Precision, typer.Option(help="Arithmetic of the graph.")] = Precision.fp32,
    batch: Annotated[int, typer.Option(min=1, help="Images per call: the graph's shape is static.")] = 1,
) -> None:
    """Turn a checkpoint into a bundle, after comparing its graph with torch."""
    from mdpose_edge.export.bundle import export_checkpoint

    with _progress("exporting") as report:
        export_checkpoint(checkpoint, out, target=target.value, precision=precision.value, batch=batch, progress=report)
    typer.echo(str(out))


@app.command("eval")
def evaluate(
    model: Model,
    data: Data,
    split: Split = "val",
    runtime: Runtime = None,
    threads: Threads = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None,
    results: Annotated[Path, typer.Option(help="Where the poses go, in COCO's result format.")] = Path("results.json"),
    json_file: JsonFile = None,
) -> None:
    """Measure accuracy by COCO's protocol: ten figures, and the poses behind them."""
    from mdpose_edge.coco import write_results
    from mdpose_edge.evaluate import evaluate as run

    with _progress("evaluating") as report:
        found = run(model, data, split, runtime=runtime, threads=threads, limit=limit, progress=report)
    write_results(results, found.results)
    _write_json(json_file, found.to_json_dict())
    rows = [(name, "no such people" if value is None else f"{value:.4f}") for name, value in found.figures.items()]
    rows += [("ms per image, median", f"{found.ms['median']:.1f}"), ("ms per image, p90", f"{found.ms['p90']:.1f}")]
    _table(f"{model} on {found.images} images of {data}, {found.engine}", ("figure", "value"), rows)
    typer.echo(f"poses: {results}")


@app.command()
def check(
    candidate: Annotated[Path, typer.Argument(help="A bundle folder, or a .safetensors checkpoint.")],
    reference: Annotated[
        Path | None,
        typer.Option(help="What it should be: a bundle, a checkpoint, a .npz recording, or a results.json of eval."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="A folder in COCO's layout, or of plain images. Default: the images in a .npz reference."),
    ] = None,
    split: Split = "val",
    max_drop: Annotated[float, typer.Option(min=0, help="AP points that the candidate may lose.")] = 1.0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None,
    runtime: Runtime = None,
    reference_runtime: Annotated[str | None, typer.Option(help="The reference's engine. Default: its own.")] = None,
    threads: Threads = None,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write DIR/index.html, one page.")] = None,
    json_file: JsonFile = None,
    record: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Compare nothing: record the head tensors, as a reference elsewhere."),
    ] = None,
) -> None:
    """Hold an artifact against its reference: 0 held, 1 fell short, 2 could not be measured."""
    from mdpose_edge.check import gate
    from mdpose_edge.check.report import write_report
    from mdpose_edge.check.verdict import Limits

    if (reference is None) == (record is None):
        got = "neither" if reference is None else "both"
        raise ConfigError(expected="either --reference or --record", got=got, do="give one of them")
    options: dict[str, Any] = {"runtime": runtime, "threads": threads, "limit": limit}
    if reference is None:
        _record(candidate, record, data, split, options)
        return
    with _progress("checking") as show:
        found = gate.check(
            candidate,
            reference,
            data,
            split,
            reference_runtime=reference_runtime,
            limits=Limits(max_drop=max_drop),
            progress=show,
            **options,
        )
    _write_json(json_file, found.to_json_dict())
    rows = [
        (f.key, *(_figure(v) for v in (f.candidate, f.reference, f.change, f.limit)), f.state)
        for f in found.verdict.findings
    ]
    columns = ("figure", "candidate", "reference", "change", "limit", "verdict")
    _table(f"{candidate} against {reference}, {len(found.frames)} images of {found.frames.where}", columns, rows)
    if report is not None:
        typer.echo(f"report: {write_report(found, report)}")
    typer.echo(found.verdict.sentence())
    if not found.verdict.held:
        raise typer.Exit(1)


@app.command()
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

    with _progress("inferring") as report:
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
    _write_json(json_file, document)
    poses = sum(len(image["poses"]) for image in document["images"])
    typer.echo(f"{out}: {poses} poses in {len(document['images'])} images")


@calib.command("make")
def calib_make(
    data: Annotated[Path, typer.Option(help="A folder of images; with --split, one in COCO's layout.")],
    out: Annotated[Path, typer.Option(help="The set's folder.")],
    split: Annotated[
        str | None, typer.Option(help='"train": pick from DATA/train2017, stratified over its annotations.')
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
) -> None:
    """Pick images and write them as a model's inputs, with their hashes and a digest."""
    from mdpose_edge.calib.make import make_calibration_set

    spec = _input_spec(like, height, width, resize)
    with _progress("preprocessing") as report:
        record = make_calibration_set(
            data, out, spec, split=split, num=num, seed=seed, allow_few=allow_few, progress=report
        )
    for image in record.skipped:
        typer.echo(f"skipped {image.name}: {image.reason}", err=True)
    typer.echo(
        f"{out}: {len(record.images)} images, {len(record.skipped)} unreadable skipped, "
        f"{record.duplicates} duplicates passed over; digest {record.digest}"
    )


@calib.command("show")
def calib_show(
    calibration: Annotated[Path, typer.Argument(metavar="CALIB", help="A folder that calib make wrote.")],
    out: Annotated[Path, typer.Option(help="Where the contact sheet goes: .png or .jpg.")] = Path("calibration.png"),
    json_file: JsonFile = None,
) -> None:
    """Draw a contact sheet of a calibration set, and print what is in it."""
    from mdpose_edge.calib.dataset import open_calibration_set
    from mdpose_edge.calib.show import calibration_sheet, calibration_statistics
    from mdpose_edge.images import write_image

    if out.suffix.lower() not in (".jpg", ".png"):
        raise ConfigError("--out", expected="a .png or .jpg file", got=str(out), do="correct the name")
    opened = open_calibration_set(calibration)
    with _progress("measuring") as report:
        found = calibration_statistics(opened, report)
    write_image(out, calibration_sheet(opened))
    _write_json(json_file, found)
    _table(f"{calibration}: {found['source']}, seed {found['seed']}", ("figure", "value"), _calibration_rows(found))
    typer.echo(f"digest {found['digest']}; contact sheet: {out}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the drawn people and of training.")] = 0,
) -> None:
    """Go the whole way on drawn people: synth, train, export, eval on each engine, infer. No download, no GPU."""
    from mdpose_edge.demo import run_demo

    with _progress("demo") as report:
        summary = run_demo(out, seed=seed, report=report)
    rows = [
        (name, f"{figures['AP']:.3f}", f"{figures['AP50']:.3f}", f"{figures['ms']:.1f}")
        for name, figures in summary["engines"].items()
    ]
    _table(f"{summary['seconds']:.0f} s in all", ("engine", "AP", "AP50", "ms per image"), rows)
    typer.echo(f"look at {out / 'poses.png'}; figures in {out / 'summary.json'}")


def _record(model: Path, out: Path | None, data: Path | None, split: str, options: dict[str, Any]) -> None:
    from mdpose_edge.check import gate

    assert out is not None
    if data is None:
        raise ConfigError("--data", expected="a folder with images to record", got="none", do="give one")
    with _progress("recording") as show:
        count = gate.record(model, out, data, split, progress=show, **options)
    typer.echo(f"{out}: head tensors of {count} images")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; errors made on purpose become one sentence and exit code 2."""
    try:
        app()
    except MdposeError as error:
        print(f"mdpose-edge: {error}", file=sys.stderr)
        sys.exit(2)


class _Report(Protocol):
    def __call__(self, done: int, total: int, note: str = "", stage: str = "") -> None: ...


@contextmanager
def _progress(title: str) -> Iterator[_Report]:
    """Show how far each stage of a command is, on stderr: bars with ETA in a terminal, lines elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(title)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
    )
    with Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console) as bar:
        tasks: dict[str, Any] = {}

        def report(done: int, total: int, note: str = "", stage: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage or title, total=total, note=note)
            bar.update(tasks[stage], completed=done, total=total, note=note)

        yield report


def _lines(title: str) -> _Report:
    """Report in lines, one for each twentieth of a stage, for logs and pipes."""
    start, shown = time.monotonic(), dict[str, int]()

    def report(done: int, total: int, note: str = "", stage: str = "") -> None:
        part = 20 * done // max(1, total)
        if shown.get(stage) != part:
            shown[stage] = part
            tail = f", {note}" if note else ""
            print(
                f"{time.monotonic() - start:6.0f} s  {stage or title}: {done}/{total}{tail}",
                file=sys.stderr,
                flush=True,
            )

    return report


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _write_json(path: Path | None, document: dict[str, Any]) -> None:
    from mdpose_edge.files import write_whole

    if path is not None:
        write_whole(path, (json.dumps(document, indent=2) + "\n").encode())


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


def _range(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    if not low.isdecimal() or (dash and not high.isdecimal()):
        raise ConfigError("--people", expected="a number or a range like 1-8", got=text, do="correct it")
    return int(low), int(high or low)


if __name__ == "__main__":
    main()
