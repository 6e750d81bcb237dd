"""Reads the pickles that torch.save writes without running them: no class is made and no function is called.

A pickle is a program for a small stack machine, which may call whatever it names. This machine knows the instructions
of torch.save alone, and its names are a table: tensors and containers become records of this module, some harmless
things become `SKIPPED`, and all other names are refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

MOST_INSTRUCTIONS = 2_000_000
"""The published checkpoints of these networks have some 60,000, with the optimizer's state three times as many."""


class NotPlainError(Exception):
    """A pickle that is damaged, or asks for more than tensors and plain values."""


@dataclass(frozen=True)
class Storage:
    """The memory behind tensors."""

    dtype: str
    """By the name that torch gives it."""
    key: str
    numel: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor, by where its values are."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    """What a pickle names: `kind` says what to make of a call, `dtype` is a storage's."""

    kind: str
    dtype: str = ""


SKIPPED = _Name("skipped")
"""Stands for a thing that is harmless and not needed."""
_MARK = object()
_STORAGES = {
    "Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool",
}  # fmt: skip
_NAMES = {
    "collections OrderedDict": _Name("table"),
    "torch Size": _Name("tuple"),
    "torch._utils _rebuild_tensor": _Name("tensor"),
    "torch._utils _rebuild_tensor_v2": _Name("tensor"),
    "torch._utils _rebuild_parameter": _Name("first argument"),
    **{f"torch {kind}Storage": _Name("storage", dtype) for kind, dtype in _STORAGES.items()},
    # Settings and curves of a run, as mmengine and others keep them beside the weights.
    "_codecs encode": SKIPPED,
    "collections defaultdict": SKIPPED,
    "mmengine.logging.history_buffer HistoryBuffer": SKIPPED,
    **{f"numpy {name}": SKIPPED for name in ("ndarray", "dtype", "float32", "float64", "int64")},
    **{f"numpy.{core}.multiarray {name}": SKIPPED for core in ("core", "_core") for name in ("_reconstruct", "scalar")},
}


class Readable(Protocol):
    """What is asked of a file."""

    def read(self, count: int) -> bytes:
        """Read so many bytes, or what is left."""

    def readline(self) -> bytes:
        """Read up to the end of a line."""

    def tell(self) -> int:
        """Return the place in the file."""


@dataclass(frozen=True)
class Unpickled:
    """What a pickle says."""

    value: Any
    """None, booleans, numbers, text, bytes, lists, tuples and dicts of the same, `StoredTensor`, and `SKIPPED`."""
    storages: Mapping[str, Storage]
    """All that it names, by their keys."""


def read_pickle(file: Readable) -> Unpickled:
    """Read one pickle from a file, which is left behind its end.

    Raises:
        NotPlainError: it is damaged, or has an instruction or a name that no checkpoint of tensors has.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):  # type: ignore[arg-type]
            if opcode.name == "STOP":
                return Unpickled(machine.stack.pop(), machine.storages)
            if count > MOST_INSTRUCTIONS:
                raise NotPlainError(f"a pickle of more than {MOST_INSTRUCTIONS:,} instructions")
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError, AttributeError) as error:
        raise NotPlainError(f"a pickle that is damaged: {' '.join(str(error).split()) or 'it ends early'}") from error
    raise NotPlainError("a pickle that ends early")


class _Machine:
    """The stack and what is remembered of it."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self.plain: dict[str, Callable[[], Any]] = {
            "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "MARK": lambda: _MARK,
            "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": lambda: SKIPPED,
            "TUPLE": lambda: tuple(self.since_mark()), "TUPLE1": lambda: self.last(1), "TUPLE2": lambda: self.last(2),
            "TUPLE3": lambda: self.last(3), "BINPERSID": self.storage, "REDUCE": self.call, "NEWOBJ": self.call,
            "STACK_GLOBAL": lambda: _named(" ".join(self.last(2))),
        }  # fmt: skip
        self.changing: dict[str, Callable[[], Any]] = {
            "PROTO": lambda: None, "FRAME": lambda: None, "BUILD": self.stack.pop,
            "APPEND": lambda: self.extend(self.last(1)), "APPENDS": lambda: self.extend(self.since_mark()),
            "SETITEM": lambda: self.update(self.last(2)), "SETITEMS": lambda: self.update(self.since_mark()),
        }  # fmt: skip

    def step(self, name: str, argument: Any) -> None:
        """Do one instruction."""
        if name in self.plain:
            self.stack.append(self.plain[name]())
        elif name in self.changing:
            self.changing[name]()
        elif name in _VALUES:
            self.stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "GLOBAL":
            self.stack.append(_named(argument))
        else:
            raise NotPlainError(f"a pickle with the instruction {name}, which torch.save does not write")

    def last(self, count: int) -> tuple[Any, ...]:
        """Take so many values from the top."""
        if len(self.stack) < count:
            raise ValueError("it takes what is not there")
        taken = tuple(self.stack[-count:])
        del self.stack[-count:]
        return taken

    def since_mark(self) -> list[Any]:
        """Take all values above the last mark, and the mark."""
        taken = []
        while (value := self.stack.pop()) is not _MARK:
            taken.append(value)
        return taken[::-1]

    def storage(self) -> Storage:
        """Read what torch.save puts for a storage: ("storage", type, key, place, count)."""
        (word, kind, key, _, count, *view) = self.stack.pop()
        if word != "storage" or not isinstance(kind, _Name) or kind.kind != "storage":
            raise ValueError("it keeps something else where a storage should be")
        if view not in ([], [None]) or not isinstance(key, str) or type(count) is not int or count < 0:
            raise ValueError("it has a storage of a form that is not known")
        return self.storages.setdefault(key, Storage(kind.dtype, key, count))

    def call(self) -> Any:
        """Make what a call of a name stands for."""
        name, arguments = self.last(2)
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise ValueError("it calls what cannot be called")
        if name.kind == "table":
            return _table(*arguments)
        if name.kind == "tuple":
            return tuple(*arguments)
        if name.kind == "tensor":
            storage, offset, shape, stride = arguments[:4]
            return StoredTensor(_storage(storage), int(offset), _whole(shape), _whole(stride))
        return arguments[0] if name.kind == "first argument" else SKIPPED

    def extend(self, values: Any) -> None:
        """Append to the list on top."""
        if self.stack[-1] is not SKIPPED:
            self.stack[-1].extend(values)

    def update(self, pairs: Any) -> None:
        """Set keys of the dict on top."""
        if self.stack[-1] is not SKIPPED:
            self.stack[-1].update(_table(zip(pairs[::2], pairs[1::2], strict=True)))


_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
"""Instructions that put their own argument on the stack."""


def _named(name: str) -> _Name:
    known = _NAMES.get(name)
    if known is None:
        shown = name.replace(" ", ".")[:80].encode("unicode_escape").decode()
        raise NotPlainError(f"a pickle with code in it: it names {shown}, which is never run")
    return known


def _table(pairs: Iterable[Any] = ()) -> dict[Any, Any]:
    """Make a dict; keys that are no plain values are left out: to hash nested tuples can take for ever."""
    return {key: value for key, value in pairs if isinstance(key, (str, int, float))}


def _storage(value: Any) -> Storage:
    if not isinstance(value, Storage):
        raise ValueError("it has a tensor without a storage")
    return value


def _whole(values: Any) -> tuple[int, ...]:
    if not all(type(value) is int for value in values):
        raise ValueError("it has a tensor whose shape is no list of whole numbers")
    return tuple(values)
