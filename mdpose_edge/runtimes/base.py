"""What every inference engine looks like from outside, and the checks that they share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from mdpose_edge.common.closing import Closing
from mdpose_edge.errors import EngineError
from mdpose_edge.spec import ModelSpec


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


class TensorInfo(NamedTuple):
    """A graph's input or output as the engine reports it."""

    name: str
    dtype: str
    """numpy's name where numpy has the type."""
    shape: tuple[object, ...]
    """Numbers; anything else is a dimension that the graph leaves open."""


class CheckedAdapter(Closing):
    """A RuntimeAdapter whose engine sees only what fits, and whose failures are EngineErrors.

    A subclass loads its graph in its constructor, under `_failures` and followed by `_check_graph`.
    """

    engine: str

    def __init__(self, spec: ModelSpec, where: Path, threads: int | None) -> None:
        if threads is not None and threads < 1:
            raise EngineError("threads", expected="at least 1", got=str(threads), do="raise it, or leave it out")
        self.spec = spec
        self._where = str(where)
        self._closed = False

    def infer(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run the graph; see RuntimeAdapter."""
        if self._closed:
            raise EngineError(self._where, expected="an open engine", got="a closed one", do="open the model again")
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
        wanted = TensorInfo(self.spec.input.name, self.spec.input.dtype, self._input_shape())
        if inputs != [wanted]:
            self._refuse(f"one input {_show([wanted])}", _show(inputs))
        names, batch = sorted(self.spec.outputs), self.spec.input.batch
        if sorted(o.name for o in outputs) != names:
            self._refuse(f"float32 outputs {', '.join(names)} of batch {batch}", _show(outputs))
        found = {output.name: output for output in outputs}
        for head in self.spec.heads:
            wanted = TensorInfo(head.name, "float32", (batch, *self.spec.head_shape(head)))
            if found[head.name] != wanted:
                self._refuse(f"the output {_show([wanted])}", _show([found[head.name]]))

    def _check_images(self, images: NDArray[np.uint8]) -> None:
        shape = self._input_shape()
        expected = f"a C-contiguous uint8 array {shape}"
        if not isinstance(images, np.ndarray):
            raise EngineError("images", expected=expected, got=type(images).__name__, do="pass a numpy array")
        if images.dtype != np.uint8 or images.shape != shape:
            got = f"{images.dtype} {images.shape}"
            raise EngineError("images", expected=expected, got=got, do="preprocess the frames by the model's spec")
        if not images.flags.c_contiguous:
            raise EngineError("images", expected=expected, got="a strided view", do="pass np.ascontiguousarray(images)")

    def _input_shape(self) -> tuple[int, int, int, int]:
        spec = self.spec.input
        return spec.batch, spec.height, spec.width, 3

    def _refuse(self, expected: str, got: str) -> None:
        raise EngineError(self._where, expected=expected, got=got, do="export it again: graph and spec disagree")


@contextmanager
def engine_failures(where: str, engine: str, verb: str, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """Turn what an engine raises into an EngineError.

    Args:
        where: what the graph is called.
        engine: the engine's name.
        verb: what it was asked to do with the graph.
        errors: what it raises when it cannot.
    """
    try:
        yield
    except errors as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise EngineError(
            where,
            expected=f"a graph that {engine} can {verb}",
            got=f'"{lines[-1] if lines else type(error).__name__}"',  # the engines' last line says why
            do=f"export it again, or update {engine}",
        ) from error


def _show(tensors: list[TensorInfo]) -> str:
    return ", ".join(f"{t.name} {t.dtype} ({', '.join(map(str, t.shape))})" for t in tensors) or "none"
