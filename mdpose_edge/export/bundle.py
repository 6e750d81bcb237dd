"""Checkpoint to bundle: the graph is made, held against the network, and only then appears.

This module imports without torch, so that a device can say which extra an export needs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mdpose_edge import __version__
from mdpose_edge.bundle import REPORT_FILE, Bundle, write_bundle
from mdpose_edge.errors import ExportError
from mdpose_edge.files import file_sha256
from mdpose_edge.optional import require
from mdpose_edge.spec import ModelSpec, Provenance

if TYPE_CHECKING:
    import onnx

    from mdpose_edge.train.network import MDPoseNetwork

GRAPHS = {"onnx": "model.onnx", "openvino": "model.xml"}
"""By target, the file that an engine opens."""
PRECISIONS = ("fp32", "fp16")

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, the step now begun)."""

_STEPS = ("reading the checkpoint", "tracing the network", "writing the graph", "comparing it with torch")


def export_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    *,
    target: str,
    precision: str = "fp32",
    batch: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Export a checkpoint as a bundle.

    Args:
        checkpoint: a .safetensors file that training wrote.
        out: the bundle's directory; an earlier bundle there is replaced.
        target: "onnx" or "openvino".
        precision: "fp32"; or "fp16": weights in float16, and in an ONNX graph the arithmetic too. The input stays
            uint8 and the outputs float32.
        batch: images per call; the graph's shapes are static.
        progress: called as each step begins, and at the end.

    Returns:
        The bundle's directory.

    Raises:
        MissingPackageError: the extra `export` is not installed.
        CheckpointError, SpecError: the checkpoint cannot be read.
        ExportError: no such target or precision, or the graph differs from the network; no bundle is left.
        BundleError: `out` holds something else, or cannot be written.
    """
    report = progress or (lambda done, total, step: None)
    _check_options(target, precision)
    _require_packages()
    from mdpose_edge.train.checkpoint import load_network

    report(0, len(_STEPS), _STEPS[0])
    checkpoint, out = Path(checkpoint), Path(out)
    network, trained_spec = load_network(checkpoint)
    spec = _bundle_spec(trained_spec, target, precision, batch, file_sha256(checkpoint))
    with write_bundle(out, spec) as directory:
        report(1, len(_STEPS), _STEPS[1])
        model = _trace(network, spec)
        report(2, len(_STEPS), _STEPS[2])
        _write_graph(model, directory / GRAPHS[target], spec)
        report(3, len(_STEPS), _STEPS[3])
        text = json.dumps(_verify(network, Bundle(directory, spec)), indent=2) + "\n"
        (directory / REPORT_FILE).write_text(text, encoding="utf-8")
    report(len(_STEPS), len(_STEPS), "done")
    return out


def _check_options(target: str, precision: str) -> None:
    for option, value, known in (("target", target, tuple(GRAPHS)), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise ExportError(f"--{option}", expected=f"one of {', '.join(known)}", got=value, do="choose one of these")


def _require_packages() -> None:
    for package in ("onnx", "onnxruntime", "openvino", "safetensors", "torch", "timm"):
        require(package, extra="export", feature="exporting a checkpoint")


def _bundle_spec(trained: ModelSpec, target: str, precision: str, batch: int, sha256: str) -> ModelSpec:
    from mdpose_edge.export.onnx import OPSET

    kind: Literal["fp32", "fp16"] = "fp16" if precision == "fp16" else "fp32"
    return replace(
        trained,
        input=replace(trained.input, batch=batch),
        target=target,
        precision=kind,
        opset=OPSET if target == "onnx" else None,
        graph=GRAPHS[target],
        provenance=Provenance(toolkit_version=__version__, checkpoint_sha256=sha256),
    )


def _trace(network: MDPoseNetwork, spec: ModelSpec) -> onnx.ModelProto:
    from mdpose_edge.export.onnx import check_onnx, to_onnx

    return check_onnx(to_onnx(network, spec), spec)


def _write_graph(model: onnx.ModelProto, path: Path, spec: ModelSpec) -> None:
    from mdpose_edge.export.onnx import check_onnx, to_fp16
    from mdpose_edge.export.openvino import write_openvino

    if spec.target == "openvino":
        write_openvino(model, path, compress_to_fp16=spec.precision == "fp16")
        return
    if spec.precision == "fp16":
        model = check_onnx(to_fp16(model), spec)
    path.write_bytes(model.SerializeToString())


def _verify(network: MDPoseNetwork, bundle: Bundle) -> dict[str, Any]:
    """Hold the written graph against the network; the findings are the bundle's report."""
    from mdpose_edge.export.parity import check_fp16_range, compare_with_torch

    found: dict[str, Any] = {"parity": compare_with_torch(network, bundle)}
    if bundle.spec.precision == "fp16":
        found["largest_activation"] = check_fp16_range(network, bundle.spec)
    return found
