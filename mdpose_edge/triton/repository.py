"""A bundle becomes a model repository: the graph with an open batch, the decode step, and the ensemble of both.

REPO/
  manifest.json              where it came from, and the sha256 of every file
  mdpose/config.pbtxt        the ensemble that clients ask for
  pose_graph/config.pbtxt    the graph on Triton's backend for it, batched dynamically
  pose_graph/1/...           for TensorRT empty until build_plan.sh has run on the server's GPU
  pose_decode/config.pbtxt   the decoder on Triton's Python backend
  pose_decode/1/...          with the modules of this package that it imports
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdpose_edge import __version__
from mdpose_edge.bundle import Bundle, open_bundle
from mdpose_edge.common.files import check_replaceable, file_sha256, visible_files, write_folder
from mdpose_edge.common.json_text import parse_json
from mdpose_edge.common.progress import Progress, no_progress
from mdpose_edge.common.side_files import is_side_file, read_side_files
from mdpose_edge.errors import ConfigError, ExportError
from mdpose_edge.families.registry import family_module, make_decoder
from mdpose_edge.spec import ModelSpec
from mdpose_edge.triton import config, server_model
from mdpose_edge.triton.batch import check_batches, write_dynamic_onnx, write_dynamic_openvino
from mdpose_edge.triton.config import ServingOptions
from mdpose_edge.triton.modules import imported_modules
from mdpose_edge.triton.plan import PLAN_FILE, PLAN_SCRIPT, write_plan_script
from mdpose_edge.triton.server_model import SPEC_FILE, VENDORED_FILE

MANIFEST_FILE = "manifest.json"
KIND = "mdpose-edge triton repository"
"""Marks a folder that a later export may replace."""
VERSION = "1"
"""The folder of each model's only version."""
DECODE_STEP = "mdpose_edge.triton.decode_step"
"""The module that a server runs; it and what it imports need numpy and nothing else."""

_STEPS = ("opening the bundle", "opening the batch axis", "comparing a batch with single images", "writing the models")


@dataclass(frozen=True)
class Backend:
    """How Triton runs a target's graph."""

    name: str
    """Triton's name of the engine."""
    file: str
    """The file that it looks for."""
    engine: str
    """Ours, which checks the graph with its batch open."""
    write_dynamic: Callable[[Path, Path, ModelSpec], None]
    kind: str | None = None
    """Where it runs, if the backend has no choice."""
    plan: bool = False
    """Whether the file is only what a plan is built from, on the server."""


BACKENDS = {
    "onnx": Backend("onnxruntime", "model.onnx", "onnxruntime", write_dynamic_onnx),
    "openvino": Backend("openvino", "model.xml", "openvino", write_dynamic_openvino, "KIND_CPU"),
    "tensorrt": Backend("tensorrt", "model.onnx", "onnxruntime", write_dynamic_onnx, "KIND_GPU", plan=True),
}
"""By the bundle's target."""


def check_repository_place(out: str | Path) -> None:
    """Refuse a place that `write_repository` would refuse, before the export of the bundle.

    Raises:
        ExportError: `out` holds something else than a repository of ours.
    """
    check_replaceable(Path(out), kind="repository", is_own=_is_repository, error=ExportError)


def write_repository(
    bundle: str | Path, out: str | Path, options: ServingOptions | None = None, *, progress: Progress | None = None
) -> Path:
    """Write a Triton model repository.

    Args:
        bundle: a bundle's directory.
        out: the folder to write; an earlier repository of ours there is replaced, anything else is refused.
        options: names and sizes, or None for the defaults.
        progress: called as each step begins, and at the end.

    Returns:
        The folder.

    Raises:
        BundleError, SpecError: the bundle cannot be opened.
        ConfigError: an option is out of range.
        ExportError: the target has no backend, the graph does not run in batches, or `out` cannot be written.
        MissingPackageError: the engine that checks the graph is not installed.
    """
    report = progress or no_progress
    options = options or ServingOptions()
    _check_options(options)
    report(0, len(_STEPS), _STEPS[0])
    source, out = open_bundle(bundle), Path(out)
    backend = _backend(source)
    make_decoder(
        source.spec, side=read_side_files(source.path, source.spec.files)
    )  # a family that nobody here decodes is refused before the graph is written
    with write_folder(out, kind="repository", is_own=_is_repository, error=ExportError) as directory:
        report(1, len(_STEPS), _STEPS[1])
        version = _version_folder(directory, options.graph)
        graph = (version.parent if backend.plan else version) / backend.file
        backend.write_dynamic(source.graph, graph, source.spec)
        report(2, len(_STEPS), _STEPS[2])
        difference = check_batches(backend.engine, graph, source)
        report(3, len(_STEPS), _STEPS[3])
        _write_config(directory, options.graph, config.graph_config(source.spec, options, backend.name, backend.kind))
        if backend.plan:
            (version / ".keep").touch()
            write_plan_script(graph.with_name(PLAN_SCRIPT), source, options.max_batch)
        _write_decode(directory, source, options)
        _write_ensemble(directory, source, options)
        _write_manifest(directory, source, {"backend": backend.name, "batch_difference": difference})
    report(len(_STEPS), len(_STEPS), "done")
    return out


