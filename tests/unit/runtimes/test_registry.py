from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mdpose_edge.bundle import open_bundle, write_bundle
from mdpose_edge.errors import BundleError, CheckpointError, EngineError
from mdpose_edge.runtimes.registry import ENGINES, default_engine, open_engine, read_model_spec
from tests.artifacts import Artifacts


@pytest.mark.parametrize(("target", "engine"), [("onnx", "onnxruntime"), ("openvino", "openvino"), ("torch", "torch")])
def test_each_target_has_its_default_engine(artifacts: Artifacts, target: str, engine: str) -> None:
    pytest.importorskip(engine)
    assert default_engine(target) == engine
    spec, adapter = open_engine(str(artifacts.model(target)), threads=1)
    with adapter:
        assert adapter.engine == engine
        assert spec.target == target


def test_another_engine_can_be_asked_for(artifacts: Artifacts) -> None:
    pytest.importorskip("openvino")
    _, adapter = open_engine(artifacts.bundle("onnx"), "openvino", threads=1)
    with adapter:
        assert adapter.engine == "openvino"


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_is_called_by_its_key(name: str) -> None:
    module, _, class_name = ENGINES[name].adapter.partition(":")
    pytest.importorskip(name)
    adapter = getattr(__import__(module, fromlist=[class_name]), class_name)
    assert adapter.engine == name
    assert module.endswith(f".{name}_adapter")


@pytest.mark.parametrize(
    ("target", "runtime", "message"),
    [
        ("openvino", "onnxruntime", "a model for onnx, which onnxruntime opens, got one for openvino; "
         "use --runtime openvino, or export it for onnxruntime"),
        ("onnx", "torch", "for torch, which torch opens, got one for onnx; use --runtime onnxruntime or openvino"),
        ("torch", "openvino", "a model for openvino or onnx, which openvino opens, got one for torch"),
    ],
)  # fmt: skip
def test_an_engine_that_does_not_open_the_target_is_refused(
    artifacts: Artifacts, target: str, runtime: str, message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        open_engine(artifacts.model(target), runtime)


def test_a_target_of_the_future_is_refused(artifacts: Artifacts, tmp_path: Path) -> None:
    source = artifacts.bundle("onnx")
    spec = replace(open_bundle(source).spec, target="abacus")
    with write_bundle(tmp_path / "bundle", spec) as directory:
        (directory / "model.onnx").write_bytes((source / "model.onnx").read_bytes())
    known = "one of jetson, onnx, openvino, tensorrt, torch, got one for abacus; update mdpose-edge"
    with pytest.raises(EngineError, match=known):
        open_engine(tmp_path / "bundle")
    with pytest.raises(EngineError, match="got one for abacus; update mdpose-edge"):
        open_engine(tmp_path / "bundle", "openvino")


def test_what_is_no_model_is_one_sentence(artifacts: Artifacts, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"a bundle directory or a \.safetensors checkpoint, got no such file"):
        open_engine(tmp_path / "absent")
    with pytest.raises(CheckpointError, match=r"got a \.onnx file; give the directory around a graph"):
        open_engine(artifacts.bundle("onnx") / "model.onnx")


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_a_pickle_is_never_loaded(tmp_path: Path, name: str) -> None:
    pytest.importorskip("torch")
    witness = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (witness,)

    path = tmp_path / name
    path.write_bytes(pickle.dumps(Bomb()))
    pickle.loads(path.read_bytes())
    assert witness.exists()  # the bomb is live
    witness.unlink()
    with pytest.raises(CheckpointError):
        open_engine(path)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("blocked", "target", "message"),
    [
        ("onnxruntime", "onnx", 'the package onnxruntime for the onnxruntime engine, got none installed; '
         'run: pip install "mdpose-edge[onnxruntime]"'),
        ("openvino", "openvino", 'the package openvino for the openvino engine, got none installed; '
         'run: pip install "mdpose-edge[openvino]"'),
        ("torch", "torch", 'the package torch for running a checkpoint, got none installed; '
         'run: pip install "mdpose-edge[train]"'),
    ],
)  # fmt: skip
def test_a_missing_engine_names_its_extra(artifacts: Artifacts, blocked: str, target: str, message: str) -> None:
    code = (
        "import sys; sys.modules[sys.argv[1]] = None\n"
        "from mdpose_edge.errors import MissingPackageError; from mdpose_edge.runtimes.registry import open_engine\n"
        "try: open_engine(sys.argv[2])\n"
        "except MissingPackageError as error: print(error)"
    )
    command = [sys.executable, "-c", code, blocked, str(artifacts.model(target))]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert message in result.stdout, result.stderr


@pytest.mark.parametrize("target", ["torch", "onnx"])
def test_a_model_says_what_it_is_without_an_engine(artifacts: Artifacts, target: str) -> None:
    model = artifacts.model(target)
    _, adapter = open_engine(model, threads=1)
    with adapter:
        assert read_model_spec(str(model)) == adapter.spec


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param((2).to_bytes(8, "little") + b"{}", id="no metadata"),
        pytest.param((26).to_bytes(8, "little") + b'{"__metadata__":{"a":"b"}}', id="no spec"),
        pytest.param((26).to_bytes(8, "little") + b'{"__metada', id="cut in the header"),
        pytest.param((2).to_bytes(8, "little") + b"\xff\xfe", id="no text"),
        pytest.param((2).to_bytes(8, "little") + b"[]", id="a list"),
        pytest.param(b"\xff" * 64, id="a header of exabytes"),
        pytest.param(pickle.dumps({}), id="a pickle"),
    ],
)
def test_a_checkpoint_without_a_spec_is_one_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: expected a ModelSpec .* got none"):
        read_model_spec(path)


@pytest.mark.parametrize("change", [-1, -1000, 1])
def test_a_checkpoint_that_is_cut_short_is_one_sentence(artifacts: Artifacts, tmp_path: Path, change: int) -> None:
    whole = artifacts.checkpoint().read_bytes()
    path = tmp_path / "model.safetensors"
    path.write_bytes(whole[:change] if change < 0 else whole + b" " * change)
    with pytest.raises(CheckpointError, match=f"safetensors file of {len(whole)} bytes, got {len(whole) + change} byt"):
        read_model_spec(path)


@pytest.mark.parametrize("entry", [b'{"data_offsets":[0]}', b"{}", b"7", b'{"data_offsets":["a","b"]}'])
def test_a_header_of_other_entries_is_one_sentence(tmp_path: Path, entry: bytes) -> None:
    header = b'{"__metadata__":{"spec":"{}"},"weight":' + entry + b"}"
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="expected a ModelSpec"):
        read_model_spec(path)


def test_a_spec_that_is_no_text_is_one_sentence(tmp_path: Path) -> None:
    header = b'{"__metadata__":{"spec":{}}}'
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="expected a ModelSpec"):
        read_model_spec(path)
