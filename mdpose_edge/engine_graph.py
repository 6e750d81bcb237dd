"""What an engine says of a graph that it loaded, held against the spec; and what its refusals become."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from mdpose_edge.errors import EngineError
from mdpose_edge.spec import ModelSpec


class TensorInfo(NamedTuple):
    """A graph's input or output as the engine reports it."""

    name: str
    dtype: str
    """numpy's name where numpy has the type."""
    shape: tuple[object, ...]
    """Numbers; anything else is a dimension that the graph leaves open."""


def input_shape(spec: ModelSpec) -> tuple[int, int, int, int]:
    """Return the shape of a spec's input: (batch, H, W, 3)."""
    return spec.input.batch, spec.input.height, spec.input.width, 3


def check_graph(spec: ModelSpec, where: str, inputs: list[TensorInfo], outputs: list[TensorInfo]) -> None:
    """Refuse a graph whose input or outputs are not what its spec says.

    Args:
        spec: the graph's.
        where: what the graph is called.
        inputs: as the engine reports them.
        outputs: likewise, in any order.

    Raises:
        EngineError: they differ.
    """
    wanted = TensorInfo(spec.input.name, spec.input.dtype, input_shape(spec))
    if inputs != [wanted]:
        raise _disagreement(where, f"one input {_show([wanted])}", _show(inputs))
    names, batch = sorted(spec.outputs), spec.input.batch
    if sorted(o.name for o in outputs) != names:
        raise _disagreement(where, f"float32 outputs {', '.join(names)} of batch {batch}", _show(outputs))
    found = {output.name: output for output in outputs}
    for head in spec.heads:
        wanted = TensorInfo(head.name, "float32", (batch, *spec.head_shape(head)))
        if found[head.name] != wanted:
            raise _disagreement(where, f"the output {_show([wanted])}", _show([found[head.name]]))


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


def _disagreement(where: str, expected: str, got: str) -> EngineError:
    return EngineError(where, expected=expected, got=got, do="export it again: graph and spec disagree")


def _show(tensors: list[TensorInfo]) -> str:
    return ", ".join(f"{t.name} {t.dtype} ({', '.join(map(str, t.shape))})" for t in tensors) or "none"
