"""The only door to OpenVINO: every graph of this package is read and compiled here, with the same hints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdpose_edge.common.optional import require
from mdpose_edge.engine_graph import engine_failures

if TYPE_CHECKING:
    import openvino

DEVICE = "CPU"
HINTS = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
"""Tuned for one call's latency, in float32 whatever the machine: left alone, OpenVINO computes in bfloat16 where the
CPU can, which keeps 8 bits of each activation. An fp16 bundle has float16 weights all the same."""
OPENVINO_ERRORS = (RuntimeError,)


def read_graph(graph: Path | bytes, *, where: str, feature: str) -> openvino.Model:
    """Read OpenVINO IR or ONNX.

    Args:
        graph: a file, or a serialized ONNX model.
        where: what the graph is called in errors.
        feature: what needs OpenVINO, as it reads after "for".

    Raises:
        MissingPackageError: openvino is not installed.
        EngineError: the graph cannot be read.
    """
    ov: Any = require("openvino", extra="openvino", feature=feature)
    with engine_failures(where, "openvino", "load", OPENVINO_ERRORS):
        return ov.Core().read_model(graph)


def compile_graph(graph: openvino.Model, *, where: str, threads: int | None = None) -> openvino.CompiledModel:
    """Compile a graph that `read_graph` gave, by HINTS.

    Args:
        graph: what to compile.
        where: as for `read_graph`.
        threads: CPU threads, or None for OpenVINO's choice.

    Raises:
        EngineError: the graph cannot be compiled.
    """
    ov: Any = require("openvino", extra="openvino", feature="compiling a graph")
    config = HINTS if threads is None else {**HINTS, "INFERENCE_NUM_THREADS": str(threads)}
    with engine_failures(where, "openvino", "load", OPENVINO_ERRORS):
        return ov.Core().compile_model(graph, DEVICE, config)
