from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge.triton.config import ServingOptions
from mdpose_edge.triton.repository import write_repository
from tests.artifacts import Artifacts

Tensors = Mapping[str, NDArray[Any]]
Answers = list[dict[str, NDArray[Any]]]
Serve = Callable[[Path, Sequence[Tensors]], Answers]

OPTIONS = ServingOptions(name="people", max_batch=4, queue_delay_us=500, instances=2)


@pytest.fixture(scope="session")
def repository(artifacts: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random network as a repository; treat it as read-only."""
    return write_repository(artifacts.bundle("onnx"), tmp_path_factory.mktemp("triton") / "repository", OPTIONS)


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Run a repository's model.py in an interpreter of its own, isolated from this checkout."""

    def run(model_folder: Path, requests: Sequence[Tensors]) -> Answers:
        files = tmp_path / "requests.npz", tmp_path / "answers.npz"
        keyed = {f"{i}/{name}": array for i, request in enumerate(requests) for name, array in request.items()}
        np.savez(files[0], **keyed)
        command = [sys.executable, "-I", Path(__file__).with_name("serve.py"), model_folder, *files]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if result.returncode:
            raise RuntimeError(result.stderr)
        assert Path(result.stdout.strip()) == model_folder / "1" / "mdpose_edge" / "__init__.py"
        answers: Answers = [{} for _ in requests]
        with np.load(files[1]) as arrays:
            for key, array in arrays.items():
                number, name = key.split("/")
                answers[int(number)][name] = array
        return answers

    return run
