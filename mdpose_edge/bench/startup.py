"""From nothing to the first pose, and the memory that it takes: measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.bench.session import Variant
from mdpose_edge.errors import EngineError

TIMEOUT_S = 600


def measure_startup(variant: Variant, frame_bgr: NDArray[np.uint8]) -> dict[str, Any]:
    """Start a process that imports mdpose_edge, opens the variant and finds the poses in a frame.

    Returns:
        Seconds: "import" (from the start of Python until PoseEstimator is there), "verify" (reading and hashing the
        artifact), "engine" (importing the engine and loading the graph), "first_pose" (frame to poses),
        "own" (all of these but "engine": what is this package's to answer for); and "peak_memory_mb".

    Raises:
        EngineError: the process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        frame_file = Path(folder) / "frame.npy"
        np.save(frame_file, frame_bgr)
        options = [variant.runtime or "", str(variant.threads or "")]
        command = [sys.executable, "-m", "mdpose_edge.bench.first_pose", repr(time.monotonic())]
        done = subprocess.run(
            [*command, str(variant.model), str(frame_file), *options],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    if done.returncode:
        got = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise EngineError(str(variant.model), expected="a process that finds poses", got=got, do="run infer on it")
    found = json.loads(done.stdout)
    engine_s = max(0.0, found["open_s"] - found["verify_s"])  # opening verifies once more
    return {
        "import": found["import_s"],
        "verify": found["verify_s"],
        "engine": engine_s,
        "first_pose": found["first_s"],
        "own": found["import_s"] + found["verify_s"] + found["first_s"],
        "peak_memory_mb": found["peak_memory_mb"],
    }