def _check_options(options: ServingOptions) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", options.name):
        expected = "a name of letters, digits, _, . and -"
        raise ConfigError("--name", expected=expected, got=repr(options.name), do="change it")
    for option, value, least in (
        ("--max-batch", options.max_batch, 1),
        ("--instances", options.instances, 1),
        ("--queue-delay-us", options.queue_delay_us, 0),
    ):
        if value < least:
            raise ConfigError(option, expected=f"a whole number of at least {least}", got=str(value), do="raise it")


def _backend(bundle: Bundle) -> Backend:
    target = bundle.spec.target
    if target not in BACKENDS:
        expected = f"a bundle for {' or '.join(BACKENDS)}"
        do = "export one of these from the checkpoint"
        raise ExportError(str(bundle.path), expected=expected, got=f"one for {target}", do=do)
    return BACKENDS[target]


def _version_folder(directory: Path, model: str) -> Path:
    folder = directory / model / VERSION
    folder.mkdir(parents=True)
    return folder


def _write_config(directory: Path, model: str, text: str) -> None:
    (directory / model / "config.pbtxt").write_text(text, encoding="utf-8")


def _write_decode(directory: Path, bundle: Bundle, options: ServingOptions) -> None:
    folder = _version_folder(directory, options.decode)
    decoder = family_module(bundle.spec.family, "decode").__name__
    for name, source in imported_modules([DECODE_STEP, decoder]).items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    for name in filter(is_side_file, bundle.spec.files):
        (folder / name).write_bytes((bundle.path / name).read_bytes())
    (folder / SPEC_FILE).write_text(bundle.spec.to_json(), encoding="utf-8")
    hashes = {name: file_sha256(folder / name) for name in sorted(visible_files(folder))}
    manifest = {"decoder": decoder, "files": hashes}
    (folder / VENDORED_FILE).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    (folder / "model.py").write_bytes(Path(server_model.__file__).read_bytes())
    _write_config(directory, options.decode, config.decode_config(bundle.spec, options))


def _write_ensemble(directory: Path, bundle: Bundle, options: ServingOptions) -> None:
    # Triton asks for a version's folder, and object stores keep no empty ones.
    (_version_folder(directory, options.name) / ".keep").touch()
    _write_config(directory, options.name, config.ensemble_config(bundle.spec, options))


def _write_manifest(directory: Path, bundle: Bundle, facts: dict[str, Any]) -> None:
    manifest = {
        "kind": KIND,
        "toolkit_version": __version__,
        "target": bundle.spec.target,
        "precision": bundle.spec.precision,
        "checkpoint_sha256": bundle.spec.provenance.checkpoint_sha256,
        **facts,
        "files": {name: file_sha256(directory / name) for name in sorted(visible_files(directory))},
    }
    (directory / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _is_repository(path: Path) -> bool:
    """Say whether a folder is empty, or all that is in it came from an earlier export."""
    names = visible_files(path)
    if not names:
        return True
    try:
        manifest = parse_json((path / MANIFEST_FILE).read_text(encoding="utf-8"))
        written = {MANIFEST_FILE, *manifest["files"]}
        plans = {name.replace(PLAN_SCRIPT, f"{VERSION}/{PLAN_FILE}") for name in written if name.endswith(PLAN_SCRIPT)}
        return manifest["kind"] == KIND and names <= written | plans
    except (OSError, ValueError, KeyError, TypeError):
        return False
