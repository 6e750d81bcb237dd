"""Lets the conformance suite run where there is no torch: its bundles are prepared, its reference is recorded.

    MDPOSE_PREPARED=FOLDER python -m pytest -p scripts.gpu.conformance_plugin --noconftest tests/conformance

with the checkout in PYTHONPATH.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge.poses import Poses
from scripts.gpu import layout
from tests.artifacts import Artifacts

Heads = dict[str, NDArray[np.float32]]


class PreparedArtifacts(Artifacts):
    """The artifacts that prepare.py wrote; what it did not write is skipped."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._heads = _read(directory / layout.RECORDED_HEADS)
        self._poses = _read(directory / layout.RECORDED_POSES)

    def of(self, family: str) -> Artifacts:
        if family != self._family:
            pytest.skip(f"{family} was not prepared")
        return self

    def checkpoint(self, batch: int = 1) -> Path:
        pytest.skip("a checkpoint is torch's")

    def bundle(self, target: str, precision: str = "fp32", batch: int = 1) -> Path:
        path = self._directory / f"{target}-{precision}-{batch}"
        if not path.is_dir():
            pytest.skip(f"{path.name} was not prepared")
        return path

    def reference(self) -> Callable[[NDArray[np.uint8]], Heads]:
        return lambda images: self._heads[layout.array_key(images.tobytes())]

    def reference_poses(self, frames: list[NDArray[np.uint8]]) -> list[Poses]:
        return [Poses(**self._poses[layout.array_key(frame.tobytes())]) for frame in frames]


@pytest.fixture(scope="session")
def artifacts() -> Artifacts:
    """Stand in for the fixture of tests/conftest.py."""
    return PreparedArtifacts(Path(os.environ["MDPOSE_PREPARED"]))


def _read(path: Path) -> dict[str, Heads]:
    found: dict[str, Heads] = {}
    with np.load(path) as arrays:
        for key, array in arrays.items():
            question, name = key.split("/")
            found.setdefault(question, {})[name] = array
    return found
