"""Models that come with the package, by name: `PoseEstimator("people")`, and "people-int8".

Each is a checkpoint in assets/. It is exported once, into a cache under the user's home, for an engine that is
installed; from then on the bundle there is opened, as long as every byte of it is the one that was written. INT8
appears there only if the gate holds; where it falls short, that is kept instead, and said each time.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mdpose_edge import __version__
from mdpose_edge.bundle import Bundle, open_bundle
from mdpose_edge.common.files import file_sha256, write_whole
from mdpose_edge.common.optional import available
from mdpose_edge.common.sole import sole_writer
from mdpose_edge.errors import (
    BundleError,
    CheckpointError,
    EngineError,
    ExportError,
    GateError,
    OutputError,
    SpecError,
)

ASSETS = Path(__file__).parent / "assets"
TARGET_OF = {"openvino": "openvino", "onnxruntime": "onnx"}
"""The target that each engine opens; the first engine that is installed is taken where nobody chooses."""
CHECKPOINT_ENGINE = "torch"
"""Opens the checkpoint itself."""
INT8_SUFFIX = "-int8"
"""Of the name of a shipped model's INT8 form."""
REFUSED_SUFFIX = ".refused.json"
"""Of a file in the place of a bundle that the gate did not let pass."""

_log = logging.getLogger("mdpose_edge")


@dataclass(frozen=True)
class Shipped:
    """A model of the package."""

    file: str
    """In assets/."""
    sha256: str


SHIPPED = {
    "people": Shipped(
        "people_mobilenetv2.safetensors", "8ec7865f62b3909aa197512f399c0d1173c4408b142ed05a417915d683de4990"
    ),
}
"""By name; what each knows is in docs/model-card-NAME.md."""


def is_shipped(model: str | Path) -> bool:
    """Return whether a model is given by the name of a shipped one; a file or folder of that name comes first."""
    return str(model).removesuffix(INT8_SUFFIX) in SHIPPED and not Path(model).exists()


def is_shipped_int8(model: str | Path) -> bool:
    """Return whether a model is given by the name of a shipped one's INT8 form."""
    return is_shipped(model) and str(model).endswith(INT8_SUFFIX)


def checkpoint_path(model: str | Path) -> Path:
    """Return the checkpoint of a shipped model, and any other path as it is.

    Raises:
        CheckpointError: the package's file is missing or altered, or an INT8 form is named, which has none.
    """
    if is_shipped_int8(model):
        name = str(model).removesuffix(INT8_SUFFIX)
        raise CheckpointError(str(model), expected="a float checkpoint", got="an INT8 form", do=f"give {name}")
    return source_path(model)


def source_path(model: str | Path) -> Path:
    """Return the checkpoint that a shipped model is made from, in INT8 too, and any other path as it is.

    Raises:
        CheckpointError: the package's file is missing or altered.
    """
    if not is_shipped(model):
        return Path(model)
    entry = _entry(model)
    path = ASSETS / entry.file
    found = file_sha256(path) if path.is_file() else "no such file"
    if found != entry.sha256:
        expected, got = f"sha256 {entry.sha256[:12]}...", found if found == "no such file" else f"{found[:12]}..."
        raise CheckpointError(str(path), expected=expected, got=got, do="install mdpose-edge again")
    return path


def model_path(model: str | Path, runtime: str | None = None) -> Path:
    """Return what an engine opens of a shipped model, which may take an export first, and any other path as it is.

    Args:
        model: a path, or a name in SHIPPED, with INT8_SUFFIX or without.
        runtime: the engine, or None for one that is installed.

    Raises:
        CheckpointError: the package's file is missing or altered.
        EngineError: the engine opens no such model.
        ExportError: the export failed, for instance because torch is not installed.
        GateError: INT8 lost more than the gate allows.
        OutputError: the cache cannot be written.
    """
    if not is_shipped(model):
        return Path(model)
    checkpoint = source_path(model)
    if runtime is None:
        runtime = next((engine for engine in TARGET_OF if available(engine)), CHECKPOINT_ENGINE)
    if runtime == CHECKPOINT_ENGINE and not is_shipped_int8(model):
        return checkpoint
    if runtime not in TARGET_OF:
        known = [*TARGET_OF, *([] if is_shipped_int8(model) else [CHECKPOINT_ENGINE])]
        export = f"export it for {runtime} with mdpose-edge export {str(model).removesuffix(INT8_SUFFIX)}"
        do = "install or choose one of these" if runtime == CHECKPOINT_ENGINE else export
        raise EngineError(str(model), expected=f"one of {', '.join(known)}", got=runtime, do=do)
    bundle = cache_folder() / _key(str(model), runtime)
    if _whole(bundle) is None:
        _fill(str(model), runtime, bundle)
    return bundle


