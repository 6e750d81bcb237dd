"""Reads the weights of a published checkpoint: torch.save's zip archives and what it wrote before, or safetensors.

Nothing of the file is run (pickled.py). Tensors are read when they are asked for, and only after their bounds are known
to lie within the file, so that no file takes more memory than the network that is made of it.
"""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mdpose_edge.errors import CheckpointError
from mdpose_edge.importers.pickled import NotPlainError, Storage, StoredTensor, read_pickle

MOST_PICKLE_BYTES = 64 << 20
"""Of all pickles of a file; the values of tensors lie beside them. Published checkpoints have some 0.3 MB."""
WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which runs keep the weights."""
_MAGIC, _LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001
_DAMAGED = (
    zipfile.BadZipFile, SafetensorError, NotImplementedError, RuntimeError, ValueError, EOFError, OverflowError,
    struct.error,
)  # fmt: skip
"""What zipfile and safetensors raise over damaged files."""
_DO = "give the file as its authors publish it"


@dataclass(frozen=True)
class Stored:
    """A tensor in a file that is open."""

    shape: tuple[int, ...]
    load: Callable[[], Tensor]
    """Read its values, floating-point ones as float32."""


@contextmanager
def open_tensors(path: Path) -> Iterator[dict[str, Stored]]:
    """Open a checkpoint: its tensors by the names that its network has for them, to be loaded while it is open.

    Raises:
        CheckpointError: no such file, damaged, no checkpoint, of another kind (a tar archive, TorchScript, a whole
            model), or a pickle that names anything but tensors and plain values; some damage shows on loading.
    """
    if not path.is_file():
        raise CheckpointError(str(path), expected="a checkpoint file", got="no such file", do=_DO)
    with ExitStack() as stack:
        with _refusals(path):
            tensors = _without_prefix(_tensors(path, stack.enter_context(path.open("rb"))))
        yield {name: Stored(stored.shape, partial(_load_or_refuse, path, stored)) for name, stored in tensors.items()}


def _load_or_refuse(path: Path, stored: Stored) -> Tensor:
    with _refusals(path):
        return stored.load()


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Say in a sentence what is wrong with a file."""
    try:
        yield
    except OSError as error:
        got = error.strerror or str(error)
        raise CheckpointError(str(path), expected="a file that can be read", got=got, do="check it") from error
    except (NotPlainError, *_DAMAGED) as error:
        got = str(error) if isinstance(error, NotPlainError) else f"an archive that is damaged: {error}"
        expected = "a checkpoint of tensors and plain values"
        raise CheckpointError(str(path), expected=expected, got=got, do=_DO) from error


def _tensors(path: Path, file: IO[bytes]) -> dict[str, Stored]:
    start = file.read(9)
    file.seek(0)
    if start.startswith(b"PK"):
        return _zip_tensors(file)
    if start.startswith(b"\x80"):
        return _legacy_tensors(file)
    if start[8:] == b"{":
        return _safetensors(path)
    if tarfile.is_tarfile(path):
        raise NotPlainError("a tar archive, the format before torch 0.1.10")
    raise NotPlainError("neither torch.save's format nor safetensors")


def _zip_tensors(file: IO[bytes]) -> dict[str, Stored]:
    archive = zipfile.ZipFile(file)
    names = archive.namelist()
    found = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(found) != 1:
        raise NotPlainError("a zip archive that torch.save did not write")
    prefix = found[0].removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in names:
        raise NotPlainError("a TorchScript archive, which has its code in it")
    if f"{prefix}byteorder" in names and _member(archive, f"{prefix}byteorder", 16) != b"little":
        raise NotPlainError("an archive of a big-endian machine")
    content = read_pickle(_Bounded(io.BytesIO(_member(archive, found[0], MOST_PICKLE_BYTES)))).value

    def values(storage: Storage) -> bytes:
        return _member(archive, f"{prefix}data/{storage.key}", _byte_count(storage))

    return _stored(content, values)


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Read a member of an archive; a compressed one could be of any size."""
    try:
        info = archive.getinfo(name)
    except KeyError as error:
        raise NotPlainError(f"an archive without {name[:80]}") from error
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise NotPlainError("an archive that is compressed, which torch.save's are not")
    if info.file_size > most:
        raise NotPlainError(f"an archive whose {name[:80]} has {info.file_size:,} bytes in place of {most:,}")
    return archive.read(info)


def _legacy_tensors(file: IO[bytes]) -> dict[str, Stored]:
    """Read the format before torch 1.6: a few pickles, and then each storage's count and values."""
    pickles = _Bounded(file)
    magic, version, system = (read_pickle(pickles).value for _ in range(3))
    if (magic, version) != (_MAGIC, _LEGACY_VERSION) or not isinstance(system, dict):
        raise NotPlainError("a pickle that torch.save did not write")
    if system.get("little_endian") is not True:
        raise NotPlainError("a file of a big-endian machine")
    content = read_pickle(pickles)
    places = _places(file, read_pickle(pickles).value, content.storages)

    def values(storage: Storage) -> bytes:
        file.seek(places[storage.key])
        return file.read(_byte_count(storage))

    return _stored(content.value, values)


