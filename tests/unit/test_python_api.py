"""The examples of docs/python-api.md and docs/quickstart.md are run, in the order of the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.artifacts import Artifacts

DOCS = Path(__file__).parents[2] / "docs"


def examples(page: str) -> list[tuple[str, str]]:
    """Return each example with the heading above it."""
    parts = re.split(r"(?m)^## (.*)$", (DOCS / page).read_text(encoding="utf-8"))
    sections = zip(parts[1::2], parts[2::2], strict=True)
    return [(title, code) for title, text in sections for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]


@pytest.fixture
def names(artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Somewhere with the files that the examples name, and what they define for one another."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (5, 96, 128, 3), np.uint8)
    cv2.imwrite("photo.jpg", noise[0])
    writer = cv2.VideoWriter("video.avi", cv2.VideoWriter_fourcc(*"MJPG"), 10, (128, 96))
    for frame in noise:
        writer.write(frame)
    writer.release()
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "openvino").symlink_to(artifacts.bundle("openvino"))
    return {"__name__": "example"}


def run_examples(page: str, names: dict[str, Any], *, but: str = "") -> None:
    for title, code in examples(page):
        if title != but:
            exec(compile(code, f"{page}: {title}", "exec"), names)  # our own page


def test_the_examples_run(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run_examples("python-api.md", names, but="supervision")
    printed = capsys.readouterr().out
    assert "sides of at least 16 px | 4x4 | give a larger image" in printed
    assert re.search(r"\n4 0\.40 s \d+\n", printed)
    assert re.search(r"\d+ people in all\n\d+ frames per second", printed)
    assert len(names["found"]) == 6
    for other in names["found"]:
        np.testing.assert_array_equal(other.keypoints_xy, names["found"][0].keypoints_xy)
    assert names["painted"].shape == names["frame"].shape
    assert (names["painted"] != names["frame"]).any()


def test_the_conversion_to_supervision_runs(names: dict[str, Any]) -> None:
    pytest.importorskip("supervision")
    run_examples("python-api.md", names)
    poses, key_points = names["poses"], names["key_points"]
    assert len(poses) > 0
    np.testing.assert_array_equal(key_points.xy, poses.keypoints_xy)
    assert key_points.keypoint_confidence.shape == poses.keypoints_xy.shape[:2]
    assert (names["annotated"] != names["frame"]).any()


def test_the_quick_start_runs(names: dict[str, Any]) -> None:
    run_examples("quickstart.md", names)
    assert names["poses"].keypoints_xy.shape[1:] == (17, 2)
