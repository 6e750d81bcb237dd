"""Bundles for TensorRT on an NVIDIA GPU or NVDLA, by the engine that `mdpose-edge build` made on this machine.

One execution context, one stream and one set of buffers, all made when the adapter is opened: a frame allocates nothing
on the GPU. The CUDA context is the primary one, which other libraries share, and is current only inside a call, so that
any thread may call; calls of several threads wait for one another.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from mdpose_edge.bundle import Bundle
from mdpose_edge.errors import EngineError
from mdpose_edge.runtimes.base import CheckedAdapter, TensorInfo
from mdpose_edge.trt.cache import cache_folder, engine_facts, read_engine
from mdpose_edge.trt.capabilities import load_tensorrt
from mdpose_edge.trt.cuda import Cuda
from mdpose_edge.trt.host import check_host, describe_host
from mdpose_edge.trt.recipe import read_recipe
from mdpose_edge.trt.session import Session


class TensorRtAdapter(CheckedAdapter):
    """Run a bundle's engine.

    Args:
        bundle: for the target tensorrt or jetson, built on this machine.
        threads: has no meaning on a GPU; accepted so that engines can be exchanged.

    Raises:
        MissingPackageError: tensorrt or pycuda is not installed.
        EngineError: there is no GPU, no engine for this bundle and machine, or it is not what its spec says.
    """

    engine = "tensorrt"

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        super().__init__(bundle.spec, bundle.graph, threads)
        recipe = read_recipe(bundle)
        trt = load_tensorrt()
        with self._cuda_opened():
            host = describe_host(trt, self._cuda)
            check_host(host, trt, bundle, recipe)
            folder = cache_folder(bundle)
            found = read_engine(folder, engine_facts(bundle, recipe, host))
            if found is None:
                expected, do = f"an engine built on this machine, in {folder}", f"run: mdpose-edge build {bundle.path}"
                raise EngineError(str(bundle.path), expected=expected, got="none", do=do)
            manifest, plan = found
            self._start(trt, plan, manifest.nvdla_core, host.gpu.integrated)

    @classmethod
    def of_plan(cls, bundle: Bundle, trt: Any, plan: bytes, nvdla_core: int | None, integrated: bool) -> Self:
        """Open a plan that this process has just built, before any cache has it."""
        adapter = cls.__new__(cls)
        CheckedAdapter.__init__(adapter, bundle.spec, bundle.graph, None)
        with adapter._cuda_opened():
            adapter._start(trt, plan, nvdla_core, integrated)
        return adapter

    @property
    def uses_cuda_graph(self) -> bool:
        """Whether a frame is launched as one recording, rather than queued step by step."""
        return self._session.uses_cuda_graph

    def engine_description(self) -> str:
        """Ask the engine what it consists of, as TensorRT's JSON."""
        with self._lock, self._cuda.current():
            return self._session.description()

    @contextmanager
    def _cuda_opened(self) -> Iterator[None]:
        """Open CUDA, and let go of it if the engine cannot be opened."""
        self._lock, self._cuda = threading.Lock(), Cuda()
        try:
            yield
        except BaseException:
            self._cuda.close()
            raise

    def _start(self, trt: Any, plan: bytes, nvdla_core: int | None, integrated: bool) -> None:
        with self._failures("load"), self._cuda.current():
            self._session = Session(trt, self._cuda, plan, nvdla_core)
            try:
                tensors = self._session.tensors
                inputs, outputs = ([t for t in tensors if t.is_input is side] for side in (True, False))
                self._check_graph([TensorInfo(*t[:3]) for t in inputs], [TensorInfo(*t[:3]) for t in outputs])
                self._session.prepare(integrated)
            except BaseException:
                self._session.close()
                raise

    def _run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        with self._lock, self._cuda.current():
            outputs = self._session.infer(images)
        return {name: outputs[name] for name in self.spec.outputs}

    def _release(self) -> None:
        with self._lock, self._cuda.current():
            self._session.close()
        self._cuda.close()

    def _engine_errors(self) -> tuple[type[Exception], ...]:
        return (self._cuda.error,)
