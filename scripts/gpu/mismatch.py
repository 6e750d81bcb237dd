"""The step of prove_tensorrt.py that spoils engines."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mdpose_edge.errors import EngineError
from mdpose_edge.runtimes.registry import load_adapter
from mdpose_edge.trt import cache
from scripts.gpu import layout
from scripts.gpu.job import Job, environment_variable


def mismatch(job: Job, built: dict[str, Any]) -> dict[str, Any]:
    """Spoil copies of an engine; every one must be refused before TensorRT sees a byte."""
    engine = layout.ENGINES[0]
    bundle, folder = job.bundle(engine), job.out / "spoilt"
    shutil.rmtree(folder, ignore_errors=True)
    if job.dry_run:
        source, read = pretended_engine(folder / "source")
    else:
        if "engine" not in built.get(engine.folder, {}):
            raise ValueError(f"{engine.folder} was not built, so that there is nothing to spoil")
        source = Path(built[engine.folder]["engine"])

        def read(place: Path) -> None:
            with environment_variable(cache.CACHE_VARIABLE, str(place)), load_adapter("tensorrt", bundle):
                pass

    found = {}
    for name, spoil in SPOILERS.items():
        place = folder / name.replace(" ", "_")
        shutil.copytree(source, place / source.name)
        spoil(place / source.name)
        try:
            read(place)
            found[name] = {"refused": False, "sentence": ""}
        except EngineError as error:
            found[name] = {"refused": True, "sentence": str(error)}
    shutil.rmtree(folder)
    if not all(item["refused"] for item in found.values()):
        raise ValueError(f"accepted: {[name for name, item in found.items() if not item['refused']]}")
    return {"cases": found, **({"not_run": "opening by tensorrt; the cache alone was asked"} if job.dry_run else {})}


def other_version(engine: Path) -> None:
    """Let the manifest name another TensorRT."""
    path = engine / cache.MANIFEST_FILE
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["facts"]["tensorrt"] = "8.6.1"
    path.write_text(json.dumps(manifest), encoding="utf-8")


def truncated(engine: Path) -> None:
    """Cut the plan in half."""
    path = engine / cache.PLAN_FILE
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def changed_byte(engine: Path) -> None:
    """Change one byte in the middle of the plan."""
    path = engine / cache.PLAN_FILE
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def no_plan(engine: Path) -> None:
    """Take the plan away."""
    (engine / cache.PLAN_FILE).unlink()


SPOILERS = {
    "another version's manifest": other_version,
    "truncated plan": truncated,
    "one byte changed": changed_byte,
    "no plan": no_plan,
}


def pretended_engine(folder: Path) -> tuple[Path, Callable[[Path], None]]:
    """Put a plan of zeros into a cache, and give the reader that the adapter uses; nothing is deserialized."""
    facts = cache.EngineFacts("0" * 64, None, "8.5.3.1", "none", (0, 0), platform.machine(), None, "weak", (), False)
    plan = bytes(1000)
    cache.write_engine(folder, cache.new_manifest(facts, plan, None, {}), plan)

    def read(place: Path) -> None:
        cache.read_engine(place, facts)

    return folder / facts.key, read
