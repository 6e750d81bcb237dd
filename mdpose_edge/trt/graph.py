"""CUDA graphs: the queue of one frame, recorded once and launched as a whole.

pycuda has no calls for it, so the driver's own are made through ctypes, on the stream that pycuda made.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

LIBRARY = "libcuda.so.1"
THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on using CUDA while this one records."""
_FUNCTIONS = (
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphExecDestroy",
    "cuGraphDestroy",
)


class CudaGraph:
    """A recorded frame; the context that it was recorded in must be current in every call."""

    def __init__(self, library: Any, graph: ctypes.c_void_p, executable: ctypes.c_void_p) -> None:
        self._library, self._graph, self._executable = library, graph, executable

    def launch(self, stream: int) -> bool:
        """Queue the frame; False where the driver refuses."""
        return bool(self._library.cuGraphLaunch(self._executable, ctypes.c_void_p(stream)) == 0)

    def close(self) -> None:
        """Free the recording."""
        self._library.cuGraphExecDestroy(self._executable)
        self._library.cuGraphDestroy(self._graph)


def has_driver() -> bool:
    """Say whether the driver's library can be loaded."""
    return _library() is not None


def load_library() -> Any:
    """Load the driver's library, or return None where it is absent or too old to record (before CUDA 11.4)."""
    library = _library()
    return library if library is not None and all(hasattr(library, name) for name in _FUNCTIONS) else None


def _library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError:
        return None


def capture(
    library: Any, stream: int, enqueue: Callable[[], None], errors: tuple[type[Exception], ...]
) -> CudaGraph | None:
    """Capture what `enqueue` queues on a stream.

    Args:
        library: of `load_library`.
        stream: its handle; not the default stream, and with nothing left to do.
        enqueue: queues one frame on it; called once, and nothing runs.
        errors: what it raises if something cannot be captured.

    Returns:
        The CUDA graph, or None where the frame cannot be captured; the stream is usable either way.
    """
    handle, graph, executable = ctypes.c_void_p(stream), ctypes.c_void_p(), ctypes.c_void_p()
    if library.cuStreamBeginCapture_v2(handle, THREAD_LOCAL) != 0:
        return None
    try:
        enqueue()
        captured = True
    except errors:
        captured = False
    ended = library.cuStreamEndCapture(handle, ctypes.byref(graph)) == 0
    if not (ended and graph):
        return None
    if not captured or library.cuGraphInstantiateWithFlags(ctypes.byref(executable), graph, ctypes.c_ulonglong(0)) != 0:
        library.cuGraphDestroy(graph)
        return None
    return CudaGraph(library, graph, executable)
