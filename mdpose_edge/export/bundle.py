"""Checkpoint to bundle: the graph is made, held against the network, and only then appears.

This module imports without torch, so that a device can say which extra an export needs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mdpose_edge import __version__
from mdpose_edge.bundle import REPORT_FILE, Bundle, check_bundle_place, draft_bundle
from mdpose_edge.calib.dataset import CalibrationSet, open_calibration_set
from mdpose_edge.calib.make import MIN_IMAGES
from mdpose_edge.common.files import file_sha256
from mdpose_edge.common.onnx_graph import OnnxGraph
from mdpose_edge.common.optional import require
from mdpose_edge.errors import CalibrationError, ConfigError, ExportError
from mdpose_edge.export.targets.registry import Int8, Job, Target, Written, find_target, measure_target, write_target
from mdpose_edge.export.targets.tensorrt_options import Resolved, Wish, resolve
from mdpose_edge.export.validation import Validation, check_measurable_here
from mdpose_edge.spec import ModelSpec, Precision, Provenance

if TYPE_CHECKING:
    import onnx
    from torch import nn

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, the step now begun)."""

_STEPS = ("reading the checkpoint", "tracing the network", "writing the graph", "comparing it with torch")


@dataclass(frozen=True)
class Int8Options:
    """What an INT8 export is told, as the command line has it."""

    calibration: str | Path
    """A calibration set's folder."""
    method: str | None = None
    """Of choosing ranges, or None for the target's own choice."""
    keep_float: Collection[str] = ()
    """Names of convolutions to leave float."""
    allow_few: bool = False
    """Take a set of fewer than MIN_IMAGES."""


def export_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    *,
    target: str,
    precision: str = "fp32",
    batch: int = 1,
    int8: Int8Options | None = None,
    tensorrt: Wish | None = None,
    validation: Validation | None = None,
    progress: Progress | None = None,
) -> Path:
    """Export a checkpoint as a bundle.

    Args:
        checkpoint: a .safetensors file that training wrote.
        out: the bundle's directory; an earlier bundle there is replaced.
        target: one of TARGETS.
        precision: "fp32"; "fp16": weights in float16, and in an ONNX graph the arithmetic too; "int8": docs/int8.md
            has the form of each target. The input stays uint8 and the outputs float32.
        batch: images per call; the graph's shapes are static.
        int8: given for "int8", and for nothing else.
        tensorrt: what the device has, for the targets tensorrt and jetson; None for the newest TensorRT, or the
            smallest Orin.
        validation: data for the gate, which then decides whether the bundle appears; None measures no accuracy.
        progress: called as each step begins, while ranges are measured, and at the end.

    Returns:
        The bundle's directory.

    Raises:
        MissingPackageError: the extra `export` is not installed.
        CheckpointError, SpecError: the checkpoint cannot be read.
        CalibrationError: the calibration set is no whole one, too small, or made for another input.
        ConfigError: no such calibration method.
        ExportError: no such target or precision, the source is a bundle or a graph, the options do not go together, or
            the graph differs from the network; no bundle is left.
        GateError: it fell short of the checkpoint on the validation data; no bundle is left.
        DataError, InputError: the validation data cannot be used.
        BundleError: `out` holds something else, or cannot be written.
    """
    report = progress or (lambda done, total, step: None)
    kind = find_target(target, precision)
    resolved = _resolve(target, precision, tensorrt)
    _check_int8(kind, precision, int8)
    checkpoint, out = Path(checkpoint), Path(out)
    _check_source(checkpoint)
    check_bundle_place(out)
    if validation is not None:
        check_measurable_here(target, precision, resolved)
    calibration = None if int8 is None else _open_calibration(int8)
    _require_packages()
    from mdpose_edge.checkpoint import load_network

    report(0, len(_STEPS), _STEPS[0])
    network, trained = load_network(checkpoint)
    if validation is not None:
        validation.check(trained.keypoints)
    if calibration is not None:
        calibration.check_fits(trained.input)
    spec = _bundle_spec(trained, kind, target, precision, batch, file_sha256(checkpoint), calibration)
    with draft_bundle(out, spec) as draft:
        report(1, len(_STEPS), _STEPS[1])
        graph = OnnxGraph(_trace(network, spec))
        report(2, len(_STEPS), _STEPS[2])
        job = Job(graph, spec, draft.path, _int8_job(int8, calibration), _within(report, 2), resolved)
        written, accuracy = _write(kind, job, checkpoint, out.name, validation, report)
        provenance = replace(spec.provenance, accuracy=accuracy)
        opset = written.opset or spec.opset
        draft.spec = replace(spec, quantization=written.quantization, opset=opset, provenance=provenance)
        report(3, len(_STEPS), _STEPS[3])
        text = json.dumps(_verify(network, Bundle(draft.path, draft.spec), kind, calibration, written), indent=2) + "\n"
        (draft.path / REPORT_FILE).write_text(text, encoding="utf-8")
    report(len(_STEPS), len(_STEPS), "done")
    return out


