"""A plan open on the GPU that is what its spec says: an adapter wraps it, and a build tries it before keeping the plan.

One execution context, one stream and one set of buffers, all made when it is opened: a frame allocates nothing on the
GPU. The CUDA context is the primary one, which other libraries share, and is current only inside a call, so that any
thread may call; calls of several threads wait for one another.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.bundle import Bundle
from mdpose_edge.common.closing import Closing
from mdpose_edge.engine_graph import TensorInfo, check_graph, engine_failures
from mdpose_edge.trt.cuda import Cuda
from mdpose_edge.trt.session import EngineSession

ENGINE = "tensorrt"


class OpenedPlan(Closing):
    """An engine of a bundle, ready for frames.

    Args:
        bundle: that the plan was built from.
        trt: TensorRT's module.
        cuda: closed with the plan, and also where it cannot be opened.
        plan: built on this machine.
        nvdla_core: to run on, or None for the GPU.
        integrated: whether the GPU shares its memory with the CPU.

    Raises:
        EngineError: TensorRT refuses the plan, it is not what the spec says, or memory is short.
    """

    def __init__(
        self, bundle: Bundle, trt: Any, cuda: Cuda, plan: bytes, nvdla_core: int | None, integrated: bool
    ) -> None:
        self.spec = bundle.spec
        self._where, self._cuda, self._lock, self._closed = str(bundle.graph), cuda, threading.Lock(), False
        try:
            with engine_failures(self._where, ENGINE, "load", (cuda.error,)), cuda.current():
                self._session = self._started(trt, plan, nvdla_core, integrated)
        except BaseException:
            cuda.close()
            raise

    @property
    def uses_cuda_graph(self) -> bool:
        """Whether a frame is launched as one recording, rather than queued step by step."""
        return self._session.uses_cuda_graph

    def description(self) -> str:
        """Ask the engine what it consists of, as TensorRT's JSON."""
        with self._lock, self._cuda.current():
            return self._session.description()

    def infer(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run a batch of exactly the spec's shape; see RuntimeAdapter."""
        with engine_failures(self._where, ENGINE, "run", (self._cuda.error,)), self._lock, self._cuda.current():
            outputs = self._session.infer(images)
        return {name: outputs[name] for name in self.spec.outputs}

    def close(self) -> None:
        """Release the engine and CUDA; calling it twice is harmless."""
        if not self._closed:
            self._closed = True
            with self._lock, self._cuda.current():
                self._session.close()
            self._cuda.close()

    def _started(self, trt: Any, plan: bytes, nvdla_core: int | None, integrated: bool) -> EngineSession:
        session = EngineSession(trt, self._cuda, plan, nvdla_core)
        try:
            inputs, outputs = ([t for t in session.tensors if t.is_input is side] for side in (True, False))
            found = ([TensorInfo(*tensor[:3]) for tensor in side] for side in (inputs, outputs))
            check_graph(self.spec, self._where, *found)
            session.prepare(integrated)
        except BaseException:
            session.close()
            raise
        return session
