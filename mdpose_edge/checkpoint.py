"""Checkpoints: one safetensors file, the ModelSpec in its metadata, never a pickle."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mdpose_edge.common.files import set_usual_mode, sync_to_disk
from mdpose_edge.common.json_text import parse_json
from mdpose_edge.common.side_files import PREFIX
from mdpose_edge.errors import CheckpointError
from mdpose_edge.families.registry import training_of
from mdpose_edge.spec import ModelSpec

STATE_PREFIX = "state/"
"""Tensors under this prefix resume a run (optimizer moments); the others are the network's, or the decoder's
(side_files.PREFIX)."""
SCALE_SUFFIX = ".int8_scale"
"""A tensor stored as int8 has its scale, one per output channel, beside it under this suffix."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read from a file."""

    spec: ModelSpec
    weights: dict[str, Tensor]
    state: dict[str, Tensor]
    """What a run needs to go on, beside the weights; empty in a finished model."""
    progress: Mapping[str, object] | None
    """The run's own record (step, configuration), or None in a finished model."""
    weights_are: str | None = None
    """What the weights are where they are not those of the last iteration: an average of many."""
    side: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """What the decoder reads beside the spec, in a finished model: see common/side_files.py."""


def save_checkpoint(
    path: Path,
    spec: ModelSpec,
    weights: Mapping[str, Tensor],
    *,
    state: Mapping[str, Tensor] | None = None,
    progress: Mapping[str, object] | None = None,
    weights_are: str | None = None,
    side: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> None:
    """Write a checkpoint in one step: after a crash the file is the old one or the new one, whole.

    Raises:
        CheckpointError: it cannot be written, for instance because the disk is full; the old file stays.
    """
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in weights.items()}
    tensors |= {STATE_PREFIX + name: tensor.detach().contiguous().cpu() for name, tensor in (state or {}).items()}
    for kind, arrays in (side or {}).items():
        tensors |= {f"{PREFIX}{kind}/{name}": array.detach().contiguous().cpu() for name, array in arrays.items()}
    metadata = {"spec": spec.to_json()}
    if progress is not None:
        metadata["progress"] = json.dumps(progress)
    if weights_are is not None:
        metadata["weights"] = weights_are
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A folder of its own, because safetensors makes a temporary file of its own naming beside the one it is given.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            temporary = Path(folder) / path.name
            save_file(tensors, temporary, metadata)
            _sort_metadata(temporary)
            set_usual_mode(temporary)
            sync_to_disk(temporary)
            temporary.replace(path)
        sync_to_disk(path.parent)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            str(path), expected="a place to write", got=str(error), do="make room or choose another, then resume"
        ) from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: no such file, a pickle (never loaded), truncated, or without a ModelSpec.
        SpecError: the ModelSpec in it is malformed or of another version.
    """
    metadata, tensors = _read_safetensors(Path(path))
    if "spec" not in metadata:
        raise CheckpointError(
            str(path), expected="a ModelSpec in the metadata", got="none", do="give a checkpoint of mdpose-edge train"
        )
    state = {k.removeprefix(STATE_PREFIX): v for k, v in tensors.items() if k.startswith(STATE_PREFIX)}
    weights = {k: v for k, v in tensors.items() if not k.startswith((STATE_PREFIX, PREFIX))}
    side: dict[str, dict[str, Tensor]] = {}
    for name in sorted(name for name in tensors if name.startswith(PREFIX)):
        kind, _, rest = name.removeprefix(PREFIX).partition("/")
        side.setdefault(kind, {})[rest] = tensors[name]
    progress = _read_progress(metadata["progress"], str(path)) if "progress" in metadata else None
    spec = ModelSpec.from_json(metadata["spec"], str(path))
    return Checkpoint(spec, _widen(weights), state, progress, metadata.get("weights"), side)


def load_network(path: Path) -> tuple[nn.Module, ModelSpec]:
    """Rebuild the trained network of a checkpoint, in eval mode, with all that training alone needs.

    Raises:
        CheckpointError: see `read_checkpoint`; or the tensors do not fit the network that the spec describes.
    """
    checkpoint = read_checkpoint(path)
    network = training_of(checkpoint.spec.family).network(checkpoint.spec)
    load_weights(network, checkpoint.weights, str(path))
    return network.eval(), checkpoint.spec


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Load weights strictly, naming what does not fit.

    Raises:
        CheckpointError: a tensor is missing, unknown, or of another shape.
    """
    wanted = network.state_dict()
    for name in sorted(wanted.keys() | weights.keys()):
        expected = _shape(wanted[name]) if name in wanted else "no tensor"
        got = _shape(weights[name]) if name in weights else "no tensor"
        if expected != got:
            raise CheckpointError(
                where, expected=f"{expected} for {name}", got=got, do="give a checkpoint of the same network options"
            )
    network.load_state_dict(dict(weights))


