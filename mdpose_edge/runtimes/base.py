"""What every inference engine looks like from outside, and the checks that they share."""

from __future__ import annotations

import os
from abc import abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from mdpose_edge.common.closing import Closing
from mdpose_edge.engine_graph import TensorInfo, check_graph, engine_failures, input_shape
from mdpose_edge.errors import EngineError
from mdpose_edge.spec import ModelSpec

MAX_THREADS = 1024
"""More than any CPU has; beyond, engines overflow or take all memory."""


class RuntimeAdapter(Protocol):
    """One loaded graph on one engine: numpy in, numpy out.

    An adapter runs the graph and nothing else: resizing, decoding and suppression are shared and live elsewhere.
    Adapters are not thread-safe unless their module says so.
    """

    engine: str
    """The engine's one name: registry key, extra and --runtime value."""

    def infer(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run the graph.

        Args:
            images: (batch, H, W, 3) uint8 of exactly the spec's shape, C-contiguous. Not modified.

        Returns:
            Head tensors by output name, float32, each valid until the next call.

        Raises:
            EngineError: wrong shape or dtype, or the engine failed.
        """

    def close(self) -> None:
        """Release the engine; calling it twice is harmless."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class CheckedAdapter(Closing):
    """A RuntimeAdapter whose engine sees only what fits, and whose failures are EngineErrors.

    A subclass loads its graph in its constructor, under `_failures` and followed by `_check_graph`.
    """

    engine: str

    def __init__(self, spec: ModelSpec, where: Path, threads: int | None) -> None:
        if threads is not None and not 1 <= threads <= MAX_THREADS:
            expected, do = f"1 to {MAX_THREADS}", "correct it, or leave it out"
            raise EngineError("threads", expected=expected, got=str(threads), do=do)
        self.spec = spec
        self._where = str(where)
        self._closed, self._process = False, os.getpid()

    def infer(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run the graph; see RuntimeAdapter."""
        if self._closed:
            raise EngineError(self._where, expected="an open engine", got="a closed one", do="open the model again")
        if self._process != os.getpid():  # the engine's threads were not forked, and waiting for them would never end
            expected, got = "an engine opened in this process", "one of the process that this one was forked from"
            do = 'open the model here, and start processes with multiprocessing.get_context("spawn")'
            raise EngineError(self._where, expected=expected, got=got, do=do)
        self._check_images(images)
        with self._failures("run"):
            return self._run(images)

    def close(self) -> None:
        """Release the engine; calling it twice is harmless."""
        if not self._closed:
            self._closed = True
            self._release()

    @abstractmethod
    def _run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run the graph on images that were checked."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of the engine's objects."""

    @abstractmethod
    def _engine_errors(self) -> tuple[type[Exception], ...]:
        """What the engine raises when it cannot load or run a graph."""

    def _failures(self, verb: str) -> AbstractContextManager[None]:
        """Turn what the engine raises into an EngineError; `verb` is what it was asked to do."""
        return engine_failures(self._where, self.engine, verb, self._engine_errors())

    def _check_graph(self, inputs: list[TensorInfo], outputs: list[TensorInfo]) -> None:
        """Refuse a graph whose input or outputs are not what its spec says."""
        check_graph(self.spec, self._where, inputs, outputs)

    def _check_images(self, images: NDArray[np.uint8]) -> None:
        shape = input_shape(self.spec)
        expected = f"a C-contiguous uint8 array {shape}"
        if not isinstance(images, np.ndarray):
            raise EngineError("images", expected=expected, got=type(images).__name__, do="pass a numpy array")
        if images.dtype != np.uint8 or images.shape != shape:
            got = f"{images.dtype} {images.shape}"
            raise EngineError("images", expected=expected, got=got, do="preprocess the frames by the model's spec")
        if not images.flags.c_contiguous:
            raise EngineError("images", expected=expected, got="a strided view", do="pass np.ascontiguousarray(images)")
