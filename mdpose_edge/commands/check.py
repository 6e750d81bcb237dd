"""`mdpose-edge check`: the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mdpose_edge.commands.console import (
    DataFormat,
    Force,
    JsonFile,
    Runtime,
    Split,
    Threads,
    figure_text,
    place_for_folder,
    print_table,
    progress_shown,
    warn_of_left_out,
    write_json,
)
from mdpose_edge.errors import ConfigError


def check(
    candidate: Annotated[Path, typer.Argument(help="A bundle folder, or a .safetensors checkpoint.")],
    reference: Annotated[
        Path | None,
        typer.Option(help="What it should be: a bundle, a checkpoint, a .npz recording, or a results.json of eval."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="A dataset's folder, or one of plain images. Default: the images in a .npz reference."),
    ] = None,
    split: Split = "val",
    max_drop: Annotated[
        float | None, typer.Option(min=0, help="AP points that the candidate may lose. Default: 1.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None,
    runtime: Runtime = None,
    reference_runtime: Annotated[str | None, typer.Option(help="The reference's engine. Default: its own.")] = None,
    threads: Threads = None,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", callback=place_for_folder, help="Write DIR/index.html, one page.")
    ] = None,
    json_file: JsonFile = None,
    data_format: DataFormat = None,
    record: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Compare nothing: record the head tensors, as a reference elsewhere."),
    ] = None,
    force: Force = False,
) -> None:
    """Hold an artifact against its reference: 0 held, 1 fell short, 2 could not be measured."""
    from mdpose_edge.check import gate
    from mdpose_edge.check.limits import Limits
    from mdpose_edge.check.measures.accuracy import AccuracyLimits
    from mdpose_edge.check.report import REPORT_FILE, write_report
    from mdpose_edge.common.outputs import check_outputs

    page = None if report is None else report / REPORT_FILE
    outputs = {"--json": json_file, "--report": page, "--record": record}
    check_outputs(outputs, [candidate, reference, data], force=force)
    warn_of_left_out(data)
    if (reference is None) == (record is None):
        got = "neither" if reference is None else "both"
        raise ConfigError(expected="either --reference or --record", got=got, do="give one of them")
    if record is not None and max_drop is not None:
        raise ConfigError("--max-drop", expected="a comparison", got="--record", do="leave it out")
    options: dict[str, Any] = {"runtime": runtime, "threads": threads, "limit": limit, "data_format": data_format}
    if reference is None:
        _record(candidate, record, data, split, options)
        return
    with progress_shown("checking") as show:
        found = gate.check(
            candidate,
            reference,
            data,
            split,
            reference_runtime=reference_runtime,
            limits=Limits() if max_drop is None else Limits(AccuracyLimits(max_drop)),
            layers=report is not None,
            progress=show,
            **options,
        )
    if max_drop is not None and "AP" not in {finding.key for finding in found.verdict.findings}:
        expected, do = "annotations that AP can be measured on", "give them by --data, or leave it out"
        raise ConfigError("--max-drop", expected=expected, got=f"{found.images.where} without", do=do)
    write_json(json_file, found.to_json_dict())
    rows = [
        (f.key, *(figure_text(v) for v in (f.candidate, f.reference, f.change, f.limit)), f.state)
        for f in found.verdict.findings
    ]
    columns = ("figure", "candidate", "reference", "change", "limit", "verdict")
    where = f"{len(found.images)} images of {found.images.where}"
    labels = found.unmeasured and f", {found.unmeasured}"
    print_table(f"{candidate} against {reference}, {where}{labels}", columns, rows)
    if report is not None:
        typer.echo(f"report: {write_report(found, report)}")
    if found.verdict.caution:
        typer.echo(found.verdict.caution)
    typer.echo(found.verdict.sentence())
    if not found.verdict.held:
        raise typer.Exit(1)


def _record(model: Path, out: Path | None, data: Path | None, split: str, options: dict[str, Any]) -> None:
    from mdpose_edge.check import gate

    assert out is not None
    if data is None:
        raise ConfigError("--data", expected="a folder with images to record", got="none", do="give one")
    with progress_shown("recording") as show:
        count = gate.record(model, out, data, split, progress=show, **options)
    typer.echo(f"{out}: head tensors of {count} images")
