"""What every test runs under: few threads, no network, repeatable examples."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import cv2
import pytest
from hypothesis import settings

from tests.artifacts import Artifacts
from tests.skips import pytest_terminal_summary

__all__ = ["pytest_terminal_summary"]

# Read by OpenMP (torch, onnxruntime) and the Hugging Face hub when they are first imported, here or in a child process.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
cv2.setNumThreads(1)

# Wall-clock deadlines fail at random on a loaded machine; CI draws the same examples every time.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

REPOSITORY = Path(__file__).resolve().parents[1]
POWERLESS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
"""Takes root's right to write where it may not; other users never had it."""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real data (coco-mini/, reference/), or a skip that names what is absent.

    It lies under $MDPOSE_SHARED, else under shared/ beside the checkout, in data/.
    """
    root = Path(os.environ.get("MDPOSE_SHARED", REPOSITORY.parent / "shared"))
    data = root / "data"
    if not data.is_dir():
        pytest.skip("no shared real data: set MDPOSE_SHARED to the folder that holds data/coco-mini and data/reference")
    return data


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """One random network as checkpoint and as bundles, each made when first asked for."""
    return Artifacts(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture
def powerless() -> list[str]:
    """What a command begins with so that it may not write where others' rights forbid it."""
    if os.geteuid():
        return []
    if shutil.which("setpriv") is None or subprocess.run([*POWERLESS, "true"], capture_output=True).returncode:
        pytest.skip("root may write anywhere, and no setpriv (util-linux) takes that right from it")
    return POWERLESS
