from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path

import pytest

from mdpose_edge.common.sole import sole_writer
from mdpose_edge.errors import OutputError


def test_a_folder_has_one_writer_and_then_another(tmp_path: Path) -> None:
    with sole_writer(tmp_path):
        told = f"^{tmp_path}: expected a folder of this run's own, got another run's; wait for its end"
        with pytest.raises(OutputError, match=told), sole_writer(tmp_path):
            pass
        with pytest.raises(OutputError, match=told), sole_writer(tmp_path):  # a refusal lets nobody in
            pass
    with sole_writer(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


def test_a_worker_that_outlives_its_run_keeps_nobody_out(tmp_path: Path) -> None:
    has_begun, begins = os.pipe()
    with sole_writer(tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python's own about forks beside threads
            worker = os.fork()
        if not worker:
            os.write(begins, b".")
            signal.pause()
        os.read(has_begun, 1)
    try:
        with sole_writer(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        os.close(has_begun)
        os.close(begins)
