"""Checkpoint to bundle: the graph is made, held against the network, and only then appears.

This module imports without torch, so that a device can say which extra an export needs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mdpose_edge import __version__
from mdpose_edge.bundle import REPORT_FILE, Bundle, check_bundle_place, draft_bundle
from mdpose_edge.calib.dataset import CalibrationSet, open_calibration_set
from mdpose_edge.calib.make import MIN_IMAGES
from mdpose_edge.common.files import file_sha256
from mdpose_edge.common.onnx_graph import OnnxGraph
from mdpose_edge.common.optional import require
from mdpose_edge.common.progress import Progress, no_progress
from mdpose_edge.common.side_files import side_of_checkpoint
from mdpose_edge.errors import CalibrationError, ConfigError, ExportError
from mdpose_edge.export.options import TRITON, ExportOptions
from mdpose_edge.export.targets.registry import Int8, Job, Target, Written, measure_target, write_target
from mdpose_edge.spec import ModelSpec, Provenance

if TYPE_CHECKING:
    import onnx
    from torch import nn

_STEPS = ("reading the checkpoint", "tracing the network", "writing the graph", "comparing it with torch")


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    path: Path
    """The bundle's directory; for the target triton, the model repository's."""
    report: Mapping[str, Any]
    """The bundle's report: how far its graph is from the network, and what the gate found."""


def export_checkpoint(
    checkpoint: str | Path, out: str | Path, options: ExportOptions, *, progress: Progress | None = None
) -> Exported:
    """Export a checkpoint as a bundle.

    Args:
        checkpoint: a .safetensors file that training wrote.
        out: the bundle's directory; an earlier bundle there is replaced.
        options: for which target, and how.
        progress: called as each step begins, while ranges are measured, and at the end.

    Raises:
        MissingPackageError: the extra `export` is not installed.
        CheckpointError, SpecError: the checkpoint cannot be read.
        CalibrationError: the calibration set is no whole one, too small, or made for another input.
        ConfigError: the gate's page has no place of its own, or a budget of AP is for images without annotations.
        ExportError: the source is a bundle or a graph, or the graph differs from the network; no bundle is left.
        GateError: it fell short of the checkpoint on the validation data; no bundle is left.
        DataError, InputError: the validation data cannot be used.
        BundleError: `out` holds something else, or cannot be written.

    Example:
        ```python
        from mdpose_edge.export.bundle import export_checkpoint
        from mdpose_edge.export.options import ExportOptions

        export_checkpoint("model.safetensors", "bundle", ExportOptions(target="openvino", precision="fp16"))
        ```
    """
    checkpoint, out = Path(checkpoint), Path(out)
    report = progress or no_progress
    _check_source(checkpoint)
    _check_page(options, out)
    if options.target == TRITON:
        return _export_repository(checkpoint, out, options, report)
    check_bundle_place(out)
    return Exported(out, _export_bundle(checkpoint, out, options, report))


def _export_repository(checkpoint: Path, out: Path, options: ExportOptions, report: Progress) -> Exported:
    from mdpose_edge.triton.repository import check_repository_place, write_repository

    check_repository_place(out)
    with TemporaryDirectory() as folder:
        bundle = Path(folder, "bundle")
        findings = _export_bundle(checkpoint, bundle, options, report)
        write_repository(bundle, out)
    return Exported(out, findings)


def _export_bundle(checkpoint: Path, out: Path, options: ExportOptions, report: Progress) -> dict[str, Any]:
    """Write the bundle, and return its report."""
    calibration = None if options.calib is None else _open_calibration(options.calib, options.allow_few)
    _require_packages()
    from mdpose_edge.checkpoint import load_network

    report(0, len(_STEPS), _STEPS[0])
    network, trained = load_network(checkpoint)
    if options.validation is not None:
        options.validation.check(trained)
    if calibration is not None:
        calibration.check_fits(trained.input)
    spec = _bundle_spec(trained, options, file_sha256(checkpoint), calibration)
    with draft_bundle(out, spec) as draft:
        report(1, len(_STEPS), _STEPS[1])
        graph = OnnxGraph(_trace(network, spec))
        report(2, len(_STEPS), _STEPS[2])
        int8 = None if calibration is None else Int8(calibration, options.calib_method, tuple(options.keep_float))
        side = side_of_checkpoint(checkpoint)
        job = Job(graph, spec, draft.path, int8, _within(report, 2), options.tensorrt, side)
        written, accuracy = _write(options, job, checkpoint, out.name, report)
        provenance = replace(spec.provenance, accuracy=accuracy)
        opset = written.opset or spec.opset
        draft.spec = replace(spec, quantization=written.quantization, opset=opset, provenance=provenance)
        report(3, len(_STEPS), _STEPS[3])
        found = _verify(network, Bundle(draft.path, draft.spec), options.form, calibration, written)
        (draft.path / REPORT_FILE).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    report(len(_STEPS), len(_STEPS), "done")
    return found


def _write(
    options: ExportOptions, job: Job, checkpoint: Path, name: str, report: Progress
) -> tuple[Written, dict[str, Any] | None]:
    """Write the target's files, and return what is to be said of them and of their accuracy."""
    if options.validation is None:
        return write_target(options.form, job, measure_target(options.form, job)), None
    from mdpose_edge.export.validate import write_validated

    def note(what: str) -> None:
        report(2, len(_STEPS), f"{_STEPS[2]}: {what}")

    return write_validated(options.form, job, checkpoint, name, options.validation, note)


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


def _check_page(options: ExportOptions, out: Path) -> None:
    if options.report is not None and Path(options.report).resolve().is_relative_to(out.resolve()):
        do = "name another folder: a bundle may hold nothing but its own files"
        raise ConfigError("--report", expected="a place apart from --out", got=str(options.report), do=do)


def _open_calibration(path: str | Path, allow_few: bool) -> CalibrationSet:
    calibration = open_calibration_set(path)
    if len(calibration) < MIN_IMAGES and not allow_few:
        do = "make a larger one, or pass --allow-few to measure ranges on so few"
        expected, got = f"at least {MIN_IMAGES} images", str(len(calibration))
        raise CalibrationError(str(path), expected=expected, got=got, do=do)
    return calibration


def _within(progress: Progress, step: int) -> Progress:
    """Report the images of a step as a note on it."""

    def report(done: int, total: int, note: str = "", stage: str = "") -> None:
        progress(step, len(_STEPS), f"{_STEPS[step]}: {done}/{total} calibration images")

    return report


def _require_packages() -> None:
    for package in ("onnx", "onnxruntime", "openvino", "safetensors", "torch", "timm"):
        require(package, extra="export", feature="exporting a checkpoint")


def _bundle_spec(
    trained: ModelSpec, options: ExportOptions, sha256: str, calibration: CalibrationSet | None
) -> ModelSpec:
    from mdpose_edge.export.onnx import OPSET

    digest = None if calibration is None else calibration.digest
    return replace(
        trained,
        input=replace(trained.input, batch=options.batch),
        target=options.bundle_target,
        precision=options.chosen_precision,
        opset=OPSET if options.form.is_onnx else None,
        graph=options.form.graph,
        provenance=Provenance(__version__, sha256, digest, imported=trained.provenance.imported),
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
