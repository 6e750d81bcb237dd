"""The step of prove_tensorrt.py that takes times."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scripts.gpu import layout
from scripts.gpu.job import Job, failures, opened, reason

WARM_UP = 50

Run = Callable[[int, int], list[float]]
"""(calls, calls before them) to milliseconds, one for each call."""


def latency(job: Job, torch_python: str | None, rounds: int, calls: int) -> dict[str, Any]:
    """Time each engine and torch in turn, host memory to host memory."""
    times: dict[str, list[float]] = {}
    failed: dict[str, dict[str, Any]] = {}
    about: dict[str, Any] = {"torch": None}
    warm_up = 1 if job.dry_run else WARM_UP
    with ExitStack() as stack:
        contenders: dict[str, Run] = {}

        def admit(name: str, make: Callable[[], Run]) -> None:
            """Let in who can be opened and warmed up."""
            try:
                run = make()
                run(0, warm_up)
            except Exception as error:
                failed[name] = {"failed": reason(error)}
                return
            contenders[name], times[name] = run, []

        for engine in layout.ENGINES:
            admit(
                f"{job.engine} {engine.precision}, batch {engine.batch}",
                partial(_engine, stack, job, engine),
            )
        for batch in layout.BATCHES if torch_python is not None else ():
            admit(f"torch, batch {batch}", partial(_torch, stack, job, torch_python, batch, about))
        for _ in range(rounds):
            for name, run in contenders.items():
                times[name] += run(calls, 0)
    table = {
        name: {"p50_ms": float(np.median(ms)), "p99_ms": float(np.percentile(ms, 99)), "calls": len(ms)}
        for name, ms in times.items()
    }
    note = {"not_run": "latency of tensorrt: these are another engine's, for form's sake"} if job.dry_run else {}
    return {"table": table, **about, "rounds": rounds, **note, **failures(failed, "not timed")}


def _engine(stack: ExitStack, job: Job, engine: layout.Engine) -> Run:
    """Time an adapter on random images."""
    adapter = stack.enter_context(opened(job, engine))
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


def _torch(stack: ExitStack, job: Job, python: str, batch: int, about: dict[str, Any]) -> Run:
    """Time torch, in a process for each batch: it then compiles for that size alone, and none dies of the other's."""
    size = job.bundle(layout.ENGINES[0]).spec.input
    worker = stack.enter_context(TorchWorker(python, job.inputs / layout.NETWORK, size.height, size.width))
    about["torch"] = worker.about
    return worker.timer(batch)


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

    def timer(self, batch: int) -> Run:
        """Time a batch size."""

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
