"""Images a second of decoding and augmentation on one core, against the same steps taken one by one.

    python benchmarks/pipeline.py [DATA] [--scene 640 480] [--sizes 736 320] [--json FILE]

DATA is a folder in COCO's layout; without it, scenes are drawn. Three implementations see the same bytes
and the same draws, in turns, on one thread:

`fused` is the package's: the file decoded no finer than the view needs, then one affine warp.
`steps` decodes the whole file and takes the paper's steps in the paper's order (rotate, expand, crop, flip, resize),
each a call of OpenCV on uint8.
`float` takes the same steps on float32 and ends with a normalised (3, H, W) array, as training code commonly does; the
package normalises in the network, on the accelerator.

Which is faster rests on the ratios within rounds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.bench.statistics import MIN_ROUNDS, compare, fastest_tenth, ratio_text
from mdpose_edge.common.files import write_whole
from mdpose_edge.datasets.coco import load_split
from mdpose_edge.datasets.images import decode_image
from mdpose_edge.spec import InputSpec
from mdpose_edge.synth import write_dataset
from mdpose_edge.train.augment import Steps, compose, random_steps, reduction, warp_image
from mdpose_edge.train.config import AugmentConfig


@dataclass(frozen=True)
class Job:
    """One image to decode and augment."""

    data: bytes
    size_wh: tuple[int, int]
    steps: Steps


def fused(job: Job, spec: InputSpec) -> NDArray[Any]:
    """Decode and augment as the package does."""
    view = compose(job.steps, spec)
    shrink = reduction(view, job.size_wh)
    return warp_image(decode_image(job.data, "job", orient=False, shrink=shrink), view, spec, shrink)


def stepwise(job: Job, spec: InputSpec) -> NDArray[Any]:
    """Decode the whole file and take the steps one by one on uint8."""
    return take_steps(decode_image(job.data, "job", orient=False), job.steps, spec)


def stepwise_float(job: Job, spec: InputSpec) -> NDArray[Any]:
    """Take the steps on float32, then normalise and put the channels first."""
    image = take_steps(decode_image(job.data, "job", orient=False).astype(np.float32), job.steps, spec)
    image = (image - np.float32(spec.mean)) / np.float32(spec.std)
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def take_steps(image: NDArray[Any], steps: Steps, spec: InputSpec) -> NDArray[Any]:
    """Rotate, expand, crop, flip and resize, in this order; positions are rounded to whole pixels."""
    height, width = image.shape[:2]
    fill = cv2.mean(image)[:3]
    if not np.array_equal(steps.rotation, np.eye(3)):
        matrix = steps.rotation.copy()
        matrix[:2, 2] += (matrix[:2, :2] @ (0.5, 0.5)) - 0.5  # OpenCV counts from pixel centres
        image = cv2.warpAffine(image, matrix[:2], (width, height), flags=cv2.INTER_LINEAR, borderValue=fill)
    left, top, canvas_w, canvas_h = (round(side) for side in steps.canvas)
    if (canvas_w, canvas_h) != (width, height):
        borders = (-top, canvas_h - height + top, -left, canvas_w - width + left)
        image = cv2.copyMakeBorder(image, *borders, borderType=cv2.BORDER_CONSTANT, value=fill)
    x, y, crop_w, crop_h = (round(side) for side in steps.crop)
    image = image[y - top : y - top + crop_h, x - left : x - left + crop_w]
    if steps.flipped:
        image = cv2.flip(image, 1)
    return np.asarray(cv2.resize(image, (spec.width, spec.height), interpolation=cv2.INTER_LINEAR))


IMPLEMENTATIONS: dict[str, Callable[[Job, InputSpec], NDArray[Any]]] = {
    "fused": fused,
    "steps": stepwise,
    "float": stepwise_float,
}


def make_jobs(data: Path, split: str, count: int) -> list[Job]:
    """Read the first images with people, and draw a view of each by the paper's probabilities."""
    annotated = load_split(data, split)
    jobs = []
    for index, image in enumerate(annotated.images):
        people = annotated.persons(index)
        if len(people) and len(jobs) < count:
            centers = people.boxes_xywh[:, :2] + people.boxes_xywh[:, 2:] / 2
            size_wh = (image.width, image.height)
            steps = random_steps(np.random.default_rng(index), size_wh, centers, AugmentConfig())
            jobs.append(Job(image.path.read_bytes(), size_wh, steps))
    return jobs


def measure(jobs: list[Job], spec: InputSpec, repeats: int) -> dict[str, Any]:
    """Run every implementation once a round, by turns; what counts is the processor's time."""
    seconds: dict[str, list[float]] = {name: [] for name in IMPLEMENTATIONS}
    for _ in range(repeats):
        for name, implementation in IMPLEMENTATIONS.items():
            start = time.process_time()
            for job in jobs:
                implementation(job, spec)
            seconds[name].append((time.process_time() - start) / len(jobs))
    times = {name: np.array(values) for name, values in seconds.items()}
    views = [compose(job.steps, spec) for job in jobs]
    shrunk = [reduction(view, job.size_wh) > 1 for view, job in zip(views, jobs, strict=True)]
    gaps = [np.abs(fused(job, spec).astype(int) - stepwise(job, spec)).mean() for job in jobs]
    return {
        "images_per_s": {name: 1 / fastest_tenth(values) for name, values in times.items()},
        "median_images_per_s": {name: 1 / float(np.median(values)) for name, values in times.items()},
        "speedup_over_steps": compare(times["steps"], times["fused"]),
        "speedup_over_float": compare(times["float"], times["fused"]),
        "decoded_at_reduced_size": float(np.mean(shrunk)),
        "difference_to_steps_grey_levels": {"median": float(np.median(gaps)), "most": float(np.max(gaps))},
    }


def main() -> None:
    """Measure each input size, print a table, write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--split", default="train")
    parser.add_argument("--sizes", type=int, nargs="+", default=[736, 320])
    parser.add_argument("--scene", type=int, nargs=2, default=(640, 480), help="width and height of drawn scenes")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7, help=f"rounds, {MIN_ROUNDS} at least")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = args.data or Path(folder) / "synth"
        if args.data is None:
            write_dataset(data, train_images=args.images, val_images=0, size=tuple(args.scene))
        jobs = make_jobs(data, args.split, args.images)
    figures = {str(size): measure(jobs, InputSpec(size, size), args.repeats) for size in args.sizes}
    size_kb = np.mean([len(job.data) for job in jobs]) / 1e3
    print(f"{len(jobs)} images, {size_kb:.0f} kB on average; images/s on one core")
    for size, row in figures.items():
        rates = ", ".join(f"{name} {rate:.0f}" for name, rate in row["images_per_s"].items())
        gap = row["difference_to_steps_grey_levels"]
        print(
            f"{size} px, fastest tenth: {rates}\n"
            f"  steps over fused: {ratio_text(row['speedup_over_steps'])}\n"
            f"  float over fused: {ratio_text(row['speedup_over_float'])}\n"
            f"  {row['decoded_at_reduced_size']:.0%} decoded at reduced size; "
            f"difference {gap['median']:.1f} grey levels, at most {gap['most']:.1f}"
        )
    if args.json:
        report = {
            "images": len(jobs),
            "source": str(args.data or "synth {}x{}".format(*args.scene)),
            "threads": 1,
            "sizes": figures,
        }
        write_whole(args.json, (json.dumps(report, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
