"""ONNX graphs on onnxruntime's CPU provider."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.bundle import Bundle
from mdpose_edge.engine_graph import TensorInfo
from mdpose_edge.runtimes.base import CheckedAdapter
from mdpose_edge.runtimes.onnxruntime_session import is_optimized, onnxruntime_errors, open_session

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
        self._session = open_session(
            bundle.graph,
            where=self._where,
            feature="the onnxruntime engine",
            optimized=is_optimized(bundle.spec.target),
            threads=threads,
        )
        self._errors = onnxruntime_errors()
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
