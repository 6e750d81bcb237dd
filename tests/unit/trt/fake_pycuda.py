"""A pycuda that keeps its memory in numpy, for machines without a GPU.

As strict as CUDA where it matters: every call needs a current context in its own thread, queued work runs when the
stream is synchronized, freed memory is gone, and each allocation is counted.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

DEVICEMAP = 2


@dataclass
class Machine:
    """What there is, and what has happened to it."""

    gpu: str = "NVIDIA Test GPU"
    compute_capability: tuple[int, int] = (8, 6)
    free_mib: int = 16000
    integrated: bool = False
    driver_cuda: int = 12040
    count: int = 1
    start_failure: str | None = None
    """What cuInit says, or None where it works."""
    memory: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    """By address, what is allocated."""
    allocations: int = 0
    copies: int = 0
    streams: dict[int, Any] = field(default_factory=dict)
    contexts: int = 0
    """Primary contexts retained and not let go of."""
    local: threading.local = field(default_factory=threading.local)

    @property
    def stack(self) -> list[Any]:
        """The contexts of this thread."""
        if not hasattr(self.local, "stack"):
            self.local.stack = []
        stack: list[Any] = self.local.stack
        return stack

    def allocate(self, nbytes: int) -> tuple[int, NDArray[np.uint8]]:
        array = np.zeros(nbytes, np.uint8)
        address = array.ctypes.data
        self.memory[address] = array
        self.allocations += 1
        return address, array


def fake_pycuda(machine: Machine) -> tuple[ModuleType, ModuleType]:
    """Make the modules `pycuda` and `pycuda.driver`."""
    driver = ModuleType("pycuda.driver")

    class Error(Exception):
        """Base of the errors, as in pycuda."""

    class LogicError(Error):
        pass

    class OutOfMemory(Error):
        pass

    OutOfMemory.__name__ = "MemoryError"

    def check() -> None:
        if not machine.stack:
            raise LogicError("invalid device context")

    def init() -> None:
        if machine.start_failure is not None:
            raise LogicError(f"cuInit failed: {machine.start_failure}")

    class Context:
        def __init__(self) -> None:
            machine.contexts += 1

        def __del__(self) -> None:
            machine.contexts -= 1

        def push(self) -> None:
            machine.stack.append(self)

        @staticmethod
        def pop() -> None:
            machine.stack.pop()

    class Device:
        def __init__(self, index: int) -> None:
            assert index < machine.count

        @staticmethod
        def count() -> int:
            return machine.count

        def name(self) -> str:
            return machine.gpu

        def compute_capability(self) -> tuple[int, int]:
            return machine.compute_capability

        def get_attribute(self, attribute: str) -> int:
            return {"INTEGRATED": int(machine.integrated)}[attribute]

        def retain_primary_context(self) -> Context:
            return Context()

    class Stream:
        def __init__(self) -> None:
            check()
            self.handle = id(self)
            self.queue: list[Callable[[], None]] = []
            self.recording: list[Callable[[], None]] | None = None
            machine.streams[self.handle] = self

        def add(self, work: Callable[[], None]) -> None:
            check()
            (self.queue if self.recording is None else self.recording).append(work)

        def synchronize(self) -> None:
            check()
            assert self.recording is None, "cannot wait for a stream that records"
            queue, self.queue = self.queue, []
            for work in queue:
                work()

    class DeviceAllocation:
        def __init__(self, nbytes: int) -> None:
            check()
            if nbytes > machine.free_mib << 20:
                raise OutOfMemory("cuMemAlloc failed: out of memory")
            self.address, _ = machine.allocate(nbytes)

        def __int__(self) -> int:
            return self.address

        def free(self) -> None:
            check()
            del machine.memory[self.address]

    class HostAllocation:
        def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], flags: int) -> None:
            check()
            self.flags = flags
            self.address, self._array = machine.allocate(int(np.prod(shape)) * dtype.itemsize)
            self.__array_interface__ = {
                "shape": shape,
                "typestr": dtype.str,
                "data": (self.address, False),
                "version": 3,
            }

        def __del__(self) -> None:
            del machine.memory[self.address]

        def get_device_pointer(self) -> int:
            if not self.flags & DEVICEMAP:
                raise LogicError("not mapped")
            return self.address

    def pagelocked_empty(shape: tuple[int, ...], dtype: np.dtype[Any], mem_flags: int = 0) -> NDArray[Any]:
        array = np.asarray(HostAllocation(shape, dtype, mem_flags))
        assert isinstance(array.base, HostAllocation)
        return array

    def copy(dest: NDArray[Any], source: NDArray[Any]) -> None:
        machine.copies += 1
        dest.reshape(-1).view(np.uint8)[:] = source.reshape(-1).view(np.uint8)

    def memcpy_htod_async(dest: int, src: NDArray[Any], stream: Stream) -> None:
        stream.add(lambda: copy(machine.memory[dest], src))

    def memcpy_dtoh_async(dest: NDArray[Any], src: int, stream: Stream) -> None:
        stream.add(lambda: copy(dest, machine.memory[src]))

    def mem_get_info() -> tuple[int, int]:
        check()
        return machine.free_mib << 20, (machine.free_mib + 500) << 20

    driver.Error, driver.LogicError, driver.MemoryError = Error, LogicError, OutOfMemory  # type: ignore[attr-defined]
    driver.init, driver.Context, driver.Device, driver.Stream = init, Context, Device, Stream  # type: ignore[attr-defined]
    driver.mem_alloc, driver.pagelocked_empty = DeviceAllocation, pagelocked_empty  # type: ignore[attr-defined]
    driver.memcpy_htod_async, driver.memcpy_dtoh_async = memcpy_htod_async, memcpy_dtoh_async  # type: ignore[attr-defined]
    driver.mem_get_info = mem_get_info  # type: ignore[attr-defined]
    driver.get_driver_version = lambda: machine.driver_cuda  # type: ignore[attr-defined]
    driver.device_attribute = SimpleNamespace(INTEGRATED="INTEGRATED")  # type: ignore[attr-defined]
    driver.host_alloc_flags = SimpleNamespace(DEVICEMAP=DEVICEMAP)  # type: ignore[attr-defined]
    package = ModuleType("pycuda")
    package.__spec__, driver.__spec__ = ModuleSpec("pycuda", None), ModuleSpec("pycuda.driver", None)
    package.driver = driver  # type: ignore[attr-defined]
    return package, driver


class RecordingLibrary:
    """The six functions of libcuda that record a stream, over the fake's streams; each returns 0 or an error."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._recordings: dict[int, list[Callable[[], None]]] = {}
        self._next = 1
        self.fail = ""
        """The name of a function that fails."""
        self.launches = 0

    def _fails(self, name: str) -> bool:
        return self.fail == name

    def _new(self, work: list[Callable[[], None]]) -> int:
        self._next += 1
        self._recordings[self._next] = work
        return self._next

    def cuStreamBeginCapture_v2(self, stream: ctypes.c_void_p, mode: int) -> int:
        if self._fails("cuStreamBeginCapture_v2"):
            return 1
        assert stream.value is not None
        self._machine.streams[stream.value].recording = []
        return 0

    def cuStreamEndCapture(self, stream: ctypes.c_void_p, graph: Any) -> int:
        assert stream.value is not None
        made = self._machine.streams[stream.value]
        work, made.recording = made.recording, None
        if self._fails("cuStreamEndCapture"):
            return 1
        graph._obj.value = self._new(work)
        return 0

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: ctypes.c_void_p, flags: Any) -> int:
        if self._fails("cuGraphInstantiateWithFlags"):
            return 1
        assert graph.value is not None
        executable._obj.value = self._new(self._recordings[graph.value])
        return 0

    def cuGraphLaunch(self, executable: ctypes.c_void_p, stream: ctypes.c_void_p) -> int:
        if self._fails("cuGraphLaunch"):
            return 1
        assert stream.value is not None and executable.value is not None
        self.launches += 1
        for work in self._recordings[executable.value]:
            self._machine.streams[stream.value].add(work)
        return 0

    def cuGraphExecDestroy(self, executable: ctypes.c_void_p) -> int:
        assert executable.value is not None
        del self._recordings[executable.value]
        return 0

    def cuGraphDestroy(self, graph: ctypes.c_void_p) -> int:
        assert graph.value is not None
        del self._recordings[graph.value]
        return 0

    @property
    def alive(self) -> int:
        """Graphs that were made and not destroyed."""
        return len(self._recordings)
