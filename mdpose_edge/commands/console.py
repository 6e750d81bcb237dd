"""What every subcommand shares: common options, progress on stderr, tables, JSON files."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from mdpose_edge.common.progress import Progress
from mdpose_edge.errors import OutputError

Model = Annotated[
    Path, typer.Argument(help="A bundle folder, a .safetensors checkpoint, or a shipped model: people, people-int8.")
]
Data = Annotated[Path, typer.Option(help="A dataset's folder: COCO's layout, or as docs/data.md says of others.")]
Split = Annotated[str, typer.Option(help='"val" reads DIR/val2017 and its annotations.')]
DataFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="coco, crowdpose, ochuman, mupots, panoptic or instances. Default: the only one that is there.",
    ),
]
Keypoints = Annotated[
    str | None,
    typer.Option(
        metavar="SET",
        help="coco17, crowdpose14, ochuman19, mupots17, panoptic19, or a YAML file. Default: the format's.",
    ),
]
Runtime = Annotated[
    str | None, typer.Option(help="The engine: onnxruntime, openvino, tensorrt, torch. Default: the artifact's.")
]
CameraText = Annotated[
    str | None,
    typer.Option("--camera", metavar="FX,FY,CX,CY", help="What took the frames, px; 3-D models. Default: a guess."),
]
Focal = Annotated[
    float | None, typer.Option(help="The same, by its focal length alone, px: it looks at the middle of the frame.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads of the engine. Default: its own choice.")]


def place_for_file(path: Path | None) -> Path | None:
    """Refuse a place where no file can be, before the work rather than after it."""
    if path is not None:
        _check_place(path, path.parent, "file")
    return path


def place_for_folder(path: Path | None) -> Path | None:
    """Refuse a place where no folder can be, before the work rather than after it."""
    if path is not None:
        _check_place(path, path, "folder")
    return path


def _takes_files(folder: Path) -> bool:
    """Try: rights say little of root, and nothing of /proc; the file that is tried has no name, and stays nowhere."""
    from tempfile import TemporaryFile

    try:
        with TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _check_place(path: Path, folder: Path, kind: str) -> None:
    from mdpose_edge.common.files import nearest_folder

    above = nearest_folder(folder)
    if path == STDOUT:
        do = "name one; on stdout there are --json, and --jsonl and --csv of infer"
        raise OutputError("-", expected=f"a {kind}", got="-", do=do)
    if kind == "file" and path.is_dir():
        got = "a folder"
    elif not above.is_dir() or not (path.exists() or _takes_files(above)):
        got = f"{above}, where nothing can be written"
    else:
        return
    raise OutputError(str(path), expected=f"a place for a {kind}", got=got, do="name another")


STDOUT = Path("-")
_results: ContextVar[TextIO] = ContextVar("results")
"""The stdout that JSON goes to, while sys.stdout is stderr."""


def place_for_json(context: typer.Context, path: Path | None) -> Path | None:
    """Refuse a place where no file can be; for "-", send what is meant for people to stderr, as stdout is JSON's."""
    if path != STDOUT:
        return place_for_file(path)
    if sys.stdout is None:
        raise OutputError("--json -", expected="an open stdout", got="a closed one", do="name a file")
    _results.set(sys.stdout)
    context.with_resource(redirect_stdout(sys.stderr))
    return path


JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", callback=place_for_json, help="Write the figures here as JSON; - is stdout."
    ),
]


Force = Annotated[
    bool,
    typer.Option("--force", help="Replace files that no command here made; never one that is read."),
]


@contextmanager
def progress_shown(title: str) -> Iterator[Progress]:
    """Show how far each stage of a command is, on stderr: bars with ETA in a terminal, lines elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(title)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
    )
    with Bars(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console) as bar:
        tasks: dict[str, Any] = {}

        def report(done: int, total: int, note: str = "", stage: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage or title, total=total, note=note)
            bar.update(tasks[stage], completed=done, total=total, note=note)

        yield report


LINE_S = 60.0
"""Seconds after which a stage that is not watched in a terminal says how it is, twentieth or not."""


def _lines(title: str) -> Progress:
    """Report in lines, one for each twentieth of a stage and one a minute, for logs and pipes."""
    start, shown = time.monotonic(), dict[str, tuple[int, float]]()
    first = dict[str, tuple[int, float]]()

    def report(done: int, total: int, note: str = "", stage: str = "") -> None:
        now, part = time.monotonic(), 20 * done // max(1, total)
        first_done, began = first.setdefault(stage, (done, now))
        last_part, last_time = shown.get(stage, (-1, now))
        if part == last_part and now - last_time < LINE_S:
            return
        shown[stage] = part, now
        tail = f", {note}" if note else ""
        if done > first_done and done < total:
            tail = f", eta {_clock((now - began) * (total - done) / (done - first_done))}{tail}"
        print(f"{now - start:6.0f} s  {stage or title}: {done}/{total}{tail}", file=sys.stderr, flush=True)

    return report


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


PIPED_WIDTH = 200
"""Columns that a table may take where no terminal bounds them; it takes what it needs."""


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout; the first column is text, the others are figures."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table, width=None if console.is_terminal else PIPED_WIDTH)


def figure_text(value: float | None) -> str:
    """Show a figure with four digits, and None as nothing."""
    return "" if value is None else f"{value:.4g}"


def warn_of_left_out(folder: Path | None) -> None:
    """Say on stderr which files of a folder of plain images are not read."""
    from mdpose_edge.datasets.images import left_out
    from mdpose_edge.datasets.layout import is_dataset

    if folder is not None and not is_dataset(folder) and (others := left_out([folder])):
        typer.echo(f"mdpose-edge: left out: {others}.", err=True)


def _writable(value: Any) -> Any:
    """Return a document whose names of files any reader of JSON takes."""
    from mdpose_edge.common.files import name_text

    if isinstance(value, str):
        return name_text(value)
    if isinstance(value, dict):
        return {_writable(key): _writable(inner) for key, inner in value.items()}
    return [_writable(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def write_json(path: Path | None, document: dict[str, Any]) -> None:
    """Write what `--json FILE` asks for, where it was given."""
    from mdpose_edge import __version__
    from mdpose_edge.common.files import refused, write_whole
    from mdpose_edge.common.outputs import MADE_BY, MADE_BY_KEY

    marked = {MADE_BY_KEY: f"{MADE_BY} {__version__}", **document}
    text = json.dumps(_writable(marked), indent=2) + "\n"
    if path == STDOUT:
        results = _results.get()
        results.write(text)
        results.flush()
    elif path is not None:
        try:
            write_whole(path, text.encode())
        except OSError as error:
            raise refused(path, error, "nothing of it was kept") from error
