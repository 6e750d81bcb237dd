"""A loaded engine that runs frames: one execution context, one stream, one set of buffers, one recording."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.errors import EngineError
from mdpose_edge.trt import graph
from mdpose_edge.trt.builder import engine_description, load_engine, make_logger
from mdpose_edge.trt.capabilities import NUMPY_NAMES
from mdpose_edge.trt.cuda import Buffers, Cuda


class EngineTensor(NamedTuple):
    """An input or output as the engine reports it."""

    name: str
    dtype: str
    """numpy's name where numpy has the type."""
    shape: tuple[int, ...]
    is_input: bool


class EngineSession:
    """An engine on the GPU. Every call needs the CUDA context to be current; calls must not overlap.

    Args:
        trt: TensorRT's module.
        cuda: whose context is current.
        plan: built on this machine; see builder.load_engine.
        nvdla_core: to run on, or None for the GPU.

    Raises:
        EngineError: TensorRT refuses the plan.
    """

    def __init__(self, trt: Any, cuda: Cuda, plan: bytes, nvdla_core: int | None) -> None:
        self._trt, self._cuda, self._on_gpu = trt, cuda, nvdla_core is None
        self._logger = make_logger(trt)
        self._runtime, self._engine = load_engine(trt, self._logger, plan, nvdla_core)
        self._frame: Frame | None = None
        self.tensors = [self._describe(self._engine.get_tensor_name(i)) for i in range(self._engine.num_io_tensors)]

    @property
    def uses_cuda_graph(self) -> bool:
        """Whether a frame is launched as one recording, rather than queued step by step."""
        return self._frame is not None and self._frame.recording is not None

    def description(self) -> str:
        """Ask the engine what it consists of, as JSON."""
        return engine_description(self._trt, self._engine)

    def prepare(self, integrated: bool) -> None:
        """Allocate all that a frame needs, run one, and record it where that can be.

        Args:
            integrated: whether the GPU shares its memory with the CPU.

        Raises:
            EngineError: out of memory, or the engine does not run.
        """
        context = self._engine.create_execution_context()
        if context is None:
            got, do = f'"{self._logger.reason()}"', "close other programs that use the GPU"
            raise EngineError("engine", expected="memory for its tensors", got=got, do=do)
        self._frame = Frame(context, Buffers(self._cuda, integrated, self.tensors), self._logger)
        self._frame.bind()
        self._frame.run()
        if self._on_gpu:  # NVIDIA: CUDA graphs and NVDLA do not go together
            self._frame.record(self._cuda)

    def infer(self, image: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """Run one frame.

        Args:
            image: what the one input takes; copied.

        Returns:
            The outputs by name, valid until the next call.
        """
        assert self._frame is not None, "prepare() comes first"
        (source,) = self._frame.inputs.values()
        np.copyto(source, image)
        self._frame.run()
        return self._frame.outputs

    def close(self) -> None:
        """Let go from the top down: each of these holds on to the next."""
        if self._frame is not None:
            self._frame.close()
            self._frame = None
        del self._engine
        del self._runtime

    def _describe(self, name: str) -> EngineTensor:
        engine = self._engine
        kind = engine.get_tensor_dtype(name).name
        is_input = engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT
        shape = tuple(int(size) for size in engine.get_tensor_shape(name))
        return EngineTensor(name, NUMPY_NAMES.get(kind, kind), shape, is_input)


class Frame:
    """What one frame runs with: made once, used for every frame."""

    def __init__(self, context: Any, buffers: Buffers, logger: Any) -> None:
        self._context, self._buffers, self._logger = context, buffers, logger
        self.inputs = {tensor.name: tensor.host for tensor in buffers.tensors if tensor.is_input}
        self.outputs = {tensor.name: tensor.host for tensor in buffers.tensors if not tensor.is_input}
        self.recording: graph.CudaGraph | None = None

    def bind(self) -> None:
        """Tell the context where each tensor lies; a recording keeps these addresses for good."""
        context = self._context
        for tensor in self._buffers.tensors:
            if not context.set_tensor_address(tensor.name, tensor.address):
                raise EngineError("engine", expected="an address for each tensor", got=tensor.name, do="report this")

    def run(self) -> None:
        """Run one frame and wait for it."""
        if self.recording is None:
            self._enqueue()
        elif not self.recording.launch(int(self._buffers.stream.handle)):
            do = "open the model again"
            raise EngineError("engine", expected="a frame that runs", got="a refusal of the driver", do=do)
        self._buffers.stream.synchronize()

    def record(self, cuda: Cuda) -> None:
        """Record a frame, where the driver can; one must have run before, or TensorRT's first steps would be in it."""
        library = graph.load_library()
        if library is not None:
            errors = (EngineError, cuda.error)
            self.recording = graph.capture(library, int(self._buffers.stream.handle), self._enqueue, errors)
            self._buffers.stream.synchronize()

    def close(self) -> None:
        """Free all of it; the outputs that a caller still holds keep their memory."""
        if self.recording is not None:
            self.recording.close()
        del self._context
        self._buffers.free()
        self.inputs.clear()
        self.outputs.clear()

    def _enqueue(self) -> None:
        context = self._context
        self._buffers.upload()
        if not context.execute_async_v3(self._buffers.stream.handle):
            do = "build the engine again with mdpose-edge build --force"
            raise EngineError("engine", expected="a frame that runs", got=f'"{self._logger.reason()}"', do=do)
        self._buffers.download()
