"""Damaged inputs through every command: a few in every run of the tests, a thousand in the long one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.package import REPOSITORY

pytest.importorskip("torch")
pytest.importorskip("openvino")
pytest.importorskip("nncf")
pytest.importorskip("av")

A_THOUSAND = 1000


def run_campaign(work: Path, *options: object, timeout_s: float) -> None:
    """Run it in a process of its own: one that forks may never have opened an engine."""
    words = [sys.executable, "-m", "tests.campaign.run", "--work", work / "campaign", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    run = subprocess.run(
        [*map(str, words)], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=timeout_s
    )
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_few_bad_inputs_end_in_one_sentence(tmp_path: Path) -> None:
    run_campaign(tmp_path, "--shuffled", "--seconds", "8", timeout_s=240)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_thousand_bad_inputs_end_in_one_sentence(tmp_path: Path) -> None:
    run_campaign(tmp_path, "--count", A_THOUSAND, timeout_s=3500)
