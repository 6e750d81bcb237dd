"""AP by overlap: how well are people found who stand in front of one another?

    python benchmarks/occlusion.py MODEL [--images 200] [--data DIR] [--json FILE]

Scenes of two to four people are drawn with synth's occlusion at 0, 1/3, 2/3 and 1, and measured by COCO's protocol. A
person's overlap is the largest IoU of its box with another person's; each row counts the people of one range of it, as
COCO counts people without labels: a pose on one of the others is neither right nor wrong. OCHuman begins at 0.5.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdpose_edge.check.measures.slices import labelled_people, neighbour_iou, restrict
from mdpose_edge.common.files import write_whole
from mdpose_edge.datasets.coco import CocoSplit, load_split
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.evaluate import coco_figures, run_estimator
from mdpose_edge.families.registry import evaluation_of
from mdpose_edge.runtimes.registry import read_model_spec
from mdpose_edge.synth import write_dataset

OVERLAPS = (0.0, 0.25, 0.5, 0.75)
"""Each range of IoU goes from one of these up to the next, the last to 1."""
KNOBS = (0.0, 1 / 3, 2 / 3, 1.0)
FIGURES = ("AP", "AP50", "AP75", "AR")


def draw(out: Path, images: int, size: int, variety: float, seed: int) -> None:
    """Draw a split "val" whose parts have different occlusion."""
    merged: dict[str, Any] = {"images": [], "annotations": []}
    for number, occlusion in enumerate(KNOBS):
        part = out / f"part{number}"
        counts = {"train_images": 0, "val_images": images // len(KNOBS)}
        write_dataset(part, **counts, size=size, seed=seed, people=(2, 4), occlusion=occlusion, variety=variety)
        document = json.loads((part / "annotations" / "person_keypoints_val2017.json").read_text())
        offset = 10_000_000 * (number + 1)  # the parts number their images alike
        merged["categories"] = document["categories"]
        for image in document["images"]:
            name = f"part{number}/{image['file_name']}"
            merged["images"].append({**image, "id": image["id"] + offset, "file_name": name})
        merged["annotations"] += [{**row, "image_id": row["image_id"] + offset} for row in document["annotations"]]
        (out / "val2017").mkdir(exist_ok=True)
        (part / "val2017").rename(out / "val2017" / part.name)
    write_whole(out / "annotations" / "person_keypoints_val2017.json", json.dumps(merged).encode())


def measure(model: Path, split: CocoSplit, runtime: str | None, threads: int | None) -> dict[str, Any]:
    """Evaluate a model once, and give the figures of each range of overlap."""
    decode = evaluation_of(read_model_spec(model))
    with PoseEstimator(model, runtime=runtime, threads=threads, decode=decode) as estimator:
        results, _ = run_estimator(estimator, split)
        engine, sigmas = estimator.engine, estimator.spec.keypoints.sigmas
    iou, counted = neighbour_iou(split), labelled_people(split)
    rows = {}
    for low, high in zip(OVERLAPS, (*OVERLAPS[1:], np.inf), strict=True):
        members = counted & (iou >= low) & (iou < high)
        figures = coco_figures(restrict(split, members), results, sigmas=sigmas)
        rows[f"{low:g}"] = {"people": int(members.sum()), **{key: figures[key] for key in FIGURES}}
    whole = coco_figures(split, results, sigmas=sigmas)
    rows["all"] = {"people": int(counted.sum()), **{key: whole[key] for key in FIGURES}}
    return {"engine": engine, "images": len(split.images), "overlap": rows}


def main(argv: Sequence[str] | None = None) -> None:
    """Draw, measure, print a table, write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, default=320, help="of the scenes, px")
    parser.add_argument("--variety", type=float, default=0.0, help="as of mdpose-edge synth; the demo's model knows 0")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--data", type=Path, help="keep the scenes here, or take those of an earlier run")
    parser.add_argument("--runtime")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        data = args.data or Path(folder)
        if not (data / "annotations").exists():
            data.mkdir(parents=True, exist_ok=True)
            draw(data, args.images, args.size, args.variety, args.seed)
        found = measure(args.model, load_split(data, "val"), args.runtime, args.threads)
    print(f"{'overlap from':12} {'people':>7} " + " ".join(f"{key:>6}" for key in FIGURES))
    for name, row in found["overlap"].items():
        values = " ".join("     -" if row[key] is None else f"{row[key]:6.3f}" for key in FIGURES)
        print(f"{name:12} {row['people']:7} {values}")
    if args.json:
        keys = ("images", "size", "variety", "seed")
        conditions = {"model": str(args.model), **{key: getattr(args, key) for key in keys}}
        write_whole(args.json, (json.dumps({**conditions, **found}, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
