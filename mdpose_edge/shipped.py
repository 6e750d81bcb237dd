"""Models that come with the package, by name: `PoseEstimator("people")`.

Each is a checkpoint in assets/. It is exported once, into a cache under the user's home, for an engine that is
installed; from then on the bundle there is opened, as long as every byte of it is the one that was written.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mdpose_edge import __version__
from mdpose_edge.bundle import open_bundle
from mdpose_edge.common.files import file_sha256
from mdpose_edge.common.optional import available
from mdpose_edge.errors import BundleError, CheckpointError, EngineError, ExportError, SpecError

ASSETS = Path(__file__).parent / "assets"
TARGET_OF = {"openvino": "openvino", "onnxruntime": "onnx"}
"""The target that each engine opens; the first engine that is installed is taken where nobody chooses."""
CHECKPOINT_ENGINE = "torch"
"""Opens the checkpoint itself."""


@dataclass(frozen=True)
class Shipped:
    """A model of the package."""

    file: str
    """In assets/."""
    sha256: str


SHIPPED = {
    "people": Shipped(
        "people_mobilenetv2.safetensors", "37b4d73006f2e961e1e5746bdaa1997272c2ac4e268c3a7f904c6a0fb3c2929a"
    ),
}
"""By name; what each knows is in docs/model-card-NAME.md."""


def is_shipped(model: str | Path) -> bool:
    """Return whether a model is given by the name of a shipped one; a file or folder of that name comes first."""
    return str(model) in SHIPPED and not Path(model).exists()


def checkpoint_path(model: str | Path) -> Path:
    """Return the checkpoint of a shipped model, and any other path as it is.

    Raises:
        CheckpointError: the package's file is missing or altered.
    """
    if not is_shipped(model):
        return Path(model)
    entry = SHIPPED[str(model)]
    path = ASSETS / entry.file
    found = file_sha256(path) if path.is_file() else "no such file"
    if found != entry.sha256:
        expected, got = f"sha256 {entry.sha256[:12]}...", found if found == "no such file" else f"{found[:12]}..."
        raise CheckpointError(str(path), expected=expected, got=got, do="install mdpose-edge again")
    return path


def model_path(model: str | Path, runtime: str | None = None) -> Path:
    """Return what an engine opens of a shipped model, which may take an export first, and any other path as it is.

    Args:
        model: a path, or a name in SHIPPED.
        runtime: the engine, or None for one that is installed.

    Raises:
        CheckpointError: the package's file is missing or altered.
        EngineError: the engine opens no such model.
        ExportError: the export failed, for instance because torch is not installed.
    """
    if not is_shipped(model):
        return Path(model)
    checkpoint = checkpoint_path(model)
    if runtime is None:
        runtime = next((engine for engine in TARGET_OF if available(engine)), CHECKPOINT_ENGINE)
    if runtime == CHECKPOINT_ENGINE:
        return checkpoint
    if runtime not in TARGET_OF:
        do = f"export it for {runtime} with mdpose-edge export {model}"
        raise EngineError(str(model), expected=f"one of {', '.join(TARGET_OF)}, torch", got=runtime, do=do)
    bundle = cache_folder() / f"{model}-{TARGET_OF[runtime]}-{SHIPPED[str(model)].sha256[:12]}-{__version__}"
    if not _is_whole(bundle):
        _export(str(model), checkpoint, TARGET_OF[runtime], bundle)
    return bundle


def cache_folder() -> Path:
    """Return the folder of exported models: under XDG_CACHE_HOME, else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mdpose-edge"


def _is_whole(bundle: Path) -> bool:
    if not bundle.exists():
        return False
    try:
        open_bundle(bundle)
    except (BundleError, SpecError):
        return False
    return True


def _export(name: str, checkpoint: Path, target: str, bundle: Path) -> None:
    """Export in a process of its own: the device side never loads torch."""
    words = ["export", str(checkpoint), "--target", target, "--out", str(bundle)]
    path = os.pathsep.join(filter(None, [str(ASSETS.parents[1]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "mdpose_edge", *words],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        got = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1].removeprefix("mdpose-edge: ")
        do = "see there, or run it where torch is installed and copy the folder"
        raise ExportError(name, expected=f"an export into {bundle}", got=got.rstrip("."), do=do)
