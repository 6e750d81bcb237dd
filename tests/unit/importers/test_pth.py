"""Published checkpoints are read by what they say, and nothing that they ask for is run."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

from mdpose_edge.errors import CheckpointError  # noqa: E402
from mdpose_edge.importers.pth import open_tensors  # noqa: E402

LEGACY: dict[str, Any] = {"_use_new_zipfile_serialization": False}
FORMS = pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])


def weights() -> OrderedDict[str, Any]:
    """Give tensors of every kind: views of shared memory, parameters, half precision, scalars, none at all."""
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    return OrderedDict(
        {
            "a.weight": torch.randn(8, 4, 3, 3),
            "turned": base.t()[1:],
            "base": base,
            "count": torch.tensor(5),
            "half": torch.randn(3).half(),
            "brain": torch.randn(3).bfloat16(),
            "double": torch.randn(3).double(),
            "parameter": nn.Parameter(torch.randn(2)),
            "empty": torch.zeros(0, 3),
        }
    )


def read(path: Path) -> dict[str, Any]:
    with open_tensors(path) as tensors:
        found = {name: stored.load() for name, stored in tensors.items()}
        assert {name: stored.shape for name, stored in tensors.items()} == {k: tuple(t.shape) for k, t in found.items()}
    return found


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(path)
    return str(caught.value)


def pickled(path: Path, content: bytes) -> Path:
    """Write a zip archive as torch.save does, with a pickle of one's own."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/data/0", bytes(16))
    return path


@FORMS
@pytest.mark.parametrize("wrapped", [True, False])
def test_every_tensor_is_read_as_torch_reads_it(tmp_path: Path, options: dict[str, Any], wrapped: bool) -> None:
    path, named = tmp_path / "a.pth", weights()
    rest = {"epoch": 3, "arch": "dla_34", "mean": np.ones(3), "rate": np.float64(0.1), "size": torch.Size((1, 2))}
    state = {f"module.{name}": tensor for name, tensor in named.items()}
    torch.save({**rest, "state_dict": state} if wrapped else named, path, **options)
    found = read(path)
    assert list(found) == list(named)
    for name, tensor in named.items():
        assert torch.equal(found[name], tensor.float() if tensor.is_floating_point() else tensor), name
        assert found[name].dtype in (torch.float32, torch.int64)


def test_what_was_converted_to_safetensors_is_read_too(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2).half()}, tmp_path / "a.safetensors")
    assert torch.equal(read(tmp_path / "a.safetensors")["a"], torch.ones(2))


