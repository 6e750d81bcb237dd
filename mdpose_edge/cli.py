"""The command `mdpose-edge`: gathers the subcommands of commands/, each of which imports its work inside the function.

Exit codes: 0 done, 1 a gate fell short, 2 bad input or a missing package, 3 a fault of its own. One sentence on
stderr says why.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from mdpose_edge import __version__
from mdpose_edge.commands import (
    bench,
    build,
    calib,
    check,
    data,
    demo,
    doctor,
    evaluate,
    export,
    importing,
    infer,
    models,
    nvdla,
    synth,
    train,
    triton,
    view,
)
from mdpose_edge.commands.door import CRASHED, crash_sentence, hold_standard_files
from mdpose_edge.common.files import refused
from mdpose_edge.common.optional import missing_package
from mdpose_edge.common.secrets import without_secrets
from mdpose_edge.errors import GateError, MdposeError

app = typer.Typer(
    help="Multi-person pose estimation on edge devices: train, export, run and check.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_show_locals=False,
)

app.add_typer(synth.app, name="synth")
app.command("train", cls=train.TrainCommand)(train.train)
app.command("import")(importing.import_weights)
app.command("export")(export.export)
app.command("build")(build.build)
app.command("eval")(evaluate.evaluate)
app.command("check")(check.check)
app.command("infer")(infer.infer)
app.command("view")(view.view)
app.command("bench")(bench.bench)
app.command("models")(models.models)
app.add_typer(calib.app, name="calib")
app.add_typer(data.app, name="data")
app.command("doctor")(doctor.doctor)
app.command("nvdla")(nvdla.nvdla)
app.command("triton")(triton.triton)
app.command("demo")(demo.demo)


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


def _leave(number: int, frame: FrameType | None) -> None:
    """End as sys.exit does, so that what is half written is removed."""
    sys.exit(128 + number)


def main() -> None:
    """Run the command line; whatever goes wrong becomes one sentence.

    Errors made on purpose, and the system's refusals, give exit code 2; what nobody foresaw gives 3 and a crash report.
    """
    signal.signal(signal.SIGTERM, _leave)
    stdout, stderr = sys.stdout, sys.stderr
    hold_standard_files()
    try:
        app()
    except MdposeError as error:
        _refuse(error)
    except OSError as error:
        _refuse(refused(error.filename or "the output", error, "nothing half-written was kept"))
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (missing := missing_package(error)):
            _refuse(missing)
        print(f"mdpose-edge: {crash_sentence(error)}", file=sys.stderr)
        sys.exit(CRASHED)
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = stdout, stderr


def _refuse(error: MdposeError) -> NoReturn:
    print(f"mdpose-edge: {without_secrets(str(error))}", file=sys.stderr)
    sys.exit(1 if isinstance(error, GateError) else 2)