def _places(file: IO[bytes], keys: Any, storages: Mapping[str, Storage]) -> dict[str, int]:
    """Return where in a file the values of each storage begin."""
    places, place, end = dict[str, int](), file.tell(), os.fstat(file.fileno()).st_size
    if not isinstance(keys, list) or {key for key in keys if isinstance(key, str)} != storages.keys():
        raise NotPlainError("a file that is damaged: it lists other storages than it names")
    for key in keys:
        places[key] = place + 8
        place = places[key] + _byte_count(storages[key])
        if place > end:
            raise NotPlainError("a file that ends early")
    return places


class _Bounded:
    """A file of which so much is read and no more, however long a value says that it is."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._left = file, MOST_PICKLE_BYTES

    def read(self, count: int) -> bytes:
        return self._spend(self._file.read(min(count, self._left)))

    def readline(self) -> bytes:
        line = self._spend(self._file.readline(self._left))
        if b"\\" in line:
            raise NotPlainError("a pickle that is damaged: a name with a backslash")
        return line

    def tell(self) -> int:
        return self._file.tell()

    def _spend(self, data: bytes) -> bytes:
        self._left -= len(data)
        return data


def _safetensors(path: Path) -> dict[str, Stored]:
    file: Any = safe_open(path, framework="pt")

    def load(name: str) -> Tensor:
        return _wide(file.get_tensor(name))

    return {name: Stored(tuple(file.get_slice(name).get_shape()), partial(load, name)) for name in file.keys()}  # noqa: SIM118


def _stored(content: Any, values: Callable[[Storage], bytes]) -> dict[str, Stored]:
    """Find the weights in what a pickle says."""
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise NotPlainError("a pickle of something else than named tensors")
    tensors = {str(name): tensor for name, tensor in content.items() if isinstance(tensor, StoredTensor)}
    for name, tensor in tensors.items():
        _check_bounds(name, tensor)
    return {name: Stored(tensor.shape, partial(_load, tensor, values)) for name, tensor in tensors.items()}


def _check_bounds(name: str, tensor: StoredTensor) -> None:
    count, last = 1, tensor.offset
    for size, step in zip(tensor.shape, tensor.stride, strict=False):
        count, last = count * size, last + max(size - 1, 0) * step
    whole = len(tensor.shape) == len(tensor.stride) and min((tensor.offset, *tensor.shape, *tensor.stride)) >= 0
    if not whole or count > tensor.storage.numel or (count and last >= tensor.storage.numel):
        raise NotPlainError(f"a tensor that reaches beyond its storage: {name[:80]}")


def _load(tensor: StoredTensor, values: Callable[[Storage], bytes]) -> Tensor:
    data = bytearray(values(tensor.storage))
    if len(data) != _byte_count(tensor.storage):
        raise NotPlainError("a file that ends early")
    if not data:
        return torch.zeros(tensor.shape)
    flat = torch.frombuffer(data, dtype=getattr(torch, tensor.storage.dtype))
    return _wide(flat.as_strided(tensor.shape, tensor.stride, tensor.offset).clone())


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _byte_count(storage: Storage) -> int:
    dtype: torch.dtype = getattr(torch, storage.dtype)
    return storage.numel * dtype.itemsize


def _without_prefix(tensors: dict[str, Stored]) -> dict[str, Stored]:
    """Drop what torch's DataParallel puts before every name."""
    if not tensors:
        raise NotPlainError("no tensor")
    prefix = "module."
    if not all(name.startswith(prefix) for name in tensors):
        return tensors
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
