"""Optional packages: onnxruntime leaves nothing behind, and reports to nobody; OpenVINO's own switch is the user's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.artifacts import Artifacts

_RUN = """
import sys
import numpy as np
from mdpose_edge.estimator import PoseEstimator
with PoseEstimator(sys.argv[1], threads=1) as estimator:
    estimator(np.zeros((64, 64, 3), np.uint8))
"""


def test_a_run_leaves_nothing_at_home_and_no_temporary_file(artifacts: Artifacts, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    bundle = artifacts.bundle("onnx")
    folders = {"HOME": tmp_path / "home", "TMPDIR": tmp_path / "tmp"}
    for folder in folders.values():
        folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    environment |= {name: str(folder) for name, folder in folders.items()}
    subprocess.run([sys.executable, "-c", _RUN, str(bundle)], env=environment, check=True, timeout=120)
    assert [path for folder in folders.values() for path in folder.rglob("*")] == []
