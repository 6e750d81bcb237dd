"""How well `--track` keeps identities on synth video, beside the plain way: the most similar pose of the frame before.

    mdpose-edge synth video VIDEO --seconds 20 --people 6
    python -m benchmarks.track VIDEO... [--every 2] [--model BUNDLE] [--json FILE]

Several videos give mean and range; --every 2 sees every second frame only: half the frame rate. With --model the poses
are that model's. Without, they are the truth with Laplace noise of a sigma that is told to the tracker, wrong now and
then; people of whom little is seen are missed, and some poses are nobody's.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.track_metrics import TruthFrame, score_tracks
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.poses import Poses
from mdpose_edge.spec import COCO_KEYPOINTS
from mdpose_edge.track.assignment import assign
from mdpose_edge.track.tracker import PoseTracker

SIGMA_SHARE = (0.01, 0.05)
"""Of the noise's Laplace scale, drawn for each keypoint and frame: parts of the root of the person's area."""
MISSED, HIDDEN_MISSED, FALSE = 0.02, 0.8, 0.02
"""Chances: that a person is missed, that one with most keypoints hidden is, that a pose is nobody's in a frame."""


def load_truth(folder: Path, every: int = 1) -> tuple[list[TruthFrame], list[float], list[Path]]:
    """Read what `mdpose-edge synth video` wrote: the people, time and picture of each frame, or of one in `every`."""
    document = json.loads((folder / "annotations" / "person_keypoints_val2017.json").read_text())
    images = document["images"][::every]
    people: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in document["images"]}
    for annotation in document["annotations"]:
        people[annotation["image_id"]].append(annotation)
    frames = [
        TruthFrame(
            np.array([a["track_id"] for a in people[image["id"]]], np.int64),
            np.array([a["keypoints"] for a in people[image["id"]]], float).reshape(-1, 17, 3),
            np.array([a["area"] for a in people[image["id"]]], float),
        )
        for image in images
    ]
    return frames, [image["time_s"] for image in images], [folder / "val2017" / i["file_name"] for i in images]


def noisy_poses(truth: list[TruthFrame], rng: np.random.Generator, flaws: bool = True) -> Iterator[Poses]:
    """Draw what a model whose sigma is right would see."""
    for frame in truth:
        hidden = (frame.keypoints[:, :, 2] < 2).mean(axis=1) > 0.6
        chance = np.where(hidden, HIDDEN_MISSED, MISSED) * flaws
        seen = (rng.random(len(frame.ids)) >= chance) & (frame.keypoints[:, :, 2] > 0).all(axis=1)
        points, areas = frame.keypoints[seen, :, :2], frame.areas[seen]
        scale = np.sqrt(areas)[:, None, None] * rng.uniform(*SIGMA_SHARE, (len(points), 17, 2))
        found = points + rng.laplace(0, 1, points.shape) * scale
        scores = rng.uniform(0.5, 0.95, len(points))
        if flaws and len(points) and rng.random() < FALSE:
            other = int(rng.integers(len(points)))
            found = np.concatenate([found, points[other : other + 1] + rng.normal(0, 80, (1, 1, 2))])
            scale, scores = np.concatenate([scale, scale[other : other + 1]]), np.append(scores, 0.4)
        order = np.argsort(-scores, kind="stable")
        yield Poses(*(array[order].astype(np.float32) for array in (found, scores, scale)))


class Nearest:
    """The plain way: each pose takes the id of the most similar one of the frame before, all decided together."""

    def __init__(self) -> None:
        self._ids, self._points, self._next = np.zeros(0, np.int64), np.zeros((0, 17, 2)), 1
        self._kappa_squared = (2 * np.asarray(COCO_KEYPOINTS.sigmas)) ** 2

    def update(self, poses: Poses, time_s: float) -> tuple[Poses, np.ndarray]:
        """Give the poses as they are, and who each is."""
        points = poses.keypoints_xy.astype(float)
        area = np.prod(np.ptp(self._points, axis=1), axis=1) if len(self._points) else np.zeros(0)
        squared = ((self._points[:, None] - points[None]) ** 2).sum(axis=3)
        similar = np.exp(-squared / (2 * np.maximum(area, 1)[:, None, None] * self._kappa_squared)).mean(axis=2)
        ids = np.zeros(len(points), np.int64)
        for before, now in assign(similar, 0.2):
            ids[now] = self._ids[before]
        new = np.flatnonzero(ids == 0)
        ids[new] = self._next + np.arange(len(new))
        self._next += len(new)
        self._ids, self._points = ids, points
        return poses, ids


def model_poses(pictures: list[Path], model: Path, threads: int | None) -> list[Poses]:
    """Find the poses in each picture."""
    with PoseEstimator(model, threads=threads, threshold=0.2) as estimator:
        return [estimator(cv2.imread(str(picture))) for picture in pictures]


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Follow everybody in one video, in both ways."""
    truth, times, pictures = load_truth(folder, options.every)
    if options.model is None:
        poses = list(noisy_poses(truth, np.random.default_rng(options.seed)))
    else:
        poses = model_poses(pictures, options.model, options.threads)
    record: dict[str, Any] = {"video": str(folder), "frames": len(truth)}
    for name, tracker in (("nearest", Nearest()), ("--track", PoseTracker(COCO_KEYPOINTS.sigmas))):
        tracked = [tracker.update(found, time_s) for found, time_s in zip(poses, times, strict=True)]
        scores = score_tracks(truth, [(ids, p.keypoints_xy.astype(float)) for p, ids in tracked], COCO_KEYPOINTS.sigmas)
        record[name] = dataclasses.asdict(scores)
    return record


def parse_options(description: str | None) -> argparse.Namespace:
    """Read the options that this benchmark and smooth.py have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    """Follow everybody in every video, and print how well."""
    options = parse_options(__doc__)
    records = [measure(folder, options) for folder in options.videos]
    print(f"{'':32}" + "".join(f"{key:>14}" for key in ("MOTA", "IDF1", "switches", "misses", "false", "people")))
    for record in records:
        for name in ("nearest", "--track"):
            print(f"{Path(record['video']).name:20}{name:12}" + "".join(f"{v:14.4g}" for v in record[name].values()))
    for name in ("nearest", "--track"):
        columns = zip(*(record[name].values() for record in records), strict=True)
        ranges = [f"{np.mean(c):.3g} ({min(c):.3g}-{max(c):.3g})" for c in columns]
        print(f"{'mean (range)':20}{name:12}" + "  ".join(ranges))
    if options.json:
        record = {"model": str(options.model or "truth with noise"), "every": options.every, "videos": records}
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
