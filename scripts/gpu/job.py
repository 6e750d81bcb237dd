"""What every step of prove_tensorrt.py shares: where things are, and how an engine is opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdpose_edge.bundle import Bundle, open_bundle
from mdpose_edge.runtimes.registry import load_adapter
from mdpose_edge.trt import cache
from scripts.gpu import layout

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = "onnxruntime"


@dataclass(frozen=True)
class Job:
    """Where things are."""

    inputs: Path
    out: Path
    dry_run: bool

    @property
    def engine(self) -> str:
        """The engine in use."""
        return STAND_IN if self.dry_run else "tensorrt"

    @property
    def engines(self) -> Path:
        """The cache of built engines."""
        return self.out / "engines"

    def bundle(self, engine: layout.Engine) -> Bundle:
        """Open one of the prepared bundles."""
        return open_bundle(self.inputs / engine.folder)


def attempt(step: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do what may fail without an end to all else: one engine's fault must not hide what the others do."""
    try:
        return step()
    except Exception as error:
        return {"failed": reason(error)}


def reason(error: Exception) -> str:
    """Say what went wrong."""
    return f"{type(error).__name__}: {error}"


def failures(found: dict[str, dict[str, Any]], what: str) -> dict[str, str]:
    """Name what failed among several, as the failure of their step; nothing where none did."""
    failed = [f"{name}: {item['failed']}" for name, item in found.items() if "failed" in item]
    return {"failed": f"{what}: {'; '.join(failed)}"} if failed else {}


@contextmanager
def opened(job: Job, engine: layout.Engine) -> Any:
    """Open an engine from the cache."""
    with (
        environment_variable(cache.CACHE_VARIABLE, str(job.engines)),
        load_adapter(job.engine, job.bundle(engine)) as adapter,
    ):
        yield adapter


@contextmanager
def environment_variable(name: str, value: str) -> Any:
    """Set an environment variable for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def environment(job: Job) -> dict[str, str]:
    """Return the environment of a child: this checkout first."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), cache.CACHE_VARIABLE: str(job.engines)}
