"""Each engine is started on a tiny graph, in a process of its own: what crashes or hangs there is a finding too.

python -m mdpose_edge.doctor.engines ENGINE
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import numpy as np

from mdpose_edge.common.optional import available
from mdpose_edge.common.progress import no_progress
from mdpose_edge.doctor.findings import Finding
from mdpose_edge.doctor.tiny import TOLERANCE, tiny_bundle, tiny_image, tiny_outputs, tiny_spec, tiny_weights
from mdpose_edge.errors import EngineError, MdposeError, MissingPackageError
from mdpose_edge.runtimes.base import CheckedAdapter
from mdpose_edge.runtimes.registry import ENGINES, load_adapter
from mdpose_edge.trt import capabilities
from mdpose_edge.trt.builder import build_plan
from mdpose_edge.trt.cuda import Cuda
from mdpose_edge.trt.opened import OpenedPlan
from mdpose_edge.trt.platforms import show, typing_of
from mdpose_edge.trt.recipe import FallbackLimits, Recipe, SelfTest, TensorRtRange

TIMEOUT_S = 180
"""TensorRT measures its kernels when it builds, also for a tiny graph."""
_CRASH = "install the engine again, in a fresh environment"


def check_engine(name: str) -> Finding:
    """Start one engine on the tiny graph, and compare what it computes with numpy."""
    if not available(name):
        return Finding("engines", name, "absent", "not installed", f'pip install "mdpose-edge[{_extra(name)}]"')
    command = [sys.executable, "-m", "mdpose_edge.doctor.engines", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return Finding("engines", name, "broken", f"no answer within {TIMEOUT_S} s", _CRASH)
    answer = _answer(done.stdout)
    if done.returncode == 0 and answer:
        return Finding("engines", name, "ok", f"{_version(name)}: {answer['found']}")
    if answer:
        found = f"{_version(name)}: {answer['found']}"
        return Finding("engines", name, "absent" if answer["missing"] else "broken", found, answer["remedy"])
    lines = done.stderr.strip().splitlines()
    why = f"ended by signal {-done.returncode}" if done.returncode < 0 else (lines[-1] if lines else "ended silently")
    return Finding("engines", name, "broken", f"{_version(name)}: {why}", _CRASH)


def main(name: str) -> int:
    """Start an engine here, and print how it went as JSON."""
    start = time.perf_counter()
    try:
        with _opened(name) as adapter:
            opened_s = time.perf_counter() - start
            error = _largest_error(name, adapter)
    except MdposeError as failure:
        missing = isinstance(failure, MissingPackageError)
        found = f"expected {failure.expected}, got {failure.got}"
        print(json.dumps({"found": found, "remedy": failure.do, "missing": missing}))
        return 1
    what = f"largest error {error:.1e} of the largest value"
    print(json.dumps({"found": f"loads a graph in {opened_s:.1f} s and runs it, {what}"}))
    return 0


@contextmanager
def _opened(name: str) -> Iterator[CheckedAdapter | OpenedPlan]:
    """Open an engine on the tiny graph; torch, which opens checkpoints only, on the same layers."""
    if "onnx" in ENGINES[name].targets:
        with tiny_bundle() as bundle, load_adapter(name, bundle, threads=1) as adapter:
            yield adapter
    elif name == "tensorrt":
        with _tensorrt_opened() as opened:
            yield opened
    else:
        from mdpose_edge.runtimes.torch_adapter import TorchAdapter

        with TorchAdapter.of_layers(tiny_spec(), tiny_weights()) as adapter:
            yield adapter


@contextmanager
def _tensorrt_opened() -> Iterator[OpenedPlan]:
    """Build the tiny graph, as `mdpose-edge build` would, and open it without keeping it."""
    trt = capabilities.load_tensorrt()
    cuda = Cuda()
    try:
        integrated = cuda.describe().integrated
        with tiny_bundle() as bundle:
            with cuda.failures("build"), cuda.current():
                plan = build_plan(
                    trt,
                    bundle,
                    _tiny_recipe(trt),
                    workspace_mib=64,
                    nvdla_core=None,
                    timing=b"",
                    progress=no_progress,
                )
            with OpenedPlan(bundle, trt, Cuda(), plan.data, None, integrated) as opened:
                yield opened
    finally:
        cuda.close()


def _tiny_recipe(trt: Any) -> Recipe:
    version = capabilities.tensorrt_version(trt)
    return Recipe(
        recipe_version=0,
        tensorrt=TensorRtRange(show(version), show((version[0] + 1,))),
        typing=typing_of(version),
        precision="fp32",
        flags=(),
        cleared_flags=(),
        workspace_mib=64,
        timing_cache="",
        jetson=None,
        calibration=None,
        convolutions={},
        limits=FallbackLimits(1.0, 1.0),
        self_test=SelfTest(1.0, 1.0),
    )


def _largest_error(name: str, adapter: CheckedAdapter | OpenedPlan) -> float:
    """Run the engine; give its largest error relative to a tensor's largest value."""
    found, right = adapter.infer(tiny_image()), tiny_outputs()
    error = max(float(np.abs(found[key] - right[key]).max() / np.abs(right[key]).max()) for key in right)
    if not error <= TOLERANCE:
        expected, got = f"the tiny graph's outputs to {TOLERANCE:g}", f"an error of {error:.2g}"
        raise EngineError(name, expected=expected, got=got, do=_CRASH)
    return error


def _answer(text: str) -> dict[str, Any]:
    """Read the last line, or nothing where it is none of ours: engines print to stdout too."""
    try:
        answer = json.loads((text.strip().splitlines() or [""])[-1])
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _extra(name: str) -> str:
    return "train" if name == "torch" else name


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # a system package, such as Jetson's TensorRT
        return "version unknown to pip"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
