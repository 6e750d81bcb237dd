"""Checkpoints: what is written is read back, and what is not ours is refused by name."""

from __future__ import annotations

import pickle
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mdpose_edge.checkpoint import (
    SCALE_SUFFIX,
    load_network,
    load_weights,
    read_checkpoint,
    save_checkpoint,
    to_int8,
)
from mdpose_edge.errors import CheckpointError, MdposeError, SpecError
from mdpose_edge.families.mdpose.network import MDPoseNetwork, NetworkConfig, make_spec
from mdpose_edge.families.mdpose.training import FAMILY
from mdpose_edge.spec import InputSpec, ModelSpec

OPTIONS = NetworkConfig("mobilenetv4_conv_small", channels=8, head_convs=2)


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return make_spec(OPTIONS, InputSpec(64, 64))


@pytest.fixture(scope="module")
def network(spec: ModelSpec) -> MDPoseNetwork:
    torch.manual_seed(0)
    return MDPoseNetwork(spec, auxiliary_center=True).eval().requires_grad_(False)


def test_round_trip_of_weights_state_spec_and_progress(tmp_path: Path, spec: ModelSpec, network: MDPoseNetwork) -> None:
    path = tmp_path / "new" / "a.safetensors"
    state = {
        "0.exp_avg": torch.rand(3, 2, 1, 1).contiguous(memory_format=torch.channels_last),
        "0.step": torch.tensor(5.0),
    }
    save_checkpoint(path, spec, network.state_dict(), state=state, progress={"iteration": 5})
    read = read_checkpoint(path)
    assert read.spec == spec and read.progress == {"iteration": 5}
    assert all(torch.equal(read.state[key], state[key]) for key in state)
    assert all(torch.equal(read.weights[key], value) for key, value in network.state_dict().items())
    assert read.weights.keys() == network.state_dict().keys()
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("progress", ["", "[1]", "[" * 200_000], ids=["empty", "a list", "too deep"])
def test_progress_that_is_none_is_refused(tmp_path: Path, spec: ModelSpec, progress: str) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"spec": spec.to_json(), "progress": progress})
    with pytest.raises(CheckpointError, match="expected progress"):
        read_checkpoint(tmp_path / "a.safetensors")


def test_others_may_read_it_as_they_may_any_new_file(tmp_path: Path, spec: ModelSpec, network: MDPoseNetwork) -> None:
    save_checkpoint(tmp_path / "a.safetensors", spec, network.state_dict())
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_loaded_network_computes_the_same(tmp_path: Path, spec: ModelSpec, network: MDPoseNetwork) -> None:
    save_checkpoint(tmp_path / "a.safetensors", spec, network.state_dict())
    loaded, _ = load_network(tmp_path / "a.safetensors")
    images = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(loaded(images)[0].mu, network(images)[0].mu)


def test_equal_models_are_equal_files(tmp_path: Path, spec: ModelSpec, network: MDPoseNetwork) -> None:
    contents = set()
    for number in range(4):
        path = tmp_path / f"{number}.safetensors"
        save_checkpoint(path, spec, network.state_dict(), progress={"iteration": 1}, weights_are="an average")
        contents.add(path.read_bytes())
    assert len(contents) == 1


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("wrap", ["torch.save", "torch.save, legacy", "pickle"])
def test_pickle_is_refused_and_never_loaded(tmp_path: Path, wrap: str) -> None:
    path, harm = tmp_path / "a.safetensors", tmp_path / "harm"
    if wrap == "pickle":
        path.write_bytes(pickle.dumps(Bomb(harm)))
    else:
        torch.save({"weights": Bomb(harm)}, path, _use_new_zipfile_serialization=wrap == "torch.save")
    with pytest.raises(CheckpointError, match="a pickle, which could run code and is never loaded"):
        read_checkpoint(path)
    assert not harm.exists()


@pytest.mark.parametrize("length", [0x1080, 0x4B50], ids=["as a pickle starts", "as a zip starts"])
def test_header_length_is_not_taken_for_a_pickle(tmp_path: Path, spec: ModelSpec, length: int) -> None:
    # A safetensors file starts with the length of its header, little-endian: any multiple of 8.
    path, metadata = tmp_path / "a.safetensors", {"spec": replace(spec, constants={}).to_json(), "pad": ""}
    save_file({"w": torch.ones(1)}, path, metadata)
    metadata["pad"] = "x" * (length - int.from_bytes(path.read_bytes()[:8], "little"))
    save_file({"w": torch.ones(1)}, path, metadata)
    assert path.read_bytes()[:2] == length.to_bytes(2, "little") and path.read_bytes()[:2] in (b"\x80\x10", b"PK")
    assert read_checkpoint(path).weights.keys() == {"w"}


