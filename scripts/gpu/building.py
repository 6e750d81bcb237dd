"""The step of prove_tensorrt.py that builds the engines."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from mdpose_edge.common.progress import no_progress
from mdpose_edge.trt.builder import build_plan
from mdpose_edge.trt.capabilities import load_tensorrt
from mdpose_edge.trt.cuda import Cuda
from mdpose_edge.trt.opened import OpenedPlan
from mdpose_edge.trt.recipe import read_golden, read_recipe, recipe_summary
from scripts.gpu import layout
from scripts.gpu.job import Job, attempt, environment, failures, opened

BACKBONE = "/backbone/"
"""In the names of the backbone's nodes."""


def build(job: Job) -> dict[str, Any]:
    """Build every engine by `mdpose-edge build`, and compare what was asked with what the inspector tells."""
    found = {engine.folder: _build_one(job, engine) for engine in layout.ENGINES}
    return {**found, **failures(found, "not built")}


def _build_one(job: Job, engine: layout.Engine) -> dict[str, Any]:
    bundle = job.bundle(engine)
    recipe = read_recipe(bundle)
    summary: dict[str, Any] = {"recipe": recipe_summary(recipe, bundle.spec)}
    backbone = [name for name in recipe.convolutions if BACKBONE in name]
    summary["backbone"] = {
        "convolutions": len(backbone),
        "asked_in_int8": sum(recipe.convolutions[name] == "int8" for name in backbone),
    }
    if job.dry_run:
        return {**summary, "golden_images": len(read_golden(bundle).images), "not_run": "building and inspecting"}
    report = job.out / f"build-{engine.name}.json"
    command = [sys.executable, "-m", "mdpose_edge", "build", str(bundle.path)]
    command += ["--cache", str(job.engines), "--json", str(report)]
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=environment(job))
    sys.stderr.write(result.stderr)
    if result.returncode:
        said = result.stderr.strip() or f"exit code {result.returncode}"
        return {**summary, **attempt(lambda: _describe_refused(job, engine)), "failed": said.splitlines()[-1]}
    built = json.loads(report.read_text(encoding="utf-8"))
    wider = [name for name in built["inspection"]["other_precision"] if BACKBONE in name]
    summary["backbone"]["wider_than_asked"] = wider
    with opened(job, engine) as adapter:
        return {**summary, **built, **_keep_description(job, engine, adapter.engine_description())}


def _describe_refused(job: Job, engine: layout.Engine) -> dict[str, Any]:
    """Build again what `mdpose-edge build` refused, for its description alone: from that, the refusal can be judged."""
    bundle, trt, cuda = job.bundle(engine), load_tensorrt(), Cuda()
    recipe = read_recipe(bundle)
    try:
        integrated = cuda.describe().integrated
        with cuda.failures("build"), cuda.current():
            plan = build_plan(
                trt, bundle, recipe,
                workspace_mib=recipe.workspace_mib, nvdla_core=None, timing=b"", progress=no_progress,
            )  # fmt: skip
        with OpenedPlan(bundle, trt, Cuda(), plan.data, None, integrated) as refused:
            return _keep_description(job, engine, refused.description())
    finally:
        cuda.close()


def _keep_description(job: Job, engine: layout.Engine, description: str) -> dict[str, Any]:
    """Keep what TensorRT's inspector says, word for word."""
    name = f"inspector-{engine.name}.json"
    (job.out / name).write_text(description, encoding="utf-8")
    return {"inspector": name}
