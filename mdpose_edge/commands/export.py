"""`mdpose-edge export`: a checkpoint becomes a bundle."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from mdpose_edge.commands.console import Force, figure_text, print_table, progress_shown, warn_of_left_out
from mdpose_edge.errors import ConfigError


class TargetName(str, Enum):
    """What an export is for."""

    onnx = "onnx"
    openvino = "openvino"
    tensorrt = "tensorrt"
    jetson = "jetson"
    triton = "triton"


class PrecisionName(str, Enum):
    """Arithmetic of an exported graph."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


class MethodName(str, Enum):
    """How INT8 ranges are chosen."""

    min_max = "min-max"
    percentile = "percentile"
    entropy = "entropy"
    mse = "mse"


def export(
    context: typer.Context,
    checkpoint: Annotated[
        Path, typer.Argument(help="A .safetensors checkpoint, or people: the shipped one. people-int8: see below.")
    ],
    out: Annotated[Path, typer.Option(help="The bundle folder to write.")],
    target: Annotated[TargetName, typer.Option(help="What will run the graph.")],
    precision: Annotated[
        PrecisionName | None,
        typer.Option(help="Arithmetic of the graph. Default: fp16 for tensorrt and jetson, else fp32."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images per call: the graph's shape is static.")] = 1,
    calib: Annotated[
        Path | None, typer.Option(metavar="CALIB", help="With int8: a folder that mdpose-edge calib make wrote.")
    ] = None,
    calib_method: Annotated[
        MethodName | None,
        typer.Option(help="With int8: how ranges are chosen. Default: what measured best for the target."),
    ] = None,
    keep_float: Annotated[
        list[str] | None, typer.Option(metavar="NODE", help="With int8: leave this convolution float; may be repeated.")
    ] = None,
    allow_few: Annotated[
        bool, typer.Option("--allow-few", help="With int8: take a set of fewer than 100 images.")
    ] = False,
    trt: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION", help="tensorrt: what the device has, 8.5 to 11. Default: 11. jetson: JetPack's."
        ),
    ] = None,
    jetpack: Annotated[
        str | None, typer.Option(metavar="VERSION", help="jetson: 5.1, 6.0, 6.1, 6.2, 7.0, 7.1 or 7.2. Default: 6.2.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="jetson: orin-nano, orin-nx, agx-orin, xavier-nx, agx-xavier or thor. Default: orin-nano, "
            "which suits every Orin.",
        ),
    ] = None,
    nvdla: Annotated[
        int | None, typer.Option(metavar="CORE", help="jetson: run on this NVDLA core, 0 or 1. Default: on the GPU.")
    ] = None,
    val_data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run the gate on this dataset, or these images; what falls is not written."),
    ] = None,
    val_split: Annotated[str, typer.Option(help='Of --val-data: "val" reads DIR/val2017.')] = "val",
    val_format: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="Of --val-data: coco, crowdpose, ochuman, instances; where it has two."),
    ] = None,
    val_limit: Annotated[int | None, typer.Option(min=1, help="Of --val-data: only the first so many images.")] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(min=0, help="AP points that may be lost. With int8, layers return to float until it holds."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --val-data: write DIR/index.html, the gate's page.")
    ] = None,
    force: Force = False,
) -> None:
    """Turn a checkpoint into a bundle, after comparing its graph with torch.

    INT8 takes a calibration set, and each target has a form of its own. onnx: u8 activations and s8 weights, which is
    fast on onnxruntime's CPU provider. openvino: NNCF's. tensorrt and jetson: Q/DQ. people-int8, the shipped model,
    draws people to calibrate on and for the gate, and takes no other option than --target, --out, --report and --force.

    An engine of TensorRT is built on the device, by mdpose-edge build: these two targets need no GPU here.

    triton writes the model repository of an onnx bundle; mdpose-edge triton takes other bundles, and has options.

    With --val-data, the bundle appears only if the gate holds: else exit code 1, and no bundle.
    """
    from mdpose_edge.check.report import REPORT_FILE
    from mdpose_edge.common.outputs import check_outputs
    from mdpose_edge.export.bundle import export_checkpoint
    from mdpose_edge.export.options import ExportOptions
    from mdpose_edge.shipped import checkpoint_path, is_shipped_int8

    page = None if report is None else report / REPORT_FILE
    check_outputs({"--report": page}, [checkpoint, calib, val_data], force=force)
    if is_shipped_int8(checkpoint):
        _check_only(context, str(checkpoint), {"checkpoint", "out", "target", "report", "force"})
        _export_int8(str(checkpoint), out, target, report)
        return
    options = ExportOptions(
        target=target.value,
        precision=None if precision is None else precision.value,
        batch=batch,
        calib=calib,
        calib_method=None if calib_method is None else calib_method.value,
        keep_float=tuple(keep_float or ()),
        allow_few=allow_few,
        trt=trt,
        jetpack=jetpack,
        device=device,
        nvdla=nvdla,
        val_data=val_data,
        val_split=val_split,
        val_format=val_format,
        val_limit=val_limit,
        max_drop=max_drop,
        report=report,
    )
    warn_of_left_out(val_data)
    with progress_shown("exporting") as show:
        done = export_checkpoint(checkpoint_path(checkpoint), out, options, progress=show)
    if val_data is not None:
        _print_findings(done.report)
    typer.echo(str(done.path))


def _check_only(context: typer.Context, name: str, taken: Collection[str]) -> None:
    """Refuse the options that a shipped model's INT8 form does not take."""
    from mdpose_edge.shipped import INT8_SUFFIX

    for option in context.params.keys() - taken:
        source = context.get_parameter_source(option)
        if source is not None and source.name == "COMMANDLINE":
            do = f"leave it out, or export {name.removesuffix(INT8_SUFFIX)} with --precision int8"
            expected = f"nothing more on {name}, which brings its own"
            raise ConfigError(f"--{option.replace('_', '-')}", expected=expected, got="this option", do=do)


def _export_int8(name: str, out: Path, target: TargetName, report: Path | None) -> None:
    """Export a shipped model's INT8 form."""
    from mdpose_edge.export.shipped_int8 import export_shipped_int8

    with progress_shown("exporting") as show:
        done = export_shipped_int8(name, out, target.value, report=report, progress=show)
    _print_findings(done.report)
    typer.echo(str(done.path))


def _print_findings(found: Mapping[str, Any]) -> None:
    """Say what the gate found, and which layers went back to float."""
    from mdpose_edge.export.control_page import speed_sentence

    control = found.get("accuracy_control")
    if control is not None:
        rows = [
            (layer["nodes"][0], figure_text(layer["cost"]), f"{layer['share_of_arithmetic']:.1%}")
            for layer in control["layers"]
            if layer["returned_to_float"]
        ]
        print_table("layers returned to float", ("convolution", f"cost, {control['cost_unit']}", "arithmetic"), rows)
        typer.echo(speed_sentence(control))
    if found["gate"]["caution"]:
        typer.echo(found["gate"]["caution"])
    typer.echo(f"the gate: {found['gate']['sentence']}")
