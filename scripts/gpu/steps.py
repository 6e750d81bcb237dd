"""The shorter steps of prove_tensorrt.py, each a function that gives what it found, as JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.optional import available
from mdpose_edge.datasets.coco import CocoSplit, load_split, write_results
from mdpose_edge.evaluate import coco_figures, run_estimator
from mdpose_edge.families.registry import evaluation_of, make_decoder
from mdpose_edge.poses import Poses
from mdpose_edge.preprocess import preprocess
from mdpose_edge.trt.capabilities import load_tensorrt
from mdpose_edge.trt.cuda import Cuda
from mdpose_edge.trt.host import describe_host
from scripts.gpu import layout
from scripts.gpu.job import ROOT, Job, attempt, environment, failures, opened


def machine(job: Job) -> dict[str, Any]:
    """Name the machine."""
    if job.dry_run:
        return {"not_run": "a dry run looks at no GPU", "system": platform.platform()}
    trt, cuda = load_tensorrt(), Cuda()
    try:
        return {"host": json.loads(json.dumps(describe_host(trt, cuda), default=vars)), "system": platform.platform()}
    finally:
        cuda.close()


def conformance(job: Job) -> dict[str, Any]:
    """Run the project's conformance suite on the engine, with prepared bundles."""
    junit = job.out / "conformance.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "scripts.gpu.conformance_plugin",
        "--noconftest",
        "-c",
        os.devnull,
        "-q",
    ]
    command += [
        "--rootdir",
        str(ROOT),
        "--import-mode=importlib",
        "-p",
        "no:cacheprovider",
        "-k",
        f"{layout.CONFORMANCE_FAMILY}-{job.engine}-",
    ]
    command += [f"--junitxml={junit}", str(ROOT / "tests" / "conformance")]
    prepared = job.inputs / layout.CONFORMANCE
    result = subprocess.run(
        command, env={**environment(job), "MDPOSE_PREPARED": str(prepared)}, capture_output=True, text=True
    )
    if not junit.is_file():
        raise ValueError(f"pytest wrote no report: {(result.stdout + result.stderr)[-2000:]}")
    suite = next(ElementTree.parse(junit).getroot().iter("testsuite"))
    failed = []
    for case in suite.iter("testcase"):
        failed += [
            f"{case.get('name')}: {bad.get('message', '')[:300]}" for bad in case if bad.tag in ("failure", "error")
        ]
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    if counts["skipped"] == counts["tests"]:
        reasons = [case.get("message", "") for case in suite.iter("skipped")] or ["none was chosen"]
        return {"engine": job.engine, **counts, "failed": f"no test ran: {reasons[0]}"}
    note = {"not_run": "the suite on tensorrt"} if job.dry_run else {}
    return {"engine": job.engine, **counts, "failed_tests": failed, **note}


def accuracy(job: Job) -> dict[str, Any]:
    """Find people in the prepared pictures; render.py computes the figures where the library for it is absent here."""
    split = load_split(job.inputs / layout.DATA, "val")
    reference = json.loads((job.inputs / layout.REFERENCE_FIGURES).read_text(encoding="utf-8"))
    found: dict[str, Any] = {"images": len(split.images), "reference": reference["figures"]}
    measured = {
        engine.precision: attempt(partial(_accuracy_of, job, engine, split))
        for engine in layout.ENGINES
        if engine.batch == 1
    }
    note = {"not_run": "accuracy of tensorrt"} if job.dry_run else {}
    return {**found, **measured, "engine": job.engine, **note, **failures(measured, "not measured")}


def _accuracy_of(job: Job, engine: layout.Engine, split: CocoSplit) -> dict[str, Any]:
    with opened(job, engine) as adapter:
        spec = adapter.spec
        decode = make_decoder(spec, evaluation_of(spec))

        def estimate(frame: NDArray[np.uint8]) -> Poses:
            image, geometry = preprocess(frame, spec.input)
            return decode(adapter.infer(image[None]), geometry)

        results, _ = run_estimator(estimate, split)
    name = f"results-{engine.precision}.json"
    write_results(job.out / name, results)
    figures = coco_figures(split, results, sigmas=spec.keypoints.sigmas) if available("faster_coco_eval") else None
    return {"results": name, "figures": figures}
