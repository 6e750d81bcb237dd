"""A published file becomes a checkpoint, whose spec says where it came from and what is not as it was."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from mdpose_edge.checkpoint import save_checkpoint
from mdpose_edge.common.files import file_sha256
from mdpose_edge.errors import CheckpointError, ConfigError
from mdpose_edge.families.registry import training_of, training_spec
from mdpose_edge.importers.mapping import map_tensors
from mdpose_edge.importers.plan import Source
from mdpose_edge.importers.pth import Stored, open_tensors
from mdpose_edge.spec import ModelSpec

SOURCES = {
    "dekr": "dekr",
    "hrnet-bottom-up": "hrnet_bottom_up",
    "mmpose-dekr": "mmpose_dekr",
    "centernet-mdn": "centernet_mdn",
    "mdpose": "mdpose",
}
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
    path: Path,
    source_name: str,
    out: Path,
    *,
    height: int | None = None,
    width: int | None = None,
    scorer: Path | None = None,
) -> Imported:
    """Write a checkpoint of the weights in a published file.

    Args:
        path: a .pth as torch.save wrote it, or the same tensors as safetensors.
        source_name: a key of SOURCES.
        out: the checkpoint, replaced where it exists.
        height: of the input, px; None for the size that the authors publish.
        width: likewise.
        scorer: the file of a scoring net, where the authors publish it apart.

    Raises:
        CheckpointError: a file is damaged, holds code, or is not of this source; a tensor is missing or left over.
        ConfigError: there is no such source, it has no scoring net apart, or no network for such an input.
    """
    source = source_of(source_name)
    if scorer is not None and not source.takes_scorer:
        got = f"one beside --from {source_name}"
        raise ConfigError("--scorer", expected="a scoring net of dekr or hrnet-bottom-up", got=got, do="leave it out")
    with ExitStack() as stack:
        found = stack.enter_context(open_tensors(path))
        if scorer is not None:
            found |= {f"scorer.{name}": stored for name, stored in stack.enter_context(open_tensors(scorer)).items()}
        converted = convert(found, source, height, width, str(path))
        count = len(found)
    origin = {
        "from": source.title,
        "file": path.name,
        "sha256": file_sha256(path),
        "scorer_sha256": None if scorer is None else file_sha256(scorer),
        "notes": list(converted.notes),
    }
    spec = replace(converted.spec, provenance=replace(converted.spec.provenance, imported=origin))
    save_checkpoint(out, spec, converted.weights, side=converted.side)
    return Imported(out, spec, count, converted.notes)


@dataclass(frozen=True)
class Converted:
    """What a file's tensors became."""

    spec: ModelSpec
    weights: Mapping[str, Tensor]
    side: Mapping[str, Mapping[str, Tensor]]
    notes: tuple[str, ...]


def convert(
    found: Mapping[str, Stored], source: Source, height: int | None, width: int | None, where: str
) -> Converted:
    """Return the spec and the weights of a file's tensors.

    Raises:
        CheckpointError: they are not of this source; one is missing or left over.
        ConfigError: its network does not take such an input.
    """
    if not any(name in found for name in source.signatures):
        raise _of_another(found, source, where)
    plan = source.plan(found, height, width, where)
    training = training_of(plan.family)
    spec = training_spec(plan.family, training.network_config(**plan.network), plan.input, plan.keypoints, plan.classes)
    spec = replace(spec, constants={**spec.constants, **plan.constants})
    with torch.device("meta"):  # names and shapes alone, whatever sizes the file claims
        network = training.network(spec)
    beside = [theirs for names in plan.side.values() for theirs in names.values()]
    weights = map_tensors(found, network.state_dict(), plan.rules, unused=[*plan.unused, *beside], where=where)
    side = {kind: {ours: found[theirs].load() for ours, theirs in names.items()} for kind, names in plan.side.items()}
    return Converted(spec, weights, side, plan.notes)


def _of_another(found: Mapping[str, Stored], source: Source, where: str) -> CheckpointError:
    """Say whose weights they are, where that is known."""
    others = [name for name in SOURCES if any(signature in found for signature in source_of(name).signatures)]
    first = next(iter(found))
    got = f"those of {source_of(others[0]).title}" if others else f"{len(found)} tensors of which the first is {first}"
    do = f"use --from {others[0]}" if others else f"choose one of --from {', '.join(SOURCES)}, if it is of these"
    return CheckpointError(where, expected=f"weights of {source.title}", got=got, do=do)
