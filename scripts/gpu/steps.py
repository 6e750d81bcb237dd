"""The steps of prove_tensorrt.py, each a function that gives what it found, as JSON."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mdpose_edge.bundle import Bundle, open_bundle
from mdpose_edge.coco import load_split, write_results
from mdpose_edge.decode import make_decoder
from mdpose_edge.errors import EngineError
from mdpose_edge.evaluate import EVAL_DECODE, coco_figures, run_estimator
from mdpose_edge.optional import available
from mdpose_edge.preprocess import preprocess
from mdpose_edge.runtimes.registry import load_adapter
from mdpose_edge.trt import cache
from mdpose_edge.trt.recipe import read_golden, read_recipe, recipe_summary
from scripts.gpu import layout

ROOT = Path(__file__).resolve().parents[2]
BACKBONE = "/backbone/"
"""In the names of the backbone's nodes."""
WARM_UP = 50
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


def machine(job: Job) -> dict[str, Any]:
    """Name the machine."""
    if job.dry_run:
        return {"not_run": "a dry run looks at no GPU", "system": platform.platform()}
    from mdpose_edge.trt.capabilities import load_tensorrt
    from mdpose_edge.trt.cuda import Cuda
    from mdpose_edge.trt.host import describe_host

    trt, cuda = load_tensorrt(), Cuda()
    try:
        return {"host": json.loads(json.dumps(describe_host(trt, cuda), default=vars)), "system": platform.platform()}
    finally:
        cuda.close()


def build(job: Job) -> dict[str, Any]:
    """Build every engine by `mdpose-edge build`, and compare what was asked with what the inspector tells."""
    found: dict[str, Any] = {}
    for engine in layout.ENGINES:
        bundle = job.bundle(engine)
        recipe = read_recipe(bundle)
        summary: dict[str, Any] = {"recipe": recipe_summary(recipe, bundle.spec)}
        backbone = [name for name in recipe.convolutions if BACKBONE in name]
        summary["backbone"] = {
            "convolutions": len(backbone),
            "asked_in_int8": sum(recipe.convolutions[name] == "int8" for name in backbone),
        }
        if job.dry_run:
            summary["golden_images"] = len(read_golden(bundle).images)
            found[engine.folder] = {**summary, "not_run": "building and inspecting"}
            continue
        report = job.out / f"build-{engine.precision}-{engine.batch}.json"
        command = [sys.executable, "-m", "mdpose_edge.cli", "build", str(bundle.path)]
        subprocess.run([*command, "--cache", str(job.engines), "--json", str(report)], check=True, env=environment(job))
        built = json.loads(report.read_text(encoding="utf-8"))
        wider = [name for name in built["inspection"]["other_precision"] if BACKBONE in name]
        summary["backbone"]["wider_than_asked"] = wider
        found[engine.folder] = {**summary, **built}
    return found


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
    command += ["--rootdir", str(ROOT), "--import-mode=importlib", "-p", "no:cacheprovider", "-k", f"{job.engine}-"]
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
    note = {"not_run": "the suite on tensorrt"} if job.dry_run else {}
    return {"engine": job.engine, **counts, "failed_tests": failed, **note}


def accuracy(job: Job) -> dict[str, Any]:
    """Find people in the prepared pictures; render.py computes the figures where the library for it is absent here."""
    split = load_split(job.inputs / layout.DATA, "val")
    reference = json.loads((job.inputs / layout.REFERENCE_FIGURES).read_text(encoding="utf-8"))
    found: dict[str, Any] = {"images": len(split.images), "reference": reference["figures"]}
    for engine in layout.ENGINES:
        if engine.batch != 1:
            continue
        with opened(job, engine) as adapter:
            spec = adapter.spec
            decode = make_decoder(spec, EVAL_DECODE)

            def estimate(frame: Any, adapter: Any = adapter, spec: Any = spec, decode: Any = decode) -> Any:
                image, geometry = preprocess(frame, spec.input)
                return decode(adapter.infer(image[None]), geometry)

            results, _ = run_estimator(estimate, split)
        name = f"results-{engine.precision}.json"
        write_results(job.out / name, results)
        figures = coco_figures(split, results, sigmas=spec.keypoints.sigmas) if available("faster_coco_eval") else None
        found[engine.precision] = {"results": name, "figures": figures}
    return {**found, "engine": job.engine, **({"not_run": "accuracy of tensorrt"} if job.dry_run else {})}


