"""OpenVINO IR, and ONNX graphs, on OpenVINO's CPU plugin."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.bundle import Bundle
from mdpose_edge.engine_graph import TensorInfo
from mdpose_edge.runtimes.base import CheckedAdapter
from mdpose_edge.runtimes.openvino_session import OPENVINO_ERRORS, compile_graph, read_graph

_NUMPY_NAMES = {"u8": "uint8", "f32": "float32"}


class OpenVinoAdapter(CheckedAdapter):
    """Run a bundle on OpenVINO, by the hints of `openvino_session`: for one call's latency, in float32.

    Args:
        bundle: its graph is OpenVINO IR or an ONNX file.
        threads: CPU threads, or None for OpenVINO's choice.

    Raises:
        MissingPackageError: openvino is not installed.
        EngineError: the graph cannot be loaded, or is not what its spec says.
    """

    engine = "openvino"

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        super().__init__(bundle.spec, bundle.graph, threads)
        graph = read_graph(bundle.graph, where=self._where, feature="the openvino engine")
        compiled = compile_graph(graph, where=self._where, threads=threads)
        with self._failures("load"):
            self._request = compiled.create_infer_request()
        outputs = [_describe(port, self.spec.outputs) for port in compiled.outputs]
        self._check_graph([_describe(port, (self.spec.input.name,)) for port in compiled.inputs], outputs)
        self._names = [output.name for output in outputs]

    def _run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        # Shared memory both ways: the engine reads the caller's array and hands out views of its own buffers.
        results = self._request.infer([images], share_inputs=True, share_outputs=True)
        return {name: results[i] for i, name in enumerate(self._names)}

    def _release(self) -> None:
        del self._request

    def _engine_errors(self) -> tuple[type[Exception], ...]:
        return OPENVINO_ERRORS


def _describe(port: Any, wanted: tuple[str, ...]) -> TensorInfo:
    """Describe an input or output; of the several names that it may have, the one that is wanted."""
    names = port.get_names()
    name = next((name for name in wanted if name in names), " or ".join(sorted(names)))
    kind = port.get_element_type().get_type_name()
    shape = tuple(d.get_length() if d.is_static else "?" for d in port.get_partial_shape())
    return TensorInfo(name, _NUMPY_NAMES.get(kind, kind), shape)
