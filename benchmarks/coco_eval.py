"""Compare faster-coco-eval with pycocotools, the reference implementation of COCO's protocol.

Both read the same synthetic ground truth and results: people of every size, crowds, people without keypoints, images
without people, results that are near, far, doubled, missing, tied in score, and more than 20 per image.

    python benchmarks/coco_eval.py [--images 2000] [--repeats 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import faster_coco_eval
import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mdpose_edge.bench.statistics import MIN_ROUNDS, compare, fastest_tenth
from mdpose_edge.datasets.coco import PERSON_CATEGORY_ID
from mdpose_edge.evaluate import FIGURES
from mdpose_edge.spec import COCO_KEYPOINTS

TOLERANCE = 1e-6
"""How far two implementations of one protocol may differ in any of the ten figures."""

Json = dict[str, Any]


def make_ground_truth(num_images: int, rng: np.random.Generator) -> Json:
    """Draw people at random: their sides spread over 10 to 500 px, so that every range of areas is met."""
    annotations: list[Json] = []
    for image_id in range(1, num_images + 1):
        for _ in range(rng.choice([0, 1, 2, 3, 5, 25], p=[0.1, 0.35, 0.25, 0.15, 0.13, 0.02])):
            side = float(np.exp(rng.uniform(np.log(10), np.log(500))))
            corner = rng.uniform(0, 640, 2)
            xy = corner + rng.uniform(0, side, (17, 2))
            crowd, nobody_labelled = rng.random() < 0.03, rng.random() < 0.1
            v = np.zeros(17) if crowd or nobody_labelled else rng.choice([0, 1, 2], 17, p=[0.3, 0.1, 0.6])
            keypoints = np.where(v[:, None] > 0, np.column_stack([xy, v]), 0).round(1)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": PERSON_CATEGORY_ID,
                    "keypoints": keypoints.ravel().tolist(),
                    "num_keypoints": int((v > 0).sum()),
                    "bbox": [*corner.tolist(), side, side],
                    "area": side * side * rng.uniform(0.3, 0.7),
                    "iscrowd": int(crowd),
                }
            )
    category = {"id": PERSON_CATEGORY_ID, "name": "person", "keypoints": list(COCO_KEYPOINTS.names)}
    images = [{"id": i, "width": 640, "height": 640} for i in range(1, num_images + 1)]
    return {"images": images, "annotations": annotations, "categories": [category]}


def make_results(ground_truth: Json, rng: np.random.Generator) -> list[Json]:
    """Perturb the people, leave some out, double some, and add people who are not there."""
    results: list[Json] = []

    def add(image_id: int, xy: Any, score: float) -> None:
        keypoints = np.column_stack([xy, np.ones(17)]).ravel().tolist()
        # Two decimals make ties, whose order must not depend on the implementation.
        row = {"image_id": image_id, "category_id": PERSON_CATEGORY_ID, "keypoints": keypoints}
        results.append({**row, "score": round(float(score), 2)})

    for person in ground_truth["annotations"]:
        xy = np.array(person["keypoints"]).reshape(17, 3)[:, :2]
        hidden = xy.sum(axis=1) == 0
        xy[hidden] = np.array(person["bbox"][:2]) + rng.uniform(0, person["bbox"][2], (int(hidden.sum()), 2))
        for _ in range(rng.choice([0, 1, 2], p=[0.2, 0.7, 0.1])):
            noise = rng.choice([0.0, 0.01, 0.03, 0.1, 0.3]) * person["bbox"][2]
            add(person["image_id"], xy + rng.normal(0, noise, (17, 2)), rng.beta(4, 2))
    for image in ground_truth["images"]:
        for _ in range(rng.choice([0, 1, 3, 30], p=[0.5, 0.3, 0.19, 0.01])):
            add(image["id"], rng.uniform(0, 640, 2) + rng.uniform(0, 200, (17, 2)), rng.beta(2, 4))
    return results


def reference_figures(ground_truth: Json, results: list[Json]) -> list[float]:
    """Compute the ten figures with pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = ground_truth
        truth.createIndex()
        protocol = COCOeval(truth, truth.loadRes(results), "keypoints")
        protocol.evaluate()
        protocol.accumulate()
        protocol.summarize()
    return [float(value) for value in protocol.stats]


def faster_figures(ground_truth: Json, results: list[Json]) -> list[float]:
    """Compute the ten figures with faster-coco-eval."""
    truth = faster_coco_eval.COCO(ground_truth)
    protocol = faster_coco_eval.COCOeval_faster(truth, truth.loadRes(results), iouType="keypoints")
    protocol.evaluate()
    protocol.accumulate()
    protocol.summarize()
    return [float(value) for value in protocol.stats]


def timed(
    figures_of: Callable[[Json, list[Json]], list[float]], ground_truth: Json, results: list[Json]
) -> tuple[list[float], float]:
    """Give the figures and the seconds; each run gets copies, as both libraries write into their input."""
    own_truth, own_results = copy.deepcopy(ground_truth), copy.deepcopy(results)
    start = time.perf_counter()
    figures = figures_of(own_truth, own_results)
    return figures, time.perf_counter() - start


def summary(library: str, figures: list[float], seconds: NDArray[np.float64]) -> Json:
    """Name what was measured."""
    times = {"fastest_tenth_s": fastest_tenth(seconds), "median_s": float(np.median(seconds))}
    return {"version": version(library), **times, **dict(zip(FIGURES, figures, strict=True))}


def main() -> int:
    """Run the comparison; the exit code is 1 where the figures differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=7, help=f"rounds, {MIN_ROUNDS} at least for a speed-up")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    ground_truth = make_ground_truth(args.images, rng)
    results = make_results(ground_truth, rng)
    rounds = [
        (timed(reference_figures, ground_truth, results), timed(faster_figures, ground_truth, results))
        for _ in range(args.repeats)
    ]
    (reference, _), (faster, _) = rounds[0]
    reference_s, faster_s = (np.array([pair[side][1] for pair in rounds]) for side in (0, 1))
    difference = max(abs(a - b) for a, b in zip(reference, faster, strict=True))
    report = {
        "images": args.images,
        "people": len(ground_truth["annotations"]),
        "results": len(results),
        "pycocotools": summary("pycocotools", reference, reference_s),
        "faster-coco-eval": summary("faster-coco-eval", faster, faster_s),
        "largest_difference": difference,
        "speedup": compare(reference_s, faster_s) if args.repeats >= MIN_ROUNDS else None,
    }
    print(json.dumps(report, indent=2))
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return int(difference > TOLERANCE)


if __name__ == "__main__":
    raise SystemExit(main())
