"""A graph of static batch becomes one of any batch: Triton's dynamic batcher asks for that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.bundle import Bundle
from mdpose_edge.common.files import written_by_library
from mdpose_edge.common.optional import require
from mdpose_edge.engine_graph import engine_failures
from mdpose_edge.errors import ExportError
from mdpose_edge.runtimes.onnxruntime_session import is_optimized, onnxruntime_errors, open_session
from mdpose_edge.runtimes.openvino_session import OPENVINO_ERRORS, compile_graph, read_graph
from mdpose_edge.runtimes.registry import load_adapter
from mdpose_edge.spec import ModelSpec

BATCH_AXIS = "batch"
TOLERANCES = {"fp32": 1e-4, "fp16": 1e-4, "int8": 0.1}
"""By precision: largest difference between an image run alone and in a batch, relative to an output's largest value.

The arithmetic is the same, in another order. In float32 and float16 that is rounding: 1e-6 on onnxruntime and 0 on
OpenVINO, on the tests' network. In int8 a value between two steps of a grid may fall to either, and later layers spread
that. On INT8 bundles of the demo's start checkpoint: 0 on an EPYC, 4e-4 by OpenVINO on a Xeon with AMX; every float
constant changed by 1e-7 of itself moves outputs by 0.02 to 0.04, and so do kernels without VNNI. Another image in the
slot moves them by 0.5."""
PROBE_IMAGES = 2

Heads = dict[str, NDArray[np.float32]]


def write_dynamic_onnx(source: Path, out: Path, spec: ModelSpec) -> None:
    """Write an ONNX graph with its batch axis open.

    Args:
        source: a graph of static shape. Not modified.
        out: the file to write.
        spec: the graph's.

    Raises:
        MissingPackageError: onnx is not installed.
        ExportError: a node fixes the batch.
    """
    onnx: Any = require("onnx", extra="export", feature="a Triton repository")
    model = onnx.load(source)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH_AXIS
    del model.graph.value_info[:]
    try:
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise _not_dynamic(str(source), str(error).splitlines()[0]) from error
    for value in model.graph.output:
        axis = value.type.tensor_type.shape.dim[0]
        if axis.dim_value:
            raise _not_dynamic(str(source), f"{value.name} with a batch of {axis.dim_value}")
    out.write_bytes(model.SerializeToString())


def write_dynamic_openvino(source: Path, out: Path, spec: ModelSpec) -> None:
    """Write OpenVINO IR with its batch axis open; see `write_dynamic_onnx`."""
    ov: Any = require("openvino", extra="openvino", feature="a Triton repository")
    model: Any = read_graph(source, where=str(source), feature="a Triton repository")
    model.reshape({spec.input.name: [-1, spec.input.height, spec.input.width, 3]})
    for port in model.outputs:
        if port.get_partial_shape()[0].is_static:
            raise _not_dynamic(str(source), f"{port.get_any_name()} of shape {port.get_partial_shape()}")
    with written_by_library(out):
        ov.save_model(model, out, compress_to_fp16=False)  # weights stay as they are stored


def check_batches(engine: str, graph: Path, bundle: Bundle) -> float:
    """Run images in one batch on the open graph and one by one on the bundle's own, on the same engine.

    Args:
        engine: "onnxruntime" or "openvino".
        graph: the open graph.
        bundle: where it came from.

    Returns:
        The largest difference, relative to an output's largest value.

    Raises:
        ExportError: they differ by more than TOLERANCES has it.
        EngineError: the bundle's own graph does not run, or the open one does not.
    """
    spec, size = bundle.spec, bundle.spec.input
    images = np.random.default_rng(0).integers(0, 256, (PROBE_IMAGES, size.height, size.width, 3), np.uint8)
    together = _RUNNERS[engine](graph, images, spec)
    worst = 0.0
    with load_adapter(engine, bundle) as adapter:
        for i, image in enumerate(images):
            alone = adapter.infer(np.repeat(image[None], size.batch, axis=0))
            for name, tensor in alone.items():
                error = np.abs(together[name][i] - tensor[0]).max() / max(np.abs(tensor[0]).max(), 1e-12)
                worst = max(worst, float(error))
    tolerance = TOLERANCES[spec.precision]
    if not worst <= tolerance:
        expected = f"the same outputs in a batch as alone, within {tolerance:g}"
        raise ExportError(str(bundle.path), expected=expected, got=f"{worst:.2g}", do="report this")
    return worst


def _run_onnx(graph: Path, images: NDArray[np.uint8], spec: ModelSpec) -> Heads:
    feature = "checking a Triton repository"
    session = open_session(graph, where=graph.name, feature=feature, optimized=is_optimized(spec.target))
    with engine_failures(graph.name, "onnxruntime", "run", onnxruntime_errors()):
        return dict(zip(spec.outputs, session.run(list(spec.outputs), {spec.input.name: images}), strict=True))


def _run_openvino(graph: Path, images: NDArray[np.uint8], spec: ModelSpec) -> Heads:
    opened = read_graph(graph, where=graph.name, feature="checking a Triton repository")
    compiled = compile_graph(opened, where=graph.name)
    with engine_failures(graph.name, "openvino", "run", OPENVINO_ERRORS):
        results = compiled([images])
    return {name: np.array(results[compiled.output(name)]) for name in spec.outputs}


_RUNNERS = {"onnxruntime": _run_onnx, "openvino": _run_openvino}


def _not_dynamic(where: str, got: str) -> ExportError:
    return ExportError(where, expected="a graph that runs any number of images", got=got, do="report this")
