"""CUDA through pycuda: the primary context, entered only while something is done, and buffers that are made once.

The primary context is the one that torch, onnxruntime and the CUDA runtime share; pycuda's own `autoinit` would make
another, and pointers of one mean nothing in the other. It is pushed around each use, so that any thread may call.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.optional import require
from mdpose_edge.errors import EngineError
from mdpose_edge.trt import graph

MIB = 1 << 20


@dataclass(frozen=True)
class Gpu:
    """A GPU as its driver describes it."""

    name: str
    compute_capability: tuple[int, int]
    total_mib: int
    free_mib: int
    integrated: bool
    """Whether it shares its memory with the CPU, as on every Jetson."""
    driver_cuda: tuple[int, int]
    """The newest CUDA that the driver runs."""


class Cuda:
    """The first GPU and its primary context.

    Raises:
        MissingPackageError: pycuda is not installed.
        EngineError: there is no driver or no GPU, or they do not fit together.
    """

    def __init__(self) -> None:
        self.driver = _load_driver()
        with self.failures("start"):
            self.driver.init()
            if self.driver.Device.count() == 0:
                raise EngineError("GPU", expected="an NVIDIA GPU", got="none", do="run this on the device")
            self._device = self.driver.Device(0)
            self._primary = self._device.retain_primary_context()

    @property
    def error(self) -> type[Exception]:
        """The base of what pycuda raises."""
        base: type[Exception] = self.driver.Error
        return base

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread."""
        self._primary.push()
        try:
            yield
        finally:
            self.driver.Context.pop()

    @contextmanager
    def failures(self, verb: str) -> Iterator[None]:
        """Turn what pycuda raises into an EngineError; `verb` is what CUDA was asked to do."""
        try:
            yield
        except self.driver.MemoryError as error:
            do = "close other programs, or lower the workspace with mdpose-edge build --workspace"
            raise EngineError("GPU", expected="enough memory", got=f'"{error}"', do=do) from error
        except self.error as error:
            expected, do = f"a GPU and driver that {verb}", _advice(str(error))
            raise EngineError("GPU", expected=expected, got=f'"{error}"', do=do) from error

    def describe(self) -> Gpu:
        """Ask the driver what GPU this is."""
        with self.failures("answer"), self.current():
            free, total = self.driver.mem_get_info()
            version = int(self.driver.get_driver_version())
            return Gpu(
                name=str(self._device.name()),
                compute_capability=tuple(self._device.compute_capability()),
                total_mib=total // MIB,
                free_mib=free // MIB,
                integrated=bool(self._device.get_attribute(self.driver.device_attribute.INTEGRATED)),
                driver_cuda=(version // 1000, version % 1000 // 10),
            )

    def close(self) -> None:
        """Let go of the primary context, which lives on if others hold it; nothing may be used afterwards."""
        del self._primary


@dataclass(frozen=True)
class TensorBuffer:
    """One input or output: what the CPU sees, and where the GPU finds it."""

    name: str
    host: NDArray[Any]
    """Page-locked."""
    address: int
    """On the GPU; the very same memory as `host` where memory is shared."""
    is_input: bool


class Buffers:
    """Memory of all inputs and outputs, allocated once.

    On a GPU with memory of its own: page-locked host arrays, and device arrays beside them. On an integrated GPU the
    host arrays are mapped into the GPU's address space, and nothing is copied. The context must be current in every
    call.

    Args:
        cuda: of the context that is current.
        integrated: see Gpu.
        tensors: (name, numpy dtype, shape, whether it is an input) of each.
    """

    def __init__(self, cuda: Cuda, integrated: bool, tensors: Sequence[tuple[str, str, tuple[int, ...], bool]]) -> None:
        self._driver = cuda.driver
        self._allocations: list[Any] = []
        self.stream = cuda.driver.Stream()
        self.copied = not integrated
        self.tensors = [self._allocate(*tensor) for tensor in tensors]

    def _allocate(self, name: str, dtype: str, shape: tuple[int, ...], is_input: bool) -> TensorBuffer:
        if not self.copied:
            flags = self._driver.host_alloc_flags.DEVICEMAP
            host = self._driver.pagelocked_empty(shape, np.dtype(dtype), mem_flags=flags)
            return TensorBuffer(name, host, int(host.base.get_device_pointer()), is_input)
        host = self._driver.pagelocked_empty(shape, np.dtype(dtype))
        allocation = self._driver.mem_alloc(max(1, prod(shape)) * np.dtype(dtype).itemsize)
        self._allocations.append(allocation)
        return TensorBuffer(name, host, int(allocation), is_input)

    def upload(self) -> None:
        """Queue the copies of the inputs to the GPU, where there is anything to copy."""
        if self.copied:
            for tensor in self.tensors:
                if tensor.is_input:
                    self._driver.memcpy_htod_async(tensor.address, tensor.host, self.stream)

    def download(self) -> None:
        """Queue the copies of the outputs from the GPU, where there is anything to copy."""
        if self.copied:
            for tensor in self.tensors:
                if not tensor.is_input:
                    self._driver.memcpy_dtoh_async(tensor.host, tensor.address, self.stream)

    def free(self) -> None:
        """Free the GPU's memory and the stream; an output that a caller still holds keeps its host memory."""
        while self._allocations:
            self._allocations.pop().free()
        self.tensors.clear()
        del self.stream


def _load_driver() -> Any:
    """Import pycuda's driver module, which needs NVIDIA's libcuda.so.1."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # pycuda's, of what its ImportError says too
            return require("pycuda.driver", extra="tensorrt", feature="the tensorrt engine")
    except ModuleNotFoundError:
        raise
    except ImportError as error:
        # A pycuda that was linked without the driver's library names one of its functions, not the library.
        if "libcuda" in str(error) or not graph.has_driver():
            do = "install the NVIDIA driver, or run this on the device"
            raise EngineError("GPU", expected="an NVIDIA driver", got=f"none: {error}", do=do) from error
        do = "install pycuda again, on this machine and for this Python"
        raise EngineError("pycuda", expected="a build that loads", got=f"{error}", do=do) from error


def _advice(message: str) -> str:
    """Say what to do about an error of the driver, by its text."""
    if "driver version is insufficient" in message or "unsupported display driver" in message:
        return "update the NVIDIA driver to one for this CUDA, and restart"
    if "no CUDA-capable device" in message:
        return "run this on the device, and give its GPU to the container if it runs in one"
    return "restart the machine, or install the NVIDIA driver again"
