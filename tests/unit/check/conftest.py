from __future__ import annotations

from pathlib import Path

import pytest

from tests.artifacts import Artifacts
from tests.unit.check.faults import write_data


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three different pictures in COCO's layout."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def bundle(artifacts: Artifacts) -> Path:
    """The reference: read-only."""
    pytest.importorskip("faster_coco_eval")
    return artifacts.bundle("onnx")
