"""The curve of accuracy over time: points that are there are passed over, and other conditions are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("openvino")
pytest.importorskip("nncf")

from benchmarks import pareto, yolo
from benchmarks.pareto import Point
from mdpose_edge.datasets.coco import load_split
from mdpose_edge.synth import write_dataset

TINY = [
    "--size", "64", "--scene", "96", "--visits", "32", "--train-images", "4", "--val-images", "2", "--rounds", "6",
]  # fmt: skip


def test_a_point_is_trained_measured_timed_and_drawn_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = {"backbone": "test_resnet", "channels": 8, "head_convs": 2}
    monkeypatch.setattr(pareto, "POINTS", (Point("a", network), Point("b", network), Point("yolo26n-pose")))
    pareto.main([str(tmp_path), "--only", "a", *TINY])
    before = (tmp_path / "points" / "a.json").stat().st_mtime_ns
    row = json.loads((tmp_path / "points" / "a.json").read_text())
    (tmp_path / "points" / "b.json").write_text(json.dumps(row))
    pareto.main([str(tmp_path), *TINY])
    assert (tmp_path / "points" / "a.json").stat().st_mtime_ns == before
    record = json.loads((tmp_path / "pareto.json").read_text())
    assert record["points"].keys() == record["timed"]["ms"].keys() == {"a", "b"}
    assert record["timed"]["ratios"].keys() == {"a / b", "b / a"}
    assert (tmp_path / "pareto.png").is_file()
    with pytest.raises(SystemExit, match="name another OUT"):
        pareto.main([str(tmp_path), *TINY, "--seed", "1"])
    with pytest.raises(SystemExit):
        pareto.main([str(tmp_path), *TINY, "--only", "yolo26n-pose"])
    assert "expected --ultralytics PYTHON for yolo26n-pose, got none" in capsys.readouterr().err


def test_plot_puts_the_better_higher_and_the_slower_further_right() -> None:
    rows = {"ours": {"ms": 1.0, "AP": 0.5}, "yolo": {"ms": 4.0, "AP": 0.1}}
    canvas = pareto.plot(rows)
    places = {}
    for name, colour in (("ours", (200, 110, 30)), ("yolo", (0, 140, 230))):
        ys, xs = np.nonzero((canvas == colour).all(axis=2))
        places[name] = xs.min(), np.median(ys)
    assert places["ours"][0] < places["yolo"][0] and places["ours"][1] < places["yolo"][1]


def test_labels_for_the_peer_are_shares_of_the_picture(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", train_images=1, val_images=2, size=(96, 64), seed=3, people=(1, 2))
    content = yolo.write_labels(tmp_path / "data", tmp_path / "yolo").read_text()
    assert "kpt_shape: [17, 3]" in content and f"flip_idx: {yolo.FLIPPED}" in content
    split = load_split(tmp_path / "data", "val")
    for index, image in enumerate(split.images):
        lines = (tmp_path / "yolo" / "labels" / "val" / f"{image.path.stem}.txt").read_text().splitlines()
        people = split.persons(index)
        assert len(lines) == len(people)
        for line, box, points in zip(lines, people.boxes_xywh, people.keypoints, strict=True):
            values = np.array(line.split(), float)
            assert len(values) == 5 + 3 * 17
            np.testing.assert_allclose(values[1:3] * image.wh, box[:2] + box[2:] / 2, atol=1e-2)
            seen = points[:, 2] > 0
            np.testing.assert_allclose(values[5:].reshape(17, 3)[seen, :2] * image.wh, points[seen, :2], atol=1e-2)
        assert (tmp_path / "yolo" / "images" / "val" / image.path.name).resolve() == image.path.resolve()
    assert [yolo.FLIPPED[k] for k in yolo.FLIPPED] == list(range(17)) and yolo.FLIPPED[1] == 2
