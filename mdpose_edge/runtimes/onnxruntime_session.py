"""The only door to onnxruntime: every session of this package is opened here, with all its options chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mdpose_edge.common.optional import require
from mdpose_edge.engine_graph import engine_failures

PROVIDER = "CPUExecutionProvider"
_LOG_ERRORS_ONLY = 3


def open_session(graph: Path | bytes, *, where: str, feature: str, optimized: bool, threads: int | None = None) -> Any:
    """Open a graph on the CPU; nothing is reported to the vendor.

    Args:
        graph: an ONNX file, or a serialized model.
        where: what the graph is called in errors.
        feature: what needs onnxruntime, as it reads after "for".
        optimized: whether onnxruntime may rewrite the graph. Graphs for other engines run as they are written: see
            `is_optimized`.
        threads: CPU threads, or None for one per core.

    Returns:
        An onnxruntime.InferenceSession.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        EngineError: the graph cannot be loaded.
    """
    ort: Any = require("onnxruntime", extra="onnxruntime", feature=feature)
    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_ERRORS_ONLY
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads or 0  # 0 is onnxruntime's word for one per core
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    with engine_failures(where, "onnxruntime", "load", onnxruntime_errors()):
        return ort.InferenceSession(graph, options, providers=[PROVIDER])


def is_optimized(target: str) -> bool:
    """Say whether onnxruntime rewrites the graphs of a bundle's target: its own alone.

    A graph for another engine runs as written: optimised by 1.31, Q/DQ in float16 gave other values
    (docs/decisions/0009-tensorrt.md).
    """
    return target == "onnx"


def onnxruntime_errors() -> tuple[type[Exception], ...]:
    """List onnxruntime's exceptions: they have no common base but Exception.

    Raises:
        MissingPackageError: onnxruntime is not installed.
    """
    state = require("onnxruntime.capi.onnxruntime_pybind11_state", extra="onnxruntime", feature="its exceptions")
    return tuple(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