def latency(job: Job, torch_python: str | None, rounds: int, calls: int) -> dict[str, Any]:
    """Time each engine and torch in turn, host memory to host memory."""
    times: dict[str, list[float]] = {}
    with ExitStack() as stack:
        contenders: dict[str, Callable[[int, int], list[float]]] = {}
        for engine in layout.ENGINES:
            adapter = stack.enter_context(opened(job, engine))
            contenders[f"{job.engine} {engine.precision}, batch {engine.batch}"] = timer(adapter)
        about: dict[str, Any] = {"torch": None}
        if torch_python is not None:
            size = job.bundle(layout.ENGINES[0]).spec.input
            worker = stack.enter_context(
                TorchWorker(torch_python, job.inputs / layout.NETWORK, size.height, size.width)
            )
            about["torch"] = worker.about
            for batch in layout.BATCHES:
                contenders[f"torch, batch {batch}"] = worker.timer(batch)
        warm_up = 1 if job.dry_run else WARM_UP
        for name, run in contenders.items():
            run(0, warm_up)
            times[name] = []
        for _ in range(rounds):
            for name, run in contenders.items():
                times[name] += run(calls, 0)
    table = {
        name: {"p50_ms": float(np.median(ms)), "p99_ms": float(np.percentile(ms, 99)), "calls": len(ms)}
        for name, ms in times.items()
    }
    note = {"not_run": "latency of tensorrt: these are another engine's, for form's sake"} if job.dry_run else {}
    return {"table": table, **about, "rounds": rounds, **note}


def mismatch(job: Job, built: dict[str, Any]) -> dict[str, Any]:
    """Spoil copies of an engine; every one must be refused before TensorRT sees a byte."""
    engine = layout.ENGINES[0]
    bundle, folder = job.bundle(engine), job.out / "spoilt"
    shutil.rmtree(folder, ignore_errors=True)
    if job.dry_run:
        source, read = pretended_engine(folder / "source")
    else:
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


@contextmanager
def opened(job: Job, engine: layout.Engine) -> Any:
    """Open an engine from the cache."""
    with (
        environment_variable(cache.CACHE_VARIABLE, str(job.engines)),
        load_adapter(job.engine, job.bundle(engine)) as adapter,
    ):
        yield adapter


def timer(adapter: Any) -> Callable[[int, int], list[float]]:
    """Time an adapter on random images: (calls, calls before them) to milliseconds."""
    size = adapter.spec.input
    images = np.random.default_rng(0).integers(0, 256, (size.batch, size.height, size.width, 3), np.uint8)

    def run(calls: int, warm_up: int) -> list[float]:
        for _ in range(warm_up):
            adapter.infer(images)
        times = []
        for _ in range(calls):
            start = time.perf_counter()
            adapter.infer(images)
            times.append(1e3 * (time.perf_counter() - start))
        return times

    return run


class TorchWorker:
    """torch_worker.py in another interpreter."""

    def __init__(self, python: str, network: Path, height: int, width: int) -> None:
        script = Path(__file__).with_name("torch_worker.py")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LD_"))}
        self._process = subprocess.Popen(
            [python, str(script), str(network), str(height), str(width)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean,
        )  # fmt: skip
        self.about = self._read()

    def __enter__(self) -> TorchWorker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def timer(self, batch: int) -> Callable[[int, int], list[float]]:
        """Time a batch size; see `timer`."""

        def run(calls: int, warm_up: int) -> list[float]:
            assert self._process.stdin is not None
            request = {"batch": batch, "calls": calls, "warm_up": warm_up}
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            times: list[float] = self._read()["ms"]
            return times

        return run

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ValueError(f"the interpreter for torch ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


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
    """Give the environment of a child: this checkout first."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), cache.CACHE_VARIABLE: str(job.engines)}
