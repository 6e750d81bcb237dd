"""The process that startup.py starts and times: one frame's poses from nothing, and then a few more.

    python -m mdpose_edge.bench.first_pose START MODEL FRAME.npy RUNTIME THREADS

START is the monotonic clock when the process was started; RUNTIME and THREADS may be empty.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise

CALLS = 10
"""Engines allocate until they have seen a few frames; after these the peak of memory is read."""
STEPS = ("import_s", "frame_s", "verify_s", "open_s", "first_s")


def main() -> None:
    """Do what a device program does first, and print how long each step took as JSON."""
    from mdpose_edge.estimator import PoseEstimator

    start, model, frame_file, runtime, threads = sys.argv[1:]
    marks = [float(start), time.monotonic()]
    import numpy as np

    from mdpose_edge.machine.host import peak_memory_mb
    from mdpose_edge.runtimes.registry import read_model_spec

    frame = np.load(frame_file)
    marks.append(time.monotonic())
    read_model_spec(model)
    marks.append(time.monotonic())
    with PoseEstimator(model, runtime=runtime or None, threads=int(threads) if threads else None) as estimator:
        marks.append(time.monotonic())
        estimator(frame)
        marks.append(time.monotonic())
        for _ in range(CALLS - 1):
            estimator(frame)
        peak = peak_memory_mb()
    steps = dict(zip(STEPS, (after - before for before, after in pairwise(marks)), strict=True))
    print(json.dumps({**steps, "peak_memory_mb": peak}))


if __name__ == "__main__":
    main()
