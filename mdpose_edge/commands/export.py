"""`mdpose-edge export`: a checkpoint becomes a bundle."""

from __future__ import annotations

from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from mdpose_edge.commands.console import Force, figure_text, print_table, progress_shown, tell_left_out
from mdpose_edge.errors import ConfigError


class Target(str, Enum):
    """What an export is for."""

    onnx = "onnx"
    openvino = "openvino"
    tensorrt = "tensorrt"
    jetson = "jetson"
    triton = "triton"


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
    precision: Annotated[
        Precision | None,
        typer.Option(help="Arithmetic of the graph. Default: fp16 for tensorrt and jetson, else fp32."),
    ] = None,
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
        str | None, typer.Option(metavar="FORMAT", help="Of --val-data: coco, crowdpose or ochuman, where it has two.")
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
    fast on onnxruntime's CPU provider. openvino: NNCF's. tensorrt and jetson: Q/DQ.

    An engine of TensorRT is built on the device, by mdpose-edge build: these two targets need no GPU here.

    triton writes the model repository of an onnx bundle; mdpose-edge triton takes other bundles, and has options.

    With --val-data, the bundle appears only if the gate holds: else exit code 1, and no bundle.
    """
    from mdpose_edge.check.report import REPORT_FILE
    from mdpose_edge.common.outputs import check_outputs
    from mdpose_edge.export.bundle import Int8Options, export_checkpoint
    from mdpose_edge.export.targets.tensorrt_options import Wish
    from mdpose_edge.export.validation import Validation

    page = None if report is None else report / REPORT_FILE
    check_outputs({"--report": page}, [checkpoint, calib, val_data], force=force)
    if report is not None and report.resolve().is_relative_to(out.resolve()):
        do = "name another folder: a bundle may hold nothing but its own files"
        raise ConfigError("--report", expected="a place apart from --out", got=str(report), do=do)
    tell_left_out(val_data)
    validation = None
    if val_data is not None:
        validation = Validation(val_data, val_split, val_limit, max_drop, report, val_format)
    else:
        _need(
            "validation data",
            "--val-data DIR",
            max_drop=max_drop,
            report=report,
            val_limit=val_limit,
            val_format=val_format,
        )
    int8 = None
    if calib is not None:
        method = None if calib_method is None else calib_method.value
        int8 = Int8Options(calib, method, tuple(keep_float or ()), allow_few)
    else:
        _need(
            "a calibration set", "--calib CALIB", calib_method=calib_method, keep_float=keep_float, allow_few=allow_few
        )
    if target is Target.triton and batch != 1:
        do = "leave it out; mdpose-edge triton has --max-batch"
        raise ConfigError("--batch", expected="none: Triton batches by itself", got=str(batch), do=do)
    for_tensorrt = target in (Target.tensorrt, Target.jetson)
    precision = precision or (Precision.fp16 if for_tensorrt else Precision.fp32)
    for name, value in {"trt": trt, "jetpack": jetpack, "device": device, "nvdla": nvdla}.items():
        if value is not None and not for_tensorrt:
            expected = "--target tensorrt or jetson" if name == "trt" else "--target jetson"
            raise ConfigError(f"--{name}", expected=expected, got=f"--target {target.value}", do="leave it out")
    wish = Wish(target.value, trt, jetpack, device, nvdla) if for_tensorrt else None
    for_triton = target is Target.triton
    if for_triton:
        from mdpose_edge.triton.repository import check_repository_place, write_repository

        check_repository_place(out)
    with progress_shown("exporting") as show, ExitStack() as stack:
        bundle = Path(stack.enter_context(TemporaryDirectory()), "bundle") if for_triton else out
        export_checkpoint(
            checkpoint,
            bundle,
            target=Target.onnx.value if for_triton else target.value,
            precision=precision.value,
            batch=batch,
            int8=int8,
            tensorrt=wish,
            validation=validation,
            progress=show,
        )
        found = None if validation is None else _read_report(bundle)
        if for_triton:
            write_repository(bundle, out)
    if found is not None:
        _print_findings(found)
    typer.echo(str(out))


def _need(expected: str, option: str, **given: object) -> None:
    """Refuse options that mean nothing without another."""
    names = [
        f"--{name.replace('_', '-')}"
        for name, value in given.items()
        if value is not None and value is not False and value != []  # --max-drop 0 is given
    ]
    if names:
        them = "it" if len(names) == 1 else "them"
        raise ConfigError(", ".join(names), expected=expected, got="none", do=f"pass {option}, or leave {them} out")


def _read_report(bundle: Path) -> dict[str, Any]:
    import json

    from mdpose_edge.bundle import REPORT_FILE

    found: dict[str, Any] = json.loads((bundle / REPORT_FILE).read_text(encoding="utf-8"))
    return found


def _print_findings(found: dict[str, Any]) -> None:
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
