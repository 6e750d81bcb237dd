"""`mdpose-edge export`: a checkpoint becomes a bundle."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from mdpose_edge.commands.console import progress_shown
from mdpose_edge.errors import ConfigError


class Target(str, Enum):
    """What an export is for."""

    onnx = "onnx"
    openvino = "openvino"


class Precision(str, Enum):
    """Arithmetic of an exported graph."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


class CalibrationMethod(str, Enum):
    """How INT8 ranges are chosen."""

    min_max = "min-max"
    percentile = "percentile"
    entropy = "entropy"
    mse = "mse"


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A .safetensors checkpoint.")],
    out: Annotated[Path, typer.Option(help="The bundle folder to write.")],
    target: Annotated[Target, typer.Option(help="What will run the graph.")],
    precision: Annotated[Precision, typer.Option(help="Arithmetic of the graph.")] = Precision.fp32,
    batch: Annotated[int, typer.Option(min=1, help="Images per call: the graph's shape is static.")] = 1,
    calib: Annotated[
        Path | None, typer.Option(metavar="CALIB", help="With int8: a folder that mdpose-edge calib make wrote.")
    ] = None,
    calib_method: Annotated[
        CalibrationMethod | None,
        typer.Option(help="With int8: how ranges are chosen. Default: what measured best for the target."),
    ] = None,
    keep_float: Annotated[
        list[str] | None, typer.Option(metavar="NODE", help="With int8: leave this convolution float; may be repeated.")
    ] = None,
    allow_few: Annotated[
        bool, typer.Option("--allow-few", help="With int8: take a set of fewer than 100 images.")
    ] = False,
) -> None:
    """Turn a checkpoint into a bundle, after comparing its graph with torch.

    INT8 takes a calibration set, and each target has a form of its own. onnx: u8 activations and s8 weights, which is
    fast on onnxruntime's CPU provider. openvino: the form of NNCF.
    """
    from mdpose_edge.export.bundle import Int8Options, export_checkpoint

    int8 = None
    if calib is None and (calib_method or keep_float or allow_few):
        got, do = "none", "pass --calib CALIB, or leave them out"
        raise ConfigError("--calib-method, --keep-float, --allow-few", expected="a calibration set", got=got, do=do)
    if calib is not None:
        method = None if calib_method is None else calib_method.value
        int8 = Int8Options(calib, method, tuple(keep_float or ()), allow_few)
    with progress_shown("exporting") as report:
        export_checkpoint(
            checkpoint, out, target=target.value, precision=precision.value, batch=batch, int8=int8, progress=report
        )
    typer.echo(str(out))