def to_int8(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Store convolution weights as int8 with a float16 scale per output channel: a quarter of the size.

    Biases and batch-norm statistics, which are few, stay as they are.

    For weights that travel and are trained further; `read_checkpoint` widens them again.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if tensor.ndim < 2 or not tensor.is_floating_point():
            packed[name] = tensor
            continue
        scale = (tensor.abs().flatten(1).amax(1) / 127).clamp_min(torch.finfo(torch.float16).tiny).half()
        packed[name] = (tensor / _like(scale.float(), tensor)).round().clamp(-127, 127).to(torch.int8)
        packed[name + SCALE_SUFFIX] = scale
    return packed


def _sort_metadata(path: Path) -> None:
    """Put the metadata in order, in place: safetensors writes it in a random one, and equal runs should hash alike."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length, "a header in another order is as long"
        file.seek(8)
        file.write(text.ljust(length))


def _widen(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    wide = {}
    for name, tensor in weights.items():
        if name.endswith(SCALE_SUFFIX):
            continue
        scale = weights.get(name + SCALE_SUFFIX)
        if scale is not None:
            tensor = tensor.float() * _like(scale.float(), tensor)
        wide[name] = tensor.float() if tensor.is_floating_point() else tensor
    return wide


def _like(scale: Tensor, tensor: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (tensor.ndim - 1))


def _shape(tensor: Tensor) -> str:
    return "shape (" + ", ".join(map(str, tensor.shape)) + ")"


def _read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    cure = "give a .safetensors checkpoint of mdpose-edge train"
    if not path.is_file():
        raise CheckpointError(str(path), expected="a checkpoint file", got="no such file", do=cure)
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise CheckpointError(str(path), expected="a readable file", got=str(error.strerror), do="check it") from error
    except SafetensorError as error:
        # Asked only now: a safetensors file starts with the length of its header, whose bytes can be any.
        if _starts_like_pickle(path):
            raise CheckpointError(
                str(path),
                expected="safetensors",
                got="a pickle, which could run code and is never loaded",
                do="convert it where it was made, with safetensors.torch.save_file",
            ) from error
        raise CheckpointError(str(path), expected="a whole safetensors file", got=str(error), do=cure) from error


def _read_progress(text: str, where: str) -> Mapping[str, Any]:
    do = "give a checkpoint of mdpose-edge train"
    try:
        progress = parse_json(text)
    except ValueError as error:
        raise CheckpointError(where, expected="progress in JSON", got=str(error), do=do) from error
    if not isinstance(progress, dict):
        raise CheckpointError(where, expected="progress as a table", got=f"a {type(progress).__name__}", do=do)
    return progress


def _starts_like_pickle(path: Path) -> bool:
    """Recognise a pickle of protocol 2 or later, and the zip archive in which torch.save puts one."""
    with open(path, "rb") as file:
        start = file.read(2)
    return start == b"PK" or start[:1] == b"\x80"