class Command:
    """A command, which an ordinary reader of pickles would run."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.text,)


@FORMS
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, options: dict[str, Any]) -> None:
    path, ran = tmp_path / "a.pth", tmp_path / "ran"
    torch.save({"state_dict": weights(), "note": Command(f"touch {ran}")}, path, **options)
    assert "a pickle with code in it: it names posix.system, which is never run" in refusal(path)
    assert not ran.exists()
    torch.load(path, weights_only=False)
    assert ran.exists(), "an ordinary reader runs it"


@FORMS
def test_a_whole_model_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    torch.save(nn.Conv2d(1, 1, 1), tmp_path / "a.pth", **options)
    assert "it names torch.nn.modules.conv.Conv2d, which is never run" in refusal(tmp_path / "a.pth")


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("sys_info"), io.BytesIO())


def script(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl"):
            archive.writestr(f"archive/{name}", pickle.dumps({}, 2))


def compressed(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1_000_000))


def npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=1)


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"


def tensor_pickle(offset: int, shape: int, stride: int, count: int = 4) -> bytes:
    """Give the pickle of {"a": tensor} with numbers of one's own."""
    storage = STORAGE.replace(b"K\x04", b"J" + struct.pack("<i", count))
    numbers = (b"J" + struct.pack("<i", number) for number in (offset, shape, stride))
    first, second, third = numbers
    arguments = b"(" + storage + first + b"(" + second + b"t(" + third + b"tt"
    return b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        pytest.param(tar, "got a tar archive, the format before torch 0.1.10; give", id="tar"),
        pytest.param(script, "got a TorchScript archive, which has its code in it", id="TorchScript"),
        pytest.param(compressed, "got an archive that is compressed, which torch.save's are not", id="compressed"),
        pytest.param(npz, "a zip archive that torch.save did not write", id="npz"),
        pytest.param(lambda path: path.write_bytes(b""), "neither torch.save's format nor safetensors", id="empty"),
        pytest.param(lambda path: path.write_text("GIF89a; text"), "neither torch.save's format", id="text"),
        pytest.param(lambda path: path.write_bytes(pickle.dumps([1], 2) * 3), "torch.save did not write", id="pickle"),
        pytest.param(lambda path: torch.save([1], path), "something else than named tensors", id="a list"),
        pytest.param(lambda path: torch.save({"a": 1}, path), "got no tensor", id="no tensor"),
        pytest.param(lambda path: pickled(path, b"\x80\x02cos\nsystem\n."), "it names os.system", id="a name"),
        pytest.param(lambda path: pickled(path, b"\x80\x02(ios\nsystem\n."), "instruction INST", id="an instruction"),
        pytest.param(lambda path: pickled(path, b"\x80\x04\x82\x01."), "instruction EXT1", id="an extension"),
        pytest.param(lambda path: pickled(path, b"\x80\x02Nr\xff\xff\xff\xff"), "ends early|exhausted", id="memo"),
        pytest.param(lambda path: pickled(path, b"\x80\x04\x8d" + b"\xff" * 7 + b"\x00."), "is damaged", id="text"),
        pytest.param(lambda path: pickled(path, b"\x80\x02" + b"(" * 3_000_000), "than 2,000,000", id="endless"),
        pytest.param(lambda path: pickled(path, b"\x80\x02]" + b"2" * 9 + b"."), "instruction DUP", id="doubling"),
        pytest.param(lambda path: pickled(path, b"\x80\x02t."), "is damaged", id="no mark"),
        pytest.param(lambda path: pickled(path, tensor_pickle(0, 5, 1)), "beyond its storage: a", id="too many"),
        pytest.param(lambda path: pickled(path, tensor_pickle(3, 2, 1)), "beyond its storage: a", id="too far"),
        pytest.param(lambda path: pickled(path, tensor_pickle(0, 2**31 - 1, 0)), "beyond its storage", id="spread"),
        pytest.param(lambda path: pickled(path, tensor_pickle(-1, 1, 1)), "beyond its storage: a", id="before it"),
        pytest.param(lambda path: pickled(path, tensor_pickle(0, 9, 1, 9)), "ends early", id="short storage"),
        pytest.param(lambda path: pickled(path, tensor_pickle(0, 1, 1, -4)), "form that is not known", id="negative"),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_of_tensors_is_refused(
    tmp_path: Path, write: Callable[[Path], Any], expected: str
) -> None:
    write(tmp_path / "a.pth")
    sentence = refusal(tmp_path / "a.pth")
    assert sentence.startswith(f"{tmp_path / 'a.pth'}: expected ") and sentence.endswith(
        "; give the file as its authors publish it."
    )
    assert any(part in sentence for part in expected.split("|")), sentence


def test_the_crafted_tensor_is_read_where_its_numbers_are_right(tmp_path: Path) -> None:
    """So that the refusals above are those of the numbers."""
    assert torch.equal(read(pickled(tmp_path / "a.pth", tensor_pickle(1, 3, 1)))["a"], torch.zeros(3))


@FORMS
def test_damage_is_refused_wherever_it_is(tmp_path: Path, options: dict[str, Any]) -> None:
    """Cut off, or with wrong bytes: a sentence, or sound tensors where the bytes are values."""
    path = tmp_path / "a.pth"
    torch.save({"state_dict": weights()}, path, **options)
    whole, chance = path.read_bytes(), random.Random(0)
    for length in range(0, len(whole) - 1, len(whole) // 60):
        path.write_bytes(whole[:length])
        refusal(path)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[chance.randrange(len(whole))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            read(path)
        except CheckpointError:
            refused += 1
    assert refused > 50


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "expected a checkpoint file, got no such file" in refusal(tmp_path / "a.pth")
