"""`mdpose-edge bench`: latency and throughput."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdpose_edge.commands.console import Force, JsonFile, Runtime, print_table, progress_shown, write_json
from mdpose_edge.errors import ConfigError

if TYPE_CHECKING:
    from mdpose_edge.bench.frames import Frames
    from mdpose_edge.bench.run import Benchmark, Run
    from mdpose_edge.bench.session import Variant

CALLS = "Calls that count, of each stream; they come in 20 turns, so rounded up to a multiple of 20."


def bench(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="Bundles or checkpoints; several batch sizes, say.")
    ],
    runtime: Runtime = None,
    against: Annotated[Path | None, typer.Option(help="Another artifact: they take turns, and ratios follow.")] = None,
    against_runtime: Annotated[
        str | None, typer.Option(help="The other's engine; without --against, of the same artifact.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Show frames of this, and time its capture. See infer.")] = None,
    size: Annotated[str, typer.Option(metavar="WxH", help="Of the drawn frames, without --source.")] = "1280x720",
    people: Annotated[int, typer.Option(min=1, max=30, help="In each drawn frame.")] = 10,
    threads: Annotated[str, typer.Option(help='CPU threads of an engine: "1,2,4". Default: its own choice.')] = "",
    streams: Annotated[str, typer.Option(help='Estimators that run at once: "1,2,4".')] = "1",
    frames: Annotated[int, typer.Option(min=1, help=CALLS)] = 200,
    warmup: Annotated[int, typer.Option(min=1, help="Calls before them.")] = 20,
    startup: Annotated[bool, typer.Option(help="Also time the way from nothing to the first pose.")] = True,
    require_stable: Annotated[
        bool, typer.Option("--require-stable", help="Exit with 1 where a run is not stable.")
    ] = False,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Measure latency and throughput, stage by stage, with the machine on record."""
    from mdpose_edge.bench.run import Plan, benchmark
    from mdpose_edge.bench.session import Variant
    from mdpose_edge.common.outputs import check_outputs

    check_outputs({"--json": json_file}, [*models, against, source], force=force)
    other = against if against is not None or against_runtime is None else models[0]
    if other is not None and len(models) > 1:
        raise ConfigError("--against", expected="one MODEL to compare", got=str(len(models)), do="name one")
    of_threads: list[int | None] = [*_counts("--threads", threads)] or [None]
    counts = [(t, s) for t in of_threads for s in _counts("--streams", streams)]
    groups: list[list[Variant]] = [[Variant(model, runtime, t, s)] for model in models for t, s in counts]
    if other is not None:
        groups = [[one, Variant(other, against_runtime, one.threads, one.streams)] for (one,) in groups]
    shown = _frames(source, size, people, frames)
    with progress_shown("measuring") as report:
        found = benchmark(groups, shown, Plan(frames, warmup, startup), progress=report)
    write_json(json_file, found.to_json_dict())
    _print(found)
    if require_stable and not found.stable:
        raise typer.Exit(1)


def _counts(flag: str, text: str) -> list[int]:
    """Read "1,2,4"; nothing gives an empty list."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(word.isdecimal() and int(word) > 0 for word in words) or (flag == "--streams" and not words):
        raise ConfigError(flag, expected='whole numbers from 1, like "1,2,4"', got=text or "none", do="correct it")
    return [int(word) for word in words]


def _frames(source: str | None, size: str, people: int, limit: int) -> Frames:
    from mdpose_edge.bench.frames import draw_frames, read_frames

    if source is not None:
        return read_frames(source, limit, note=lambda sentence: typer.echo(f"mdpose-edge: {sentence}", err=True))
    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ConfigError("--size", expected="WxH in pixels, like 1280x720", got=size, do="correct it")
    return draw_frames((int(width), int(height)), people)


def _print(found: Benchmark) -> None:
    typer.echo(found.frames)
    if found.capture_ms is not None:
        figures = ", ".join(f"{name} {ms:.2f}" for name, ms in found.capture_ms.items())
        typer.echo(f"capture, ms: {figures}")
    for run in found.runs:
        _print_run(run)
    for ratio in found.ratios:
        _print_ratio(ratio)
    typer.echo(f"\nmemory of this process at its peak, all engines: {_megabytes(found.peak_memory_mb)}")


def _print_run(run: Run) -> None:
    keys = ("fastest_tenth", "p50", "p90", "p99")
    columns = (f"ms per call of {run.batch}", "fastest tenth", *keys[1:], "images/s")
    rows = [
        (name, *(f"{ms[key]:.2f}" for key in keys), f"{ms['images_per_s']:.1f}") for name, ms in run.stages_ms.items()
    ]
    variant = run.variant
    threads = "the engine's own choice" if variant.threads is None else variant.threads
    typer.echo(f"\n{variant.model}, {run.engine}, {run.precision}, threads: {threads}, streams: {variant.streams}")
    print_table("", columns, rows)
    typer.echo(f"{run.images_per_s:.1f} images/s in all, {run.poses_per_image:.1f} poses per image, {run.calls} calls")
    if run.startup is not None:
        seconds = ", ".join(f"{name} {run.startup[name]:.2f}" for name in ("import", "verify", "engine", "first_pose"))
        typer.echo(
            f"start to first pose, s: {seconds}; memory at its peak: {_megabytes(run.startup['peak_memory_mb'])}"
        )
    typer.echo("stable" if run.stability.stable else f"NOT STABLE, do not quote: {run.stability.why}")


def _megabytes(memory: float | str) -> str:
    return memory if isinstance(memory, str) else f"{memory:.0f} MB"


def _print_ratio(ratio: dict[str, Any]) -> None:
    one, other = ratio["one"], ratio["other"]
    rows = [
        (
            name,
            f"{r['median']:.3f}",
            f"{r['low']:.3f}-{r['high']:.3f}",
            "yes" if r["tells_apart"] else "no",
            f"{r['of_fastest']:.3f}",
        )
        for name, r in ratio["stages"].items()
    ]
    confidence = next(iter(ratio["stages"].values()))["confidence"]
    typer.echo(f"\ntime per image: {one['model']} on {one['engine']} / {other['model']} on {other['engine']}")
    print_table("", ("stage", "within rounds", f"{confidence:.1%} interval", "differ", "of fastest tenths"), rows)
    typer.echo('"differ" rests on the ratios within rounds')
