"""The command line away from home: another locale, folders that nobody may write, callers with threads and loops."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge import PoseEstimator
from mdpose_edge.datasets.images import write_image
from mdpose_edge.poses import Poses
from tests.architecture.package import REPOSITORY
from tests.artifacts import Artifacts


def away(folder: Path, *words: object, before: list[str] | None = None, **variables: str) -> tuple[int, str, str]:
    """Run the command line in a folder with other environment variables."""
    command = [*(before or []), sys.executable, "-m", "mdpose_edge", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1", **variables}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=120)
    return done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr)


def test_names_outlive_a_locale_that_is_not_utf8(artifacts: Artifacts, tmp_path: Path) -> None:
    name = "stra\u00dfe-\u4eba.png"
    write_image(tmp_path / name, noise(0))
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = [
        "--jsonl",
        "a.jsonl",
        "--csv",
        "a.csv",
        "--coco",
        "a.json",
        "--json",
        "s-\u00e9.json",
        "--out",
        "gr\u00fcn",
    ]
    code, _, error = away(tmp_path, "infer", artifacts.bundle("onnx"), name, *words, **locale)
    assert code == 0, error
    assert json.loads((tmp_path / "a.jsonl").read_text("utf-8"))["source"] == name
    assert name in (tmp_path / "a.csv").read_text("utf-8")
    assert json.loads((tmp_path / "a.images.json").read_text("utf-8"))["images"][0]["file_name"] == name
    assert json.loads((tmp_path / "s-\u00e9.json").read_text("utf-8"))
    assert os.listdir(tmp_path / "gr\u00fcn") == [name]
    code, out, error = away(tmp_path, "infer", artifacts.bundle("onnx"), "\u00e9.png", "--jsonl", "-", **locale)
    assert (code, out) == (2, "") and len(error.splitlines()) == 1 and "no such file" in error


def test_nothing_but_the_outputs_needs_a_place_to_write(
    artifacts: Artifacts, tmp_path: Path, powerless: list[str]
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    write_image(here / "a.png", noise(0))
    here.chmod(0o555)
    bundle, home = artifacts.bundle("onnx"), {"HOME": str(here), "XDG_CACHE_HOME": str(here / ".cache")}
    code, out, error = away(here, "infer", bundle, "a.png", "--jsonl", elsewhere / "a.jsonl", before=powerless, **home)
    assert code == 0, error
    assert len((elsewhere / "a.jsonl").read_text().splitlines()) == 1
    for words in (["--jsonl", "a.jsonl"], ["--out", "painted"], ["--json", "a.json", "--csv", "deep/a.csv"]):
        code, out, error = away(here, "infer", bundle, "a.png", *words, before=powerless, **home)
        assert (code, out) == (2, "") and re.search("expected a place (for a|to write)", error.splitlines()[-1]), error
        assert "Traceback" not in error
    assert os.listdir(here) == ["a.png"]


def noise(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)


def same(a: Poses, b: Poses) -> bool:
    return np.array_equal(a.scores, b.scores) and np.array_equal(a.keypoints_xy, b.keypoints_xy)


@pytest.mark.parametrize("target", ["onnx", "openvino", "torch"])
def test_one_estimator_serves_eight_threads_and_an_event_loop(artifacts: Artifacts, target: str) -> None:
    frames = [noise(seed) for seed in range(24)]
    with PoseEstimator(artifacts.model(target), threads=1) as estimator:
        alone = [estimator(frame) for frame in frames]
        assert len({len(poses) for poses in alone}) > 1  # frames differ, so that a mix-up shows
        with ThreadPoolExecutor(8) as pool:
            assert all(map(same, pool.map(estimator, frames), alone))

            async def all_at_once() -> list[Poses]:
                loop = asyncio.get_running_loop()
                return await asyncio.gather(*(loop.run_in_executor(pool, estimator, frame) for frame in frames))

            assert all(map(same, asyncio.run(all_at_once()), alone))
