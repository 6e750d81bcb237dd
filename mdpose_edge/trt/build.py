"""A bundle becomes an engine on the device that runs it: checked, built, inspected, tried, and only then kept.

This is `mdpose-edge build`. What TensorRT is told is in trt/builder.py; where engines are kept, in trt/cache.py.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdpose_edge.bundle import Bundle, open_bundle
from mdpose_edge.common.progress import Progress, in_stage, no_progress
from mdpose_edge.errors import EngineError
from mdpose_edge.trt.builder import SerializedEngine, build_plan
from mdpose_edge.trt.cache import (
    EngineFacts,
    Manifest,
    cache_folder,
    check_writable,
    engine_facts,
    new_manifest,
    read_engine,
    read_timing,
    timing_name,
    write_engine,
    write_timing,
)
from mdpose_edge.trt.capabilities import load_tensorrt
from mdpose_edge.trt.cuda import Cuda
from mdpose_edge.trt.host import Host, check_host, check_memory, describe_host
from mdpose_edge.trt.inspection import check_inspection, inspect_engine
from mdpose_edge.trt.opened import OpenedPlan
from mdpose_edge.trt.recipe import Recipe, read_golden, read_recipe, recipe_for_core, recipe_summary
from mdpose_edge.trt.selftest import run_self_test

_STEPS = ("checking bundle and machine", "building", "inspecting what was built", "self-test")


@dataclass(frozen=True)
class BuiltEngine:
    """An engine in the cache."""

    path: Path
    """Its folder."""
    manifest: Manifest
    cached: bool
    """Whether it was there before."""

    def to_dict(self) -> dict[str, Any]:
        """Return all that is known of it as JSON."""
        facts = vars(self.manifest.facts)
        return {"engine": str(self.path), "cached": self.cached, "facts": facts, **self.manifest.report}


@dataclass(frozen=True)
class _Job:
    """A bundle, checked against the machine, and how to build it."""

    bundle: Bundle
    recipe: Recipe
    trt: Any
    host: Host
    facts: EngineFacts
    folder: Path
    workspace_mib: int


def build_engine(
    path: str | Path,
    *,
    cache: Path | None = None,
    workspace_mib: int | None = None,
    nvdla_core: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> BuiltEngine:
    """Build the engine of a bundle, or find the one that fits.

    Args:
        path: a bundle that was exported for tensorrt or jetson.
        cache: the folder of engines; see cache.cache_folder.
        workspace_mib: memory for a kernel beside the tensors, or None for the recipe's; other than None builds anew.
        nvdla_core: another core than the recipe's, or None; other than None builds anew.
        force: build anew whatever is there.
        progress: called as each step begins and while TensorRT builds.

    Raises:
        MissingPackageError: tensorrt or pycuda is not installed.
        BundleError, SpecError: the bundle is damaged, or for another target.
        EngineError: there is no such core, the machine is not the recipe's, TensorRT refuses the graph, the engine is
            not what was asked for, or it does not give what was recorded; no engine is left behind.
    """
    report = progress or no_progress
    report(0, len(_STEPS), _STEPS[0], "")
    bundle = open_bundle(path)
    recipe = recipe_for_core(bundle, read_recipe(bundle), nvdla_core)
    trt = load_tensorrt()
    cuda = Cuda()
    try:
        host = describe_host(trt, cuda)
        check_host(host, trt, bundle, recipe)
        facts, folder = engine_facts(bundle, recipe, host), cache_folder(bundle, cache)
        if not (force or workspace_mib or nvdla_core is not None) and (found := _existing(folder, facts)):
            report(len(_STEPS), len(_STEPS), "there already", "")
            return found
        job = _Job(bundle, recipe, trt, host, facts, folder, workspace_mib or recipe.workspace_mib)
        check_writable(folder)
        check_memory(host, bundle, job.workspace_mib)
        report(1, len(_STEPS), _STEPS[1], "")
        started = time.monotonic()
        plan = _build(job, cuda, report)
        seconds = time.monotonic() - started
    finally:
        cuda.close()
    return _keep(job, plan, seconds, report)


def _existing(folder: Path, facts: EngineFacts) -> BuiltEngine | None:
    """Find an engine that fits; one that was altered counts as none, for building replaces it."""
    try:
        found = read_engine(folder, facts)
    except EngineError:
        return None
    return None if found is None else BuiltEngine(folder / facts.key, found[0], cached=True)


def _build(job: _Job, cuda: Cuda, report: Progress) -> SerializedEngine:
    timing = timing_name(job.recipe, job.facts)
    with cuda.failures("build"), cuda.current():
        plan = build_plan(
            job.trt,
            job.bundle,
            job.recipe,
            workspace_mib=job.workspace_mib,
            nvdla_core=job.recipe.nvdla_core,
            timing=read_timing(job.folder, timing),
            progress=in_stage(report, "TensorRT"),
        )
    if plan.timing:
        write_timing(job.folder, timing, plan.timing)
    return plan


def _keep(job: _Job, plan: SerializedEngine, seconds: float, report: Progress) -> BuiltEngine:
    """Open the plan, hold it against the recipe and the recorded heads, and put it into the cache."""
    report(2, len(_STEPS), _STEPS[2], "")
    recipe, core = job.recipe, job.recipe.nvdla_core
    with OpenedPlan(job.bundle, job.trt, Cuda(), plan.data, core, job.host.gpu.integrated) as opened:
        found = inspect_engine(opened.description(), recipe, core, plan.gpu_convolutions)
        check_inspection(found, recipe, core)
        report(3, len(_STEPS), _STEPS[3], "")
        tried = run_self_test(opened.infer, read_golden(job.bundle), job.bundle.spec.input.batch, recipe.self_test)
        uses_graph = opened.uses_cuda_graph
    findings = {
        "recipe": recipe_summary(recipe, job.bundle.spec),
        "workspace_mib": job.workspace_mib,
        "build_seconds": round(seconds, 1),
        "inspection": found.summary(),
        "self_test": tried,
        "cuda_graph": uses_graph,
    }
    manifest = new_manifest(job.facts, plan.data, core, findings)
    write_engine(job.folder, manifest, plan.data)
    report(len(_STEPS), len(_STEPS), "done", "")
    return BuiltEngine(job.folder / job.facts.key, manifest, cached=False)
