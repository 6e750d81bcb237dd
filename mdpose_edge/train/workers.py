"""The processes that read images, watched: one that dies ends the run in a sentence, one that hangs holds up none."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from multiprocessing import queues
from pathlib import Path
from typing import Any

import cv2
from torch.utils.data import DataLoader

from mdpose_edge.errors import TrainingError

POLL_S = 5.0
"""How often a wait for the workers looks for a signal."""
GONE_S = 2.0
"""How long a killed worker may take to be gone: one that waits for a disk cannot be killed."""
HANDING_ON_FAILED = 70
"""Exit code of a worker whose images do not get through; sysexits' EX_SOFTWARE."""
_SHARED_MEMORY = Path("/dev/shm")


def start_worker(_: int) -> None:
    """Make a process that reads images a quiet one, which ends where its images do not get through."""
    cv2.setNumThreads(0)  # OpenCV's own threads in every worker only fight for the same cores.
    # Sent to the whole process group, they ask the trainer to save and end; workers end with the trainer.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    # Else the queue prints a traceback and goes on, and the trainer waits for ever for what could not be sent.
    queues.Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]


def watched(loader: DataLoader[Any], stopped: Callable[[], bool] = lambda: False) -> Generator[Any]:
    """Return what a loader's workers read; whatever becomes of them, they are gone when this ends.

    Args:
        loader: made with `start_worker`, and with POLL_S as its timeout where it has workers.
        stopped: asked while nothing comes; true ends the iteration.

    Raises:
        TrainingError: a worker died, or could not hand on what it had read.
    """
    iterator = _started(loader)
    workers = list(getattr(iterator, "_workers", ()))
    try:
        while True:
            try:
                item = next(iterator)
            except StopIteration:
                return
            except RuntimeError as error:
                if not workers or str(error).startswith("Caught"):  # a fault of the reading itself
                    raise
                if "timed out" not in str(error):
                    raise _told(error, workers) from error
                if stopped():
                    return
                continue
            yield item
    finally:
        if workers:
            iterator._shutdown_workers()
        for worker in workers:  # those that hang
            worker.kill()
            worker.join(GONE_S)


def _end_worker(error: Exception, item: object) -> None:
    os._exit(HANDING_ON_FAILED)


def _started(loader: DataLoader[Any]) -> Any:
    """Start the workers without torch's own handler of their deaths, which raises wherever the program is."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    if in_main_thread:
        signal.signal(signal.SIGCHLD, before)
    return iterator


def _told(error: RuntimeError, workers: Sequence[Any]) -> TrainingError:
    ends = [worker.exitcode for worker in workers if worker.exitcode]
    if not ends:
        got = str(error).partition(". ")[0].rstrip(".")
    elif ends[0] < 0:
        got = f"one that {signal.Signals(-ends[0]).name} ended"
    elif ends[0] == HANDING_ON_FAILED:
        got = "one that could not hand on what it had read"
    else:
        got = f"one that ended with exit code {ends[0]}"
    if _SHARED_MEMORY.is_dir():
        got += f", with {shutil.disk_usage(_SHARED_MEMORY).free / 2**20:.0f} MiB of shared memory free"
    do = "give the container more memory (shared: docker run --shm-size=8g), or read without workers: --set workers=0"
    return TrainingError("workers", expected="processes that read images to the end", got=got, do=do)
