"""Damaged inputs, harmless changes and full disks: a few in every run of the tests, all in the long ones."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.package import REPOSITORY
from tests.campaign.disk import disk

pytest.importorskip("torch")
pytest.importorskip("openvino")
pytest.importorskip("nncf")
pytest.importorskip("av")

A_THOUSAND = 1000


def run_campaign(work: Path, *options: object, timeout_s: float, of: str = "run") -> None:
    """Run it in a process of its own: one that forks may never have opened an engine."""
    words = [sys.executable, "-m", f"tests.campaign.{of}", "--work", work / "campaign", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    run = subprocess.run(
        [*map(str, words)], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=timeout_s
    )
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_few_bad_inputs_end_in_one_sentence(tmp_path: Path) -> None:
    run_campaign(tmp_path, "--shuffled", "--seconds", "8", timeout_s=240)


def test_a_few_changes_that_mean_nothing_change_nothing(tmp_path: Path) -> None:
    run_campaign(tmp_path, "--count", 2, of="harmless", timeout_s=240)


@pytest.fixture
def mounting(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    try:
        with disk(tmp_path / "disk", mmap.PAGESIZE):
            pass
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk of a page can be mounted, as root may")


@pytest.mark.usefixtures("mounting")
def test_a_full_disk_leaves_a_sentence_and_no_half(tmp_path: Path) -> None:
    run_campaign(tmp_path, "--count", 2, of="full_disk", timeout_s=240)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("mounting")
def test_a_full_disk_under_every_command_leaves_a_sentence_and_no_half(tmp_path: Path) -> None:
    run_campaign(tmp_path, of="full_disk", timeout_s=3500)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_changes_that_mean_nothing_change_nothing(tmp_path: Path) -> None:
    run_campaign(tmp_path, of="harmless", timeout_s=3500)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_thousand_bad_inputs_end_in_one_sentence(tmp_path: Path) -> None:
    run_campaign(tmp_path, "--count", A_THOUSAND, timeout_s=3500)
