"""Plain data becomes dataclasses, strictly: specs from JSON, configurations from YAML."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from mdpose_edge.errors import MdposeError

T = TypeVar("T")

_KIND_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def read_dataclass(
    cls: type[T], data: Any, *, where: str, error: type[MdposeError], defaults: bool, path: str = ""
) -> T:
    """Build a dataclass from parsed JSON or YAML, refusing unknown keys, missing keys and values of the wrong kind.

    Args:
        cls: a dataclass; nested dataclasses, tuples, Literal, Optional and Mapping fields are understood.
        data: the parsed object.
        where: the file it came from, for messages.
        error: the MdposeError to raise.
        defaults: let a key be missing where the field has a default; a contract between programs does not.
        path: the dotted key of `data` in the whole.

    Raises:
        error: in the words of the key at fault.
    """
    if not isinstance(data, Mapping):
        raise error(where, expected=f"a table at {path or 'the top'}", got=_show(data), do="write its keys")
    names = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    dotted = f"{path}." if path else ""
    for key in data:
        if key not in names:
            raise error(
                where,
                expected=f"one of the keys {', '.join(names)}",
                got=f"the unknown key {dotted}{key}",
                do="remove or correct it",
            )
    for name, f in names.items():
        has_default = f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
        if name not in data and not (defaults and has_default):
            raise error(where, expected=f"the key {dotted}{name}", got="none", do="add it")
    hints = typing.get_type_hints(cls)
    values = {
        key: _read_value(hints[key], value, _Reader(where, error, defaults), f"{dotted}{key}")
        for key, value in data.items()
    }
    return cls(**values)


@dataclass(frozen=True)
class _Reader:
    where: str
    error: type[MdposeError]
    defaults: bool


def _read_value(hint: Any, value: Any, reader: _Reader, path: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)

    def wrong(expected: str) -> MdposeError:
        return reader.error(reader.where, expected=f"{expected} at {path}", got=_show(value), do="correct the value")

    if hint is Any:
        return value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return read_dataclass(hint, value, path=path, **vars(reader))
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        arms = [a for a in args if a is not type(None)]
        if len(arms) == 1:
            return _read_value(arms[0], value, reader, path)
        if type(value) in arms:  # of plain types; isinstance would take a bool for an int
            return value
        raise wrong(" or ".join(_KIND_NAMES[kind] for kind in arms))
    if origin is Literal:
        if value not in args:
            raise wrong("one of " + ", ".join(map(str, args)))
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or (args[-1] is not Ellipsis and len(value) != len(args)):
            raise wrong("a list" if args[-1] is Ellipsis else f"a list of {len(args)}")
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
        return tuple(
            _read_value(k, v, reader, f"{path}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True))
        )
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise wrong("a table")
        return {key: _read_value(args[1], v, reader, f"{path}.{key}") for key, v in value.items()}
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise wrong(_KIND_NAMES.get(hint, str(hint)))


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