def cache_folder() -> Path:
    """Return the folder of exported models: under XDG_CACHE_HOME, else ~/.cache.

    Raises:
        OutputError: there is no home to put it in.
    """
    named = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(named or Path.home() / ".cache") / "mdpose-edge"
    except RuntimeError as error:
        raise _no_cache("the user's home", "none") from error


def _entry(model: str | Path) -> Shipped:
    return SHIPPED[str(model).removesuffix(INT8_SUFFIX)]


def _key(name: str, engine: str) -> str:
    """Name the bundle after all that it is made of; INT8 is the arithmetic of the one engine that the gate saw."""
    made_by = f"{_engine_version(engine)}-" if name.endswith(INT8_SUFFIX) else ""
    return f"{name}-{TARGET_OF[engine]}-{made_by}{_entry(name).sha256[:12]}-{__version__}"


def _engine_version(engine: str) -> str:
    try:
        return metadata.version(engine)
    except metadata.PackageNotFoundError:  # onnxruntime comes under several names
        return metadata.version(metadata.packages_distributions().get(engine, ["mdpose-edge"])[0])


def _whole(bundle: Path) -> Bundle | None:
    if not bundle.exists():
        return None
    try:
        return open_bundle(bundle)
    except (BundleError, SpecError):
        return None


def _fill(name: str, engine: str, bundle: Path) -> None:
    """Export into the cache, unless another process has done so, or the gate has refused it, by now."""
    refused = bundle.with_name(bundle.name + REFUSED_SUFFIX)
    if refused.is_file():
        raise _gate_error(name, refused)
    try:
        bundle.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(bundle.parent, os.W_OK | os.X_OK):
            raise _no_cache(str(bundle.parent), "one that may only be read")
        with sole_writer(bundle.parent, wait=True):
            if refused.is_file():
                raise _gate_error(name, refused)
            if _whole(bundle) is None:
                _remove(bundle)
                _export(name, engine, bundle, refused)
    except OSError as error:
        raise _no_cache(str(bundle.parent), error.strerror or str(error)) from error


def _remove(bundle: Path) -> None:
    """Clear the place of what is no whole bundle; nobody else has business under such a name."""
    if bundle.is_dir():
        shutil.rmtree(bundle)
    else:
        bundle.unlink(missing_ok=True)


def _export(name: str, engine: str, bundle: Path, refused: Path) -> None:
    """Export in a process of its own: the device side never loads torch."""
    _log.warning("mdpose-edge: exporting %s for %s, once, into %s", name, engine, bundle)
    words = ["export", name, "--target", TARGET_OF[engine], "--out", str(bundle)]
    path = os.pathsep.join(filter(None, [str(ASSETS.parents[1]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "mdpose_edge", *words],
        cwd=bundle.parent,  # where nothing has the model's name
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        accuracy = open_bundle(bundle).spec.provenance.accuracy
        if accuracy is not None:
            on = f"{accuracy['images']} images ({accuracy['data']})"
            _log.warning("mdpose-edge: %s: the gate %s, on %s", name, accuracy["verdict"], on)
        return
    said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1].removeprefix("mdpose-edge: ")
    if done.returncode == 1:
        write_whole(refused, (json.dumps({"model": name, "engine": engine, "gate": said}, indent=2) + "\n").encode())
        raise _gate_error(name, refused)
    do = "see there, or run it where torch is installed and copy the folder"
    raise ExportError(name, expected=f"an export into {bundle}", got=said.rstrip("."), do=do)


def _gate_error(name: str, refused: Path) -> GateError:
    try:
        said = str(json.loads(refused.read_text(encoding="utf-8"))["gate"])
    except (ValueError, LookupError, TypeError):
        said = "a note of its refusal that cannot be read"
    got = said.partition(", got ")[2].partition("; ")[0] or said
    do = f"use {name.removesuffix(INT8_SUFFIX)} or another engine, or remove {refused} to try again"
    return GateError(name, expected="INT8 that the gate lets pass", got=got, do=do)


def _no_cache(where: str, got: str) -> OutputError:
    expected = "a cache for exported models that can be written"
    return OutputError(where, expected=expected, got=got, do="set XDG_CACHE_HOME to a folder that can")