def test_files_that_are_no_checkpoint(tmp_path: Path, spec: ModelSpec, network: MDPoseNetwork) -> None:
    whole = tmp_path / "whole.safetensors"
    save_checkpoint(whole, spec, network.state_dict())
    content = whole.read_bytes()
    cases: dict[str, tuple[bytes, type[MdposeError], str]] = {
        "truncated": (content[: len(content) // 2], CheckpointError, "a whole safetensors file"),
        "cut in the header": (content[:100], CheckpointError, "a whole safetensors file"),
        "empty": (b"", CheckpointError, "a whole safetensors file"),
        "text": (b"not a checkpoint at all", CheckpointError, "a whole safetensors file"),
        "of a newer version": (
            content.replace(b'spec_version\\": 3', b'spec_version\\": 4'),
            SpecError,
            "spec_version",
        ),
    }
    for name, (data, error, message) in cases.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(data)
        with pytest.raises(error, match=message) as caught:
            read_checkpoint(path)
        assert caught.value.where == str(path) and "\n" not in str(caught.value), name


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match="got no such file"):
            read_checkpoint(path)


def test_safetensors_of_another_program(tmp_path: Path) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="expected a ModelSpec in the metadata, got none"):
        read_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda w: w.pop("head.o.bias"), r"shape \(1\) for head\.o\.bias, got no tensor", id="missing"),
        pytest.param(lambda w: w.update(new=torch.ones(2)), r"no tensor for new, got shape \(2\)", id="unknown"),
        pytest.param(
            lambda w: w.update({"head.o.bias": torch.ones(3)}),
            r"shape \(1\) for head\.o\.bias, got shape \(3\)",
            id="shape",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(
    network: MDPoseNetwork, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    change(weights)
    with pytest.raises(CheckpointError, match=message):
        load_weights(network, weights, "a.safetensors")


def test_spec_that_describes_another_network(tmp_path: Path, spec: ModelSpec, network: MDPoseNetwork) -> None:
    wider = replace(spec, network={**spec.network, "channels": 16})
    save_checkpoint(tmp_path / "a.safetensors", wider, network.state_dict())
    with pytest.raises(CheckpointError, match="same network options"):
        load_network(tmp_path / "a.safetensors")


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, spec: ModelSpec) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, spec, {"w": torch.ones(2)})
    old, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))  # what a full disk does, 1 MiB on
    try:
        with pytest.raises(CheckpointError, match=r"expected a place to write.*File too large"):
            save_checkpoint(path, spec, {"w": torch.ones(1 << 20)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_write_onto_a_folder_leaves_no_temporary_file(tmp_path: Path, spec: ModelSpec) -> None:
    (tmp_path / "a.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"expected a place to write, got .*directory"):
        save_checkpoint(tmp_path / "a.safetensors", spec, {"w": torch.ones(2)})
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_int8_storage_is_a_quarter_and_within_half_a_step(
    tmp_path: Path, spec: ModelSpec, network: MDPoseNetwork
) -> None:
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    weights["head.mu.weight"][0] = 0.0  # a channel without any weight
    weights["head.mu.weight"][1] *= 1e-6  # and one whose scale float16 cannot hold
    packed = to_int8(weights)
    wide, small = tmp_path / "wide.safetensors", tmp_path / "small.safetensors"
    save_checkpoint(wide, spec, weights)
    save_checkpoint(small, spec, packed)
    assert small.stat().st_size < 0.30 * wide.stat().st_size
    read = read_checkpoint(small).weights
    assert read.keys() == weights.keys()
    for name, tensor in weights.items():
        assert read[name].dtype == tensor.dtype
        scale = packed.get(name + SCALE_SUFFIX)
        if scale is None:
            assert torch.equal(read[name], tensor), name
        else:
            step = scale.float().view(-1, *[1] * (tensor.ndim - 1))
            assert bool(((read[name] - tensor).abs() <= 0.5001 * step).all()), name
    load_network(small)


def test_another_input_size_keeps_offsets_in_pixels(network: MDPoseNetwork) -> None:
    old, new = InputSpec(64, 128), InputSpec(128, 192)
    weights = FAMILY.for_input(network.state_dict(), old, new)
    features = torch.rand(1, OPTIONS.channels, 5, 5)
    head = network.head
    before = head(features)
    after = {
        kind: torch.nn.functional.conv2d(
            head.tower(features), weights[f"head.{kind}.weight"], weights[f"head.{kind}.bias"], padding=1
        )
        for kind in ("mu", "gamma")
    }
    sides = torch.tensor([[old.width, old.height], [new.width, new.height]]).repeat(1, 18)[:, None, :, None, None]
    assert torch.allclose(before.mu * sides[0], after["mu"] * sides[1], atol=1e-5)
    # softplus is the exponential to within 1 % for raw values below -4
    shift = after["gamma"] - before.gamma
    low = torch.full_like(shift, -5.0)
    scales = [torch.nn.functional.softplus(raw) for raw in (low, low + shift)]
    assert torch.allclose(scales[0] * sides[0], scales[1] * sides[1], rtol=0.01)
    assert weights.keys() == network.state_dict().keys()
