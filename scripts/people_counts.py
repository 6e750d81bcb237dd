"""Say how well a model counts people, and what it finds where nobody is.

    python scripts/people_counts.py people path/to/coco

prints, of the val split: how far the expected number of people (the sum of o over all cells) is from those annotated;
of pictures without people, the best score and how many poses score above a threshold; of poses by score, the share
that is a person by OKS.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.datasets.coco import CocoSplit, load_split
from mdpose_edge.datasets.images import read_image
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.families.registry import evaluation_of
from mdpose_edge.poses import Poses
from mdpose_edge.runtimes.registry import read_model_spec

MATCH_OKS = 0.5
BINS = (0.05, 0.2, 0.4, 0.6, 0.8, 1.0)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    args = parser.parse_args()
    split = load_split(args.data, "val")
    decode = evaluation_of(read_model_spec(args.model))
    with PoseEstimator(args.model, decode=decode) as estimator:
        sigmas = np.asarray(estimator.spec.keypoints.sigmas)
        threshold = estimator.spec.decode.score_threshold
        found = [_look(estimator, split, row) for row in range(len(split.images))]
    annotated = np.array([(~split.persons(row).iscrowd).sum() for row in range(len(found))])
    counted = np.array([not split.persons(row).iscrowd.any() for row in range(len(found))])
    expected = np.array([number for number, _ in found])
    error = np.abs(expected - annotated)[counted]
    print(f"count: {counted.sum()} pictures, {annotated[counted].sum()} people, {expected[counted].sum():.0f} expected")
    print(f"mean absolute error {error.mean():.2f}; {np.mean(error[annotated[counted] <= 1]):.2f} where 0 or 1 are")
    _print_empty([poses for (_, poses), number in zip(found, annotated, strict=True) if number == 0], threshold)
    _print_bins([_matched(split, row, poses, sigmas) for row, (_, poses) in enumerate(found)])


def _look(estimator: PoseEstimator, split: CocoSplit, row: int) -> tuple[float, Poses]:
    frame = read_image(split.images[row].path, orient=False)
    images = estimator.make_images()
    geometry = estimator.preprocess(frame, images[0])
    heads = estimator.infer(images, out={})
    raw = np.concatenate([heads[name].ravel() for name in heads if name.startswith("o_")]).astype(np.float64)
    return float(np.exp(-np.logaddexp(0, -raw)).sum()), estimator.decode(heads, geometry)


def _matched(split: CocoSplit, row: int, poses: Poses, sigmas: NDArray[np.float64]) -> list[tuple[float, bool]]:
    """Return score and truth of each pose. Those near a person without keypoints are left out (COCO)."""
    persons = split.persons(row)
    labelled = (persons.num_keypoints > 0) & ~persons.iscrowd
    free, rows = set(np.flatnonzero(labelled).tolist()), []
    for keypoints, score in zip(poses.keypoints_xy, poses.scores, strict=True):
        oks = {person: _oks(keypoints, persons.keypoints[person], persons.areas[person], sigmas) for person in free}
        best = max(oks, key=lambda person: oks[person], default=None)
        if best is not None and oks[best] >= MATCH_OKS:
            free.remove(best)
            rows.append((float(score), True))
        elif not any(_inside(keypoints, box) for box in persons.boxes_xywh[~labelled]):
            rows.append((float(score), False))
    return rows


def _oks(found: NDArray[np.float32], truth: NDArray[np.float32], area: float, sigmas: NDArray[np.float64]) -> float:
    seen = truth[:, 2] > 0
    squared = ((found - truth[:, :2]) ** 2).sum(axis=1)
    return float(np.exp(-squared / (2 * area * (2 * sigmas) ** 2 + 1e-9))[seen].mean())


def _inside(keypoints: NDArray[np.float32], box: NDArray[np.float32]) -> bool:
    x, y = keypoints.mean(axis=0)
    return bool(box[0] <= x <= box[0] + box[2] and box[1] <= y <= box[1] + box[3])


def _print_empty(empty: list[Poses], threshold: float) -> None:
    if not empty:
        print("pictures without people: none")
        return
    best = np.array([poses.scores.max(initial=0) for poses in empty])
    alarms = sum(int((poses.scores > threshold).sum()) for poses in empty)
    print(
        f"pictures without people: {len(empty)}, best score {np.median(best):.2f} in the median, {best.max():.2f} at "
        f"most; {alarms / len(empty):.2f} poses above {threshold} a picture"
    )


def _print_bins(matches: list[list[tuple[float, bool]]]) -> None:
    scores, true = np.array([match for rows in matches for match in rows] or np.empty((0, 2))).T
    for low, high in pairwise(BINS):
        chosen = (scores > low) & (scores <= high)
        if chosen.any():
            share = true[chosen].mean()
            print(f"scores {low}-{high}: {chosen.sum()} poses, mean {scores[chosen].mean():.2f}, {share:.2f} people")


if __name__ == "__main__":
    main()