def _write(
    kind: Target, job: Job, checkpoint: Path, name: str, validation: Validation | None, report: Progress
) -> tuple[Written, dict[str, Any] | None]:
    """Write the target's files, and give what is to be said of them and of their accuracy."""
    if validation is None:
        return write_target(kind, job, measure_target(kind, job)), None
    from mdpose_edge.export.validate import write_validated

    return write_validated(
        kind, job, checkpoint, name, validation, lambda what: report(2, len(_STEPS), f"{_STEPS[2]}: {what}")
    )


def _check_source(path: Path) -> None:
    """Refuse what an export made as the source of another: its weights may be float16 or int8."""
    if path.is_dir():
        got, do = "a folder, as of a bundle", "give the checkpoint that it was made from"
    elif path.suffix in (".onnx", ".xml"):
        got, do = f"a {path.suffix} graph", "give the checkpoint that it was made from"
    elif path.suffix != ".safetensors":
        got, do = "another file", "give what mdpose-edge train wrote"
    else:
        return
    raise ExportError(str(path), expected="a float checkpoint (.safetensors)", got=got, do=do)


def _check_int8(kind: Target, precision: str, int8: Int8Options | None) -> None:
    if precision == "int8" and int8 is None:
        do = "make one with mdpose-edge calib make, and pass --calib CALIB"
        raise ExportError("--precision int8", expected="a calibration set", got="none", do=do)
    if int8 is None:
        return
    if precision != "int8":
        expected, do = "--precision int8 with a calibration set", "add it, or leave --calib out"
        raise ExportError("--calib", expected=expected, got=f"--precision {precision}", do=do)
    if int8.method is not None and int8.method not in kind.methods:
        expected, do = f"one of {', '.join(kind.methods)}", "choose one of these, or another target"
        raise ConfigError("--calib-method", expected=expected, got=int8.method, do=do)


def _resolve(target: str, precision: str, wish: Wish | None) -> Resolved | None:
    """Find what the device is, before anything is loaded: what is impossible is refused at once."""
    if target == "tensorrt" or target == "jetson":
        return resolve(wish or Wish(target), precision)
    return None


def _open_calibration(int8: Int8Options) -> CalibrationSet:
    calibration = open_calibration_set(int8.calibration)
    if len(calibration) < MIN_IMAGES and not int8.allow_few:
        do = "make a larger one, or pass --allow-few to measure ranges on so few"
        expected, got = f"at least {MIN_IMAGES} images", str(len(calibration))
        raise CalibrationError(str(int8.calibration), expected=expected, got=got, do=do)
    return calibration


def _int8_job(int8: Int8Options | None, calibration: CalibrationSet | None) -> Int8 | None:
    if int8 is None or calibration is None:
        return None
    return Int8(calibration, int8.method, tuple(int8.keep_float))


def _within(report: Progress, step: int) -> Callable[[int, int], None]:
    """Report the images of a step as a note on it."""
    return lambda done, total: report(step, len(_STEPS), f"{_STEPS[step]}: {done}/{total} calibration images")


def _require_packages() -> None:
    for package in ("onnx", "onnxruntime", "openvino", "safetensors", "torch", "timm"):
        require(package, extra="export", feature="exporting a checkpoint")


def _bundle_spec(
    trained: ModelSpec,
    kind: Target,
    target: str,
    precision: str,
    batch: int,
    sha256: str,
    calibration: CalibrationSet | None,
) -> ModelSpec:
    from mdpose_edge.export.onnx import OPSET

    digest = None if calibration is None else calibration.digest
    return replace(
        trained,
        input=replace(trained.input, batch=batch),
        target=target,
        precision=cast(Precision, precision),  # find_target knows it
        opset=OPSET if kind.is_onnx else None,
        graph=kind.graph,
        provenance=Provenance(toolkit_version=__version__, checkpoint_sha256=sha256, calibration_digest=digest),
    )


def _trace(network: nn.Module, spec: ModelSpec) -> onnx.ModelProto:
    from mdpose_edge.export.onnx import check_onnx, to_onnx

    return check_onnx(to_onnx(network, spec), spec)


def _verify(
    network: nn.Module, bundle: Bundle, kind: Target, calibration: CalibrationSet | None, written: Written
) -> dict[str, Any]:
    """Hold the written graph against the network; the findings are the bundle's report."""
    from mdpose_edge.export.parity import calibration_images, check_fp16_range, compare_with_torch, parity_images

    size = bundle.spec.input
    images = parity_images(size) if calibration is None else calibration_images(size, calibration.inputs)
    found: dict[str, Any] = {"parity": compare_with_torch(network, bundle, images, kind.compared_on)}
    if bundle.spec.precision == "fp16":
        found["largest_activation"] = check_fp16_range(network, bundle.spec)
    return {**found, **written.findings}
