"""Side files are safetensors that safetensors itself reads, and are read only as they were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mdpose_edge.common.files import file_sha256
from mdpose_edge.common.side_files import read_arrays, read_side_files, side_of_checkpoint, write_arrays
from mdpose_edge.errors import BundleError

ARRAYS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([0.5], np.float32)}


def test_a_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "scorer.safetensors"
    write_arrays(path, ARRAYS)
    (found,) = read_side_files(tmp_path, {path.name: file_sha256(path), "graph.onnx": "0"}).values()
    assert found.keys() == ARRAYS.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, ARRAYS[name])
    write_arrays(tmp_path / "again", dict(reversed(ARRAYS.items())))
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_safetensors_reads_what_is_written_and_writes_what_is_read(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    write_arrays(tmp_path / "ours", ARRAYS)
    theirs = safetensors.load_file(tmp_path / "ours")
    np.testing.assert_array_equal(theirs["b"], ARRAYS["b"])
    tensors = {"side/scorer/w": ARRAYS["b"].astype(np.float16), "backbone.w": np.zeros(3, np.int8)}
    safetensors.save_file(tensors, tmp_path / "theirs", {"spec": "{}"})
    found = side_of_checkpoint(tmp_path / "theirs")
    assert list(found) == ["scorer"] and found["scorer"]["w"].dtype == np.float32
    np.testing.assert_array_equal(found["scorer"]["w"], ARRAYS["b"])


@pytest.mark.parametrize("damage", ["missing", "changed", "cut", "text", "integers"])
def test_one_that_is_not_what_was_written_is_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "scorer.safetensors"
    write_arrays(path, ARRAYS)
    before = file_sha256(path)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "changed":
        path.write_bytes(content[:-1] + b"\x7f")
    else:
        path.write_bytes(
            {"cut": content[:-4], "text": b"not at all", "integers": content.replace(b"F32", b"I32")}[damage]
        )
        before = file_sha256(path)
    with pytest.raises(BundleError):
        read_side_files(tmp_path, {path.name: before})


def test_a_header_of_nonsense_is_refused(tmp_path: Path) -> None:
    for header in (b"[]", b'{"a": 3}', b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}}'):
        path = tmp_path / "file"
        path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
        with pytest.raises(BundleError):
            read_arrays(path)
    path.write_bytes((10**15).to_bytes(8, "little"))
    with pytest.raises(BundleError):
        read_arrays(path)
