"""A command in a forked child: with a folder, temporary files and limits of its own.

Import it first: it sets what libraries read when they are imported, and imports what no child shall have to.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as common/optional.py has it, which this import goes past

import av
import cv2
import nncf
import onnx
import onnxruntime
import openvino
import timm
import torch

from mdpose_edge import cli

WARM = (av, nncf, onnx, onnxruntime, openvino, timm)
LIMIT_BYTES = 2 * 10**9
ADDRESSES_BYTES = 24 * 2**30
"""Against what takes memory faster than it is watched; libraries reserve more addresses than they use."""
POLL_S = 0.02


@dataclass(frozen=True)
class Result:
    """What a command did: its exit code (negative: the signal that ended it), time, memory and words."""

    code: int
    seconds: float
    peak_bytes: int
    stopped: str | None
    out: str
    err: str


def fork(work: Callable[[], int], folder: Path, limit_s: float = 180.0) -> Result:
    """Run something in a child with a folder, temporary files and limits of its own."""
    for name in ("tmp", "home"):
        (folder / name).mkdir(parents=True)
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os._exit(_in_child(work, folder))
    stopped, peak = None, 0
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        peak = max(peak, _resident_bytes(child))
        if stopped is None and (time.monotonic() - start > limit_s or peak > LIMIT_BYTES):
            stopped = f"{peak / 1e9:.1f} GB" if peak > LIMIT_BYTES else f"more than {limit_s:.0f} s"
            os.kill(child, signal.SIGKILL)
        time.sleep(POLL_S)
    seconds = time.monotonic() - start
    try:
        os.killpg(child, signal.SIGKILL)  # what it started
        stopped = stopped or "a process that outlived it"
    except ProcessLookupError:
        pass
    texts = [(folder / name).read_text(errors="replace") for name in ("stdout.txt", "stderr.txt")]
    return Result(os.waitstatus_to_exitcode(status), seconds, max(peak, usage.ru_maxrss * 1024), stopped, *texts)


def _in_child(work: Callable[[], int], folder: Path) -> int:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES_BYTES, ADDRESSES_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.environ.update(TMPDIR=str(folder / "tmp"), HOME=str(folder / "home"))
    os.environ.pop("MDPOSE_EDGE_ENGINES", None)
    tempfile.tempdir = None
    case = folder / "case"
    os.chdir(case if case.is_dir() else folder)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        code = work()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 70
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _resident_bytes(process: int) -> int:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize()


def run_words(words: list[str]) -> Callable[[], int]:
    """Return what runs a command line."""

    def work() -> int:
        sys.argv = ["mdpose-edge", *words]
        cli.main()
        return 0

    return work
