"""A bundle for TensorRT: the graph in the form that the device's version reads, the recipe, and recorded head tensors.

| TensorRT | fp32 | fp16 | int8 |
|---|---|---|---|
| weakly typed, 8.5 to 10.11 | float32 graph | float32 graph, FP16 flag | Q/DQ in float32, FP16 and INT8 flags |
| strongly typed, 10.12 and newer | float32 graph | float16 graph | Q/DQ in float16, opset 19 |
| NVDLA, up to 10.7 | | float32 graph, FP16 flag | float32 graph, a calibration cache, FP16 and INT8 flags |
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
import onnx

from mdpose_edge import __version__
from mdpose_edge.calib.qdq import SCHEME, QdqModel, quantize_qdq
from mdpose_edge.calib.qdq_lint import check_qdq
from mdpose_edge.calib.ranges import TensorRange
from mdpose_edge.calib.thresholds import DEFAULT_METHOD
from mdpose_edge.common.onnx_graph import OnnxGraph
from mdpose_edge.errors import ExportError
from mdpose_edge.export.onnx import OPSET, TYPED_INT8_OPSET, check_onnx, to_fp16, to_typed_int8
from mdpose_edge.export.parity import parity_images
from mdpose_edge.export.targets.registry import Job, Written, describe_int8, measure_activations
from mdpose_edge.export.targets.tensorrt_options import TensorRtTarget, make_recipe
from mdpose_edge.nvdla.cache import calibration_cache
from mdpose_edge.nvdla.dry_run import dry_run
from mdpose_edge.runtimes.onnxruntime_session import is_optimized, open_session
from mdpose_edge.spec import ModelSpec
from mdpose_edge.trt.platforms import typing_of
from mdpose_edge.trt.recipe import GOLDEN_FILE, RECIPE_FILE, recipe_summary

GOLDEN_IMAGES = 2
"""Two, so that a mix-up of the slots of a batch shows; one recorded set is 3 MB at 736 px."""


@dataclass(frozen=True)
class _Graphs:
    """What goes into the bundle, and what its head tensors are recorded with."""

    shipped: onnx.ModelProto
    """As the device's TensorRT reads it; without Q/DQ for NVDLA, which takes its scales from a file."""
    reference: onnx.ModelProto
    """float32, with Q/DQ for INT8: what the engine should compute."""
    quantized: QdqModel | None
    opset: int


measure = measure_activations


def write(job: Job, measured: Mapping[str, TensorRange] | None) -> Written:
    """Write graph, recipe and golden heads: see `write_target`."""
    target, spec = job.tensorrt, job.spec
    assert target is not None
    assert spec.graph is not None
    _check_input(job.graph, spec)
    graphs = _make_graphs(job, target, measured)
    (job.directory / spec.graph).write_bytes(graphs.shipped.SerializeToString())
    quantized = graphs.quantized
    recipe = make_recipe(
        target,
        spec.precision,
        convolutions=[node.name for node in job.graph.nodes if node.op_type in ("Conv", "ConvTranspose")],
        kept_float=() if quantized is None else quantized.kept_float,
    )
    (job.directory / RECIPE_FILE).write_text(recipe.to_json(), encoding="utf-8")
    (job.directory / GOLDEN_FILE).write_bytes(_golden(graphs.reference, spec))
    findings: dict[str, object] = {"recipe": recipe_summary(recipe, spec)}
    if target.nvdla_core is not None:
        findings["nvdla"] = _plan_nvdla(job, target)
    if recipe.calibration is not None:
        assert quantized is not None
        text = calibration_cache(job.graph, quantized.scales, target.tensorrt)
        (job.directory / recipe.calibration).write_text(text, encoding="utf-8", newline="\n")
    if job.int8 is None or quantized is None:
        return Written(findings=findings, opset=graphs.opset)
    method, tool = job.int8.method or DEFAULT_METHOD, f"mdpose-edge {__version__}"
    described = describe_int8(job, scheme=SCHEME, method=method, tool=tool, kept_float=quantized.kept_float)
    return Written(described, findings, opset=graphs.opset)


def _make_graphs(job: Job, target: TensorRtTarget, measured: Mapping[str, TensorRange] | None) -> _Graphs:
    model, spec, strong = job.graph.model, job.spec, typing_of(target.version) == "strong"
    if spec.precision != "int8":
        typed = spec.precision == "fp16" and strong
        return _Graphs(check_onnx(to_fp16(model), spec) if typed else model, model, None, OPSET)
    assert job.int8 is not None and measured is not None
    made = quantize_qdq(job.graph, measured, job.int8.keep_float)
    if target.nvdla_core is not None:
        return _Graphs(model, made.model, made, OPSET)
    if strong:
        typed_model = check_onnx(to_typed_int8(made.model), spec, opset=TYPED_INT8_OPSET)
        check_qdq(typed_model, np.float16)
        return _Graphs(typed_model, made.model, made, TYPED_INT8_OPSET)
    return _Graphs(check_onnx(made.model, spec), made.model, made, OPSET)


def _plan_nvdla(job: Job, target: TensorRtTarget) -> dict[str, object]:
    """Say beforehand what NVDLA will run, by its documented limits; a convolution that it cannot run is refused.

    The build on the device would refuse it too, after minutes.
    """
    found = dry_run(job.graph, precision=job.spec.precision, tensorrt=target.version)
    off = [item.node for item in found.placements if item.macs and item.place == "gpu"]
    if off:
        reason = next(item.reason for item in found.placements if item.node == off[0])
        got = f"{len(off)} that it does not, first {off[0]}: {reason}"
        raise ExportError("--nvdla", expected="convolutions that NVDLA runs", got=got, do="leave --nvdla out")
    return {
        "share_of_macs": found.share_of_macs,
        "loadables": found.loadables,
        "notes": list(found.notes),
        "off_nvdla": [asdict(item) for item in found.off_nvdla],
    }


def _check_input(graph: OnnxGraph, spec: ModelSpec) -> None:
    """Hold the graph to what TensorRT asks of a uint8 input: its only reader casts it to float (NvInfer.h, kUINT8)."""
    readers = [node.op_type for node in graph.consumers[spec.input.name]]
    if readers != ["Cast"]:
        expected = f"a cast as the only reader of the uint8 input {spec.input.name}"
        raise ExportError("the ONNX graph", expected=expected, got=", ".join(readers) or "none", do="report this")


def _golden(reference: onnx.ModelProto, spec: ModelSpec) -> bytes:
    """Record the head tensors of images with the spectrum of natural scenes."""
    images = parity_images(replace(spec.input, batch=2 * GOLDEN_IMAGES))[1::2]
    session = open_session(
        reference.SerializeToString(),
        where="the graph",
        feature="recording head tensors",
        optimized=is_optimized(spec.target),
    )
    batch = spec.input.batch
    rows = np.arange(-(-len(images) // batch) * batch) % len(images)
    found = [
        session.run(list(spec.outputs), {spec.input.name: images[chunk]})
        for chunk in np.split(rows, len(rows) // batch)
    ]
    heads = [np.concatenate(parts)[: len(images)] for parts in zip(*found, strict=True)]
    buffer = io.BytesIO()
    arrays = {f"heads/{name}": head for name, head in zip(spec.outputs, heads, strict=True)}
    np.savez_compressed(buffer, images=images, **arrays)  # type: ignore[arg-type]  # a keyword of numpy 2 is no array
    return buffer.getvalue()
