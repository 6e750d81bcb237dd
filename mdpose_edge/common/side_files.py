"""Side files: small float arrays that a decoder needs beside its spec, such as a scoring net, one file a kind.

They are safetensors, read and written here by numpy alone: 8 bytes of length, little-endian, a JSON header of that
length with type, shape and place of each tensor, then their bytes. In a bundle the spec lists them with their hashes,
as all of its files; in a checkpoint their tensors stand under `PREFIX`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.files import file_sha256
from mdpose_edge.common.json_text import parse_json
from mdpose_edge.errors import BundleError

SUFFIX = ".safetensors"
"""Of their names in a bundle, which holds no other file of this kind."""
PREFIX = "side/"
"""Of a checkpoint's tensors: side/KIND/NAME."""
TYPES: Mapping[str, Any] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
LONGEST_HEADER = 100_000_000
_AGAIN = "copy it again, or export the model again"

SideFiles = Mapping[str, Mapping[str, NDArray[np.float32]]]
"""Arrays by their name, by the kind of the file: {"scorer": {"l1.weight": ...}}."""


def read_side_files(folder: Path, hashes: Mapping[str, str]) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Read the side files among a bundle's files.

    Args:
        folder: where they are.
        hashes: sha256 of each file of the bundle, by name.

    Raises:
        BundleError: one is missing, altered, or no such file.
    """
    found = {}
    for name in sorted(filter(is_side_file, hashes)):
        path = folder / name
        if not path.is_file():
            raise BundleError(str(path), expected="a side file", got="no such file", do=_AGAIN)
        sha256 = file_sha256(path)
        if sha256 != hashes[name]:
            expected, got = f"sha256 {hashes[name][:12]}... as in the spec", f"{sha256[:12]}...: the file was altered"
            raise BundleError(str(path), expected=expected, got=got, do=_AGAIN)
        found[name.removesuffix(SUFFIX)] = read_arrays(path)
    return found


def is_side_file(name: str) -> bool:
    """Say whether a file of a bundle is one."""
    return name.endswith(SUFFIX)


def side_of_checkpoint(path: Path) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Read the side files that a checkpoint holds; errors as of `read_arrays`."""
    found: dict[str, dict[str, NDArray[np.float32]]] = {}
    for name, array in read_arrays(path, PREFIX).items():
        kind, _, rest = name.partition("/")
        found.setdefault(kind, {})[rest] = array
    return found


def read_arrays(path: Path, prefix: str = "") -> dict[str, NDArray[np.float32]]:
    """Read float tensors of a safetensors file.

    Args:
        path: the file.
        prefix: of the names of those that are read; it is cut off.

    Raises:
        BundleError: it is no such file, or one of these tensors is not of floats.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > LONGEST_HEADER:
                raise ValueError(f"a header of {length} bytes")
            header = parse_json(file.read(length))
            return {
                name.removeprefix(prefix): _read(file, 8 + length, entry)
                for name, entry in header.items()
                if name != "__metadata__" and name.startswith(prefix)
            }
    except OSError as error:
        raise BundleError(str(path), expected="a readable file", got=str(error.strerror), do=_AGAIN) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BundleError(str(path), expected="float tensors in safetensors", got=str(error), do=_AGAIN) from error


def write_arrays(path: Path, arrays: Mapping[str, NDArray[np.floating]]) -> None:
    """Write float32 tensors as a safetensors file; equal arrays give equal bytes."""
    tensors = {name: np.ascontiguousarray(arrays[name], np.dtype("<f4")) for name in sorted(arrays)}
    header, end = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(tensor.tobytes() for tensor in tensors.values()))


def _read(file: BinaryIO, begin: int, entry: Mapping[str, Any]) -> NDArray[np.float32]:
    kind, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if kind not in TYPES:
        raise ValueError(f"a tensor of {kind}")
    if start < 0 or end - start != math.prod(shape) * TYPES[kind].itemsize:
        raise ValueError(f"a tensor of {end - start} bytes for the shape {shape}")
    file.seek(begin + start)
    array: NDArray[np.float32] = np.frombuffer(file.read(end - start), TYPES[kind]).reshape(shape).astype(np.float32)
    return array
