"""Can it learn real people? DLA-34 over-fitted on the few coco-mini training images with people, measured on the same.

    python benchmarks/overfit.py ../shared/data/coco-mini runs/overfit [--json FILE]

Not part of the tests: it takes about a quarter of an hour on 2 cores. An AP well below 0.8 means that something between
the annotation and the decoder is wrong: there is nothing to generalise.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from mdpose_edge.common.files import write_whole
from mdpose_edge.demo import START_CHECKPOINT
from mdpose_edge.evaluate import evaluate
from mdpose_edge.train.config import TrainConfig, read_config
from mdpose_edge.train.loop import TrainProgress, train

SIZE = 192


def main() -> None:
    """Train on the images with people, evaluate on them, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="coco-mini, or any small data in COCO's layout")
    parser.add_argument("out", type=Path, help="folder of the run")
    parser.add_argument("--iterations", type=int, default=2400)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    data = arguments.out / "data"
    if not data.exists():
        images = copy_images_with_people(arguments.data, data)
        print(f"{images} images with people")
    model = train(config(arguments.iterations), data, arguments.out / "run", report=_show)
    found = evaluate(model, data, "train")
    print(" ".join(f"{name} {value:.3f}" for name, value in found.figures.items() if value is not None))
    if arguments.json:
        record = {"iterations": arguments.iterations, "size": SIZE, **found.to_json_dict()}
        write_whole(arguments.json, (json.dumps(record, indent=2) + "\n").encode())


def config(iterations: int) -> TrainConfig:
    """Train without augmentation, since nothing has to generalise, from the demo's start checkpoint, to save time."""
    plain = {"rotation_prob": 0.0, "expand_prob": 0.0, "crop_prob": 0.0, "flip_prob": 0.0}
    return read_config(
        {
            "input": {"height": SIZE, "width": SIZE},
            "network": {"channels": 64},
            "augment": plain,
            "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.0},
            "schedule": {"iterations": iterations, "kind": "cosine", "warmup": 50},
            "batch_size": 7,
            "pretrained": False,
            "init": str(START_CHECKPOINT),
            "workers": 1,
        },
        "overfit",
    )


def copy_images_with_people(source: Path, target: Path) -> int:
    """Copy the train split's images that show people with keypoints, and their annotations; give how many."""
    name = "person_keypoints_train2017.json"
    document = json.loads((source / "annotations" / name).read_text())
    shown = {row["image_id"] for row in document["annotations"] if row["num_keypoints"]}
    document["images"] = [row for row in document["images"] if row["id"] in shown]
    document["annotations"] = [row for row in document["annotations"] if row["image_id"] in shown]
    (target / "train2017").mkdir(parents=True)
    for row in document["images"]:
        shutil.copy(source / "train2017" / row["file_name"], target / "train2017")
    write_whole(target / "annotations" / name, json.dumps(document).encode())
    return len(document["images"])


def _show(step: TrainProgress) -> None:
    if step.iteration % 50 == 0:
        print(f"{step.iteration}/{step.iterations}: loss {step.loss:.3f}, {step.images_per_s:.1f} images/s", flush=True)


if __name__ == "__main__":
    main()
