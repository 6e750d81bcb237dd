"""Built engines on disk, each with a manifest, and the rule that nothing is deserialized unless its manifest fits.

    CACHE/
      <key>/engine.plan, engine.json      one engine; the key is a digest of EngineFacts
      timing-<TensorRT>-<GPU>/            the builder's measurements, kept under the same rule

A plan is executable code. One from another machine, of another version, cut short or changed by a byte is never handed
to TensorRT: the manifest names what it was built from, on and with, and the sha256 of its bytes. This guards against
accidents and mix-ups; whoever can write both files can forge both, so the folder belongs to whoever builds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdpose_edge import __version__
from mdpose_edge.bundle import Bundle
from mdpose_edge.common.document import DocumentFormat, document_json
from mdpose_edge.common.files import file_sha256, visible_files, write_folder
from mdpose_edge.common.json_text import parse_json
from mdpose_edge.errors import EngineError
from mdpose_edge.trt.host import Host
from mdpose_edge.trt.recipe import Recipe

CACHE_VARIABLE = "MDPOSE_EDGE_ENGINES"
"""Environment variable with the folder of engines; else they lie in the bundle, hidden."""
CACHE_FOLDER = ".engines"
PLAN_FILE, TIMING_FILE, MANIFEST_FILE = "engine.plan", "timing.cache", "engine.json"
MANIFEST_VERSION = 1

_BUILD_AGAIN = "build it again with mdpose-edge build"


@dataclass(frozen=True)
class EngineFacts:
    """What an engine was built from, on and with: a difference in any makes another engine."""

    graph_sha256: str
    calibration_sha256: str | None
    tensorrt: str
    gpu: str
    compute_capability: tuple[int, int]
    machine: str
    l4t: str | None
    typing: str
    flags: tuple[str, ...]
    """Flags set, and with a minus flags cleared."""
    nvdla: bool

    @property
    def key(self) -> str:
        """The engine's name in the cache."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Manifest:
    """What engine.json holds."""

    manifest_version: int
    toolkit_version: str
    facts: EngineFacts
    plan_sha256: str
    plan_bytes: int
    nvdla_core: int | None
    """The core to run on; the plan itself runs on any."""
    report: Mapping[str, Any]
    """What was found while it was built: the inspection, the self-test."""


_FORMAT = DocumentFormat(
    Manifest,
    version_key="manifest_version",
    version=MANIFEST_VERSION,
    error=EngineError,
    if_damaged=_BUILD_AGAIN,
    if_other_version=_BUILD_AGAIN,
)


def engine_facts(bundle: Bundle, recipe: Recipe, host: Host) -> EngineFacts:
    """State what an engine of a bundle on this machine is built from."""
    assert bundle.spec.graph is not None
    return EngineFacts(
        graph_sha256=bundle.spec.files[bundle.spec.graph],
        calibration_sha256=None if recipe.calibration is None else bundle.spec.files[recipe.calibration],
        tensorrt=host.tensorrt,
        gpu=host.gpu.name,
        compute_capability=host.gpu.compute_capability,
        machine=host.machine,
        l4t=host.l4t,
        typing=recipe.typing,
        flags=(*recipe.flags, *(f"-{flag}" for flag in recipe.cleared_flags)),
        nvdla=recipe.nvdla_core is not None,
    )


def cache_folder(bundle: Bundle, chosen: Path | None = None) -> Path:
    """Return the folder of engines: the one chosen, else the environment's, else one in the bundle."""
    if chosen is not None:
        return chosen
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else bundle.path / CACHE_FOLDER


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written, before minutes are spent on a build.

    Raises:
        EngineError: with the system's reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        expected, do = "a folder to keep engines in", f"choose one with --cache or {CACHE_VARIABLE}"
        raise EngineError(str(folder), expected=expected, got=str(error), do=do) from error


def write_engine(folder: Path, manifest: Manifest, plan: bytes) -> None:
    """Put an engine into the cache, whole or not at all; an earlier one of the same facts is replaced."""
    with write_folder(folder / manifest.facts.key, kind="engine", is_own=_is_engine, error=EngineError) as temporary:
        (temporary / PLAN_FILE).write_bytes(plan)
        (temporary / MANIFEST_FILE).write_text(document_json(manifest), encoding="utf-8")


def read_engine(folder: Path, facts: EngineFacts) -> tuple[Manifest, bytes] | None:
    """Read an engine that fits, with its bytes checked; None where there is none.

    Raises:
        EngineError: there is one, but its manifest or bytes are not what was written for these facts.
    """
    place = folder / facts.key
    if not place.is_dir():
        return None
    manifest = _FORMAT.read(place / MANIFEST_FILE)
    if manifest.facts != facts:
        names = [f.name for f in dataclasses.fields(facts) if getattr(manifest.facts, f.name) != getattr(facts, f.name)]
        raise _altered(place, f"a manifest for this {' and '.join(names)}", "one for another")
    try:
        size = (place / PLAN_FILE).stat().st_size
    except OSError as error:
        raise _altered(place, f"the file {PLAN_FILE}", "none") from error
    if size != manifest.plan_bytes:
        raise _altered(place, f"a plan of {manifest.plan_bytes} bytes", f"{size}: it was cut short or replaced")
    plan = (place / PLAN_FILE).read_bytes()
    found = hashlib.sha256(plan).hexdigest()
    if found != manifest.plan_sha256:
        expected = f"a plan of sha256 {manifest.plan_sha256[:12]}..."
        raise _altered(place, expected, f"{found[:12]}...: the plan was altered")
    return manifest, plan


def new_manifest(facts: EngineFacts, plan: bytes, nvdla_core: int | None, report: Mapping[str, Any]) -> Manifest:
    """Describe an engine that was just built."""
    digest = hashlib.sha256(plan).hexdigest()
    return Manifest(MANIFEST_VERSION, __version__, facts, digest, len(plan), nvdla_core, report)


def read_timing(folder: Path, name: str) -> bytes:
    """Read an earlier build's measurements; b"" where there are none or they were altered, which costs time alone."""
    place = folder / name
    try:
        listed = parse_json((place / MANIFEST_FILE).read_text(encoding="utf-8"))
        intact = listed["sha256"] == file_sha256(place / TIMING_FILE) and listed["name"] == name
        return (place / TIMING_FILE).read_bytes() if intact else b""
    except (OSError, ValueError, KeyError, TypeError):
        return b""


def write_timing(folder: Path, name: str, data: bytes) -> None:
    """Keep a build's measurements for the next."""
    with write_folder(folder / name, kind="timing cache", is_own=_is_engine, error=EngineError) as temporary:
        (temporary / TIMING_FILE).write_bytes(data)
        listed = {"name": name, "sha256": hashlib.sha256(data).hexdigest()}
        (temporary / MANIFEST_FILE).write_text(json.dumps(listed) + "\n", encoding="utf-8")


def timing_name(recipe: Recipe, facts: EngineFacts) -> str:
    """Name the measurements of one TensorRT on one machine's GPU; they mean nothing elsewhere."""
    gpu = re.sub(r"[^A-Za-z0-9]+", "-", facts.gpu).strip("-").lower()
    name = recipe.timing_cache.format(tensorrt=facts.tensorrt, gpu=gpu)
    return f"{name}-{facts.machine[:8]}" if facts.machine else name


def _altered(place: Path, expected: str, got: str) -> EngineError:
    return EngineError(str(place), expected=expected, got=got, do=_BUILD_AGAIN)


def _is_engine(path: Path) -> bool:
    return visible_files(path) <= {PLAN_FILE, TIMING_FILE, MANIFEST_FILE}
