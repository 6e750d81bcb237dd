"""A published file becomes a checkpoint, whose spec says where it came from and what is not as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from mdpose_edge.checkpoint import save_checkpoint
from mdpose_edge.common.files import file_sha256
from mdpose_edge.errors import CheckpointError, ConfigError
from mdpose_edge.families.registry import training_of
from mdpose_edge.importers.mapping import map_tensors
from mdpose_edge.importers.plan import Source
from mdpose_edge.importers.pth import Stored, open_tensors
from mdpose_edge.spec import ModelSpec

SOURCES = {"mdpose": "mdpose", "centernet-mdn": "centernet_mdn"}
"""By the word after --from: the module of each."""


@dataclass(frozen=True)
class Imported:
    """What became of a file."""

    path: Path
    spec: ModelSpec
    tensors: int
    """In the file; all of them were used."""
    notes: tuple[str, ...]
    """What is not as it was."""


def source_of(name: str) -> Source:
    """Return a source by its name.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in SOURCES:
        raise ConfigError("--from", expected=f"one of {', '.join(SOURCES)}", got=name, do="choose one")
    source: Source = import_module(f"mdpose_edge.importers.{SOURCES[name]}").SOURCE
    return source


def import_weights(
    path: Path, source_name: str, out: Path, *, height: int | None = None, width: int | None = None
) -> Imported:
    """Write a checkpoint of the weights in a published file.

    Args:
        path: a .pth as torch.save wrote it, or the same tensors as safetensors.
        source_name: a key of SOURCES.
        out: the checkpoint, replaced where it exists.
        height: of the input, px; None for the size that the authors publish.
        width: likewise.

    Raises:
        CheckpointError: the file is damaged, holds code, or is not of this source; a tensor is missing or left over.
        ConfigError: there is no such source, or its network does not take such an input.
    """
    source = source_of(source_name)
    with open_tensors(path) as found:
        spec, weights, notes = convert(found, source, height, width, str(path))
        count = len(found)
    origin = {"from": source.title, "file": path.name, "sha256": file_sha256(path), "notes": list(notes)}
    spec = replace(spec, provenance=replace(spec.provenance, imported=origin))
    save_checkpoint(out, spec, weights)
    return Imported(out, spec, count, notes)


def convert(
    found: Mapping[str, Stored], source: Source, height: int | None, width: int | None, where: str
) -> tuple[ModelSpec, dict[str, Tensor], tuple[str, ...]]:
    """Return the spec and the weights of a file's tensors, and the notes.

    Raises:
        CheckpointError: they are not of this source; one is missing or left over.
        ConfigError: its network does not take such an input.
    """
    if source.signature not in found:
        raise _of_another(found, source, where)
    plan = source.plan(found, height, width, where)
    training = training_of(plan.family)
    spec = training.make_spec(training.network_config(**plan.network), plan.input, plan.keypoints)
    with torch.device("meta"):  # names and shapes alone, whatever sizes the file claims
        network = training.network(spec)
    return spec, map_tensors(found, network.state_dict(), plan.rules, unused=plan.unused, where=where), plan.notes


def _of_another(found: Mapping[str, Stored], source: Source, where: str) -> CheckpointError:
    """Say whose weights they are, where that is known."""
    others = [name for name in SOURCES if source_of(name).signature in found]
    first = next(iter(found))
    got = f"those of {source_of(others[0]).title}" if others else f"{len(found)} tensors of which the first is {first}"
    do = f"use --from {others[0]}" if others else f"choose one of --from {', '.join(SOURCES)}, if it is of these"
    return CheckpointError(where, expected=f"weights of {source.title}", got=got, do=do)
