"""Bundles for TensorRT on an NVIDIA GPU or NVDLA, by the engine that `mdpose-edge build` made on this machine."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.bundle import Bundle
from mdpose_edge.errors import EngineError
from mdpose_edge.runtimes.base import CheckedAdapter
from mdpose_edge.trt.cache import cache_folder, engine_facts, read_engine
from mdpose_edge.trt.capabilities import load_tensorrt
from mdpose_edge.trt.cuda import Cuda
from mdpose_edge.trt.host import check_host, describe_host
from mdpose_edge.trt.opened import OpenedPlan
from mdpose_edge.trt.recipe import read_recipe


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
        cuda = Cuda()
        with ExitStack() as stack:
            stack.callback(cuda.close)
            host = describe_host(trt, cuda)
            check_host(host, trt, bundle, recipe)
            folder = cache_folder(bundle)
            found = read_engine(folder, engine_facts(bundle, recipe, host))
            if found is None:
                expected, do = f"an engine built on this machine, in {folder}", f"run: mdpose-edge build {bundle.path}"
                raise EngineError(str(bundle.path), expected=expected, got="none", do=do)
            stack.pop_all()
        manifest, plan = found
        self._plan = OpenedPlan(bundle, trt, cuda, plan, manifest.nvdla_core, host.gpu.integrated)

    @property
    def uses_cuda_graph(self) -> bool:
        """Whether a frame is launched as one recording, rather than queued step by step."""
        return self._plan.uses_cuda_graph

    def engine_description(self) -> str:
        """Ask the engine what it consists of, as TensorRT's JSON."""
        return self._plan.description()

    def _run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return self._plan.infer(images)

    def _release(self) -> None:
        self._plan.close()

    def _engine_errors(self) -> tuple[type[Exception], ...]:
        return ()  # the plan has turned them into ours
