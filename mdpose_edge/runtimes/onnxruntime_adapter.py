"""ONNX graphs on onnxruntime's CPU provider."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.bundle import Bundle
from mdpose_edge.common.optional import require
from mdpose_edge.runtimes.base import CheckedAdapter, TensorInfo

PROVIDER = "CPUExecutionProvider"
_LOG_ERRORS_ONLY = 3
_NUMPY_NAMES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


class OnnxRuntimeAdapter(CheckedAdapter):
    """Run an ONNX bundle on onnxruntime.

    Args:
        bundle: its graph is an ONNX file.
        threads: CPU threads, or None for one per core.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        EngineError: the graph cannot be loaded, or is not what its spec says.
    """

    engine = "onnxruntime"

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        super().__init__(bundle.spec, bundle.graph, threads)
        ort = require("onnxruntime", extra="onnxruntime", feature="the onnxruntime engine")
        self._errors = onnxruntime_errors()
        ort.disable_telemetry_events()
        options = ort.SessionOptions()
        options.log_severity_level = _LOG_ERRORS_ONLY
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.inter_op_num_threads = 1
        if bundle.spec.target != "onnx":
            # A graph for another engine runs as written: optimised by 1.31, Q/DQ in float16 gave other values
            # (docs/decisions/0009-tensorrt.md).
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = threads or 0  # 0 is onnxruntime's word for one per core
        with self._failures("load"):
            self._session = ort.InferenceSession(bundle.graph, options, providers=[PROVIDER])
        self._check_graph(_describe(self._session.get_inputs()), _describe(self._session.get_outputs()))

    def _run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        names = self.spec.outputs
        return dict(zip(names, self._session.run(names, {self.spec.input.name: images}), strict=True))

    def _release(self) -> None:
        del self._session

    def _engine_errors(self) -> tuple[type[Exception], ...]:
        return self._errors


def _describe(nodes: list[Any]) -> list[TensorInfo]:
    return [TensorInfo(node.name, _NUMPY_NAMES.get(node.type, node.type), tuple(node.shape)) for node in nodes]


def onnxruntime_errors() -> tuple[type[Exception], ...]:
    """List onnxruntime's exceptions: they have no common base but Exception.

    Raises:
        MissingPackageError: onnxruntime is not installed.
    """
    state = require("onnxruntime.capi.onnxruntime_pybind11_state", extra="onnxruntime", feature="its exceptions")
    return tuple(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
