"""YOLO pose models on data in COCO's layout: trained, quantized and run as ultralytics does it.

ultralytics is needed for benchmarks and nothing else, and is under the AGPL; it lives in an environment of its own and
is run there, never imported:

    python3 -m venv peers && peers/bin/pip install ultralytics openvino nncf
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdpose_edge.datasets.coco import CocoSplit, load_split
from mdpose_edge.spec import COCO_KEYPOINTS

FLIPPED = [next((b if a == k else a for a, b in COCO_KEYPOINTS.flip_pairs if k in (a, b)), k) for k in range(17)]
"""COCO's keypoints in a mirror."""

TRAIN = """
import json, sys
from ultralytics import YOLO, __version__
job = json.loads(sys.argv[1])
model = YOLO(f"{job['name']}.yaml", task="pose")
model.train(data=job["data"], imgsz=job["size"], epochs=job["epochs"], batch=job["batch"], device="cpu", workers=1,
            project=job["out"], name="run", exist_ok=True, pretrained=False, plots=False, val=False, seed=0,
            verbose=False)
model = YOLO(f"{job['out']}/run/weights/last.pt")
paths = [model.export(format="openvino", imgsz=job["size"], nms=False, int8=False)]
paths.append(model.export(format="openvino", imgsz=job["size"], nms=False, int8=True, data=job["data"]))
print("done:" + json.dumps({"paths": [str(path) for path in paths], "version": __version__}))
"""
PREDICT = """
import json, sys
from ultralytics import YOLO
job = json.loads(sys.argv[1])
model, results = YOLO(job["model"], task="pose"), []
for image_id, path in job["images"]:
    (found,) = model.predict(path, imgsz=job["size"], conf=0.001, iou=0.7, max_det=100, verbose=False, device="cpu")
    for points, score in zip(found.keypoints.data.tolist(), found.boxes.conf.tolist()):
        keypoints = [value for x, y, *_ in points for value in (x, y, 1)]
        results.append({"image_id": image_id, "category_id": 1, "keypoints": keypoints, "score": score})
json.dump(results, open(job["results"], "w"))
print("done:{}")
"""


@dataclass(frozen=True)
class Trained:
    """A peer, ready to be measured."""

    float_graph: Path
    int8_graph: Path
    """Folders of OpenVINO's files, as ultralytics wrote them."""
    version: str
    """Of ultralytics."""


def write_labels(data: Path, out: Path) -> Path:
    """Write a dataset of COCO's layout as ultralytics reads it, with links to the images; return its data.yaml."""
    for split in ("train", "val"):
        found = load_split(data, split)
        for folder in (out / "images" / split, out / "labels" / split):
            folder.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(found.images):
            link = out / "images" / split / image.path.name
            if not link.exists():
                link.symlink_to(image.path.resolve())
            text = _label_lines(found, index)
            (out / "labels" / split / f"{image.path.stem}.txt").write_text(text)
    content = f"path: {out.resolve()}\ntrain: images/train\nval: images/val\nkpt_shape: [17, 3]\nflip_idx: {FLIPPED}\n"
    (out / "data.yaml").write_text(content + "names: {0: person}\n")
    return out / "data.yaml"


def _label_lines(split: CocoSplit, index: int) -> str:
    """Give a line for each person: class, box centre and size, x, y, v of each keypoint; all as shares of sides."""
    people, (width, height) = split.persons(index), split.images[index].wh
    lines = []
    for (x, y, w, h), keypoints in zip(people.boxes_xywh.tolist(), people.keypoints.tolist(), strict=True):
        row = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
        for px, py, v in keypoints:
            row += [px / width, py / height, v] if v else [0, 0, 0]
        lines.append("0 " + " ".join(f"{value:.6g}" for value in row))
    return "\n".join(lines) + "\n" if lines else ""


def train_peer(python: Path, name: str, data: Path, out: Path, *, size: int, visits: int, batch: int) -> Trained:
    """Train from nothing by ultralytics' own recipe, each image as often as `visits` allows, and export twice."""
    out.mkdir(parents=True, exist_ok=True)
    labels = write_labels(data, out / "labels")
    epochs = max(1, round(visits / len(load_split(data, "train").images)))
    job = {
        "name": name,
        "data": str(labels.resolve()),
        "size": size,
        "epochs": epochs,
        "batch": batch,
        "out": str(out.resolve()),
    }
    done = _run(python, TRAIN, job, out)
    paths = [out / path for path in done["paths"]]
    return Trained(paths[0], paths[1], done["version"])


def predict_peer(python: Path, model: Path, split: CocoSplit, out: Path, *, size: int) -> list[dict[str, Any]]:
    """Find people in a split by ultralytics' own pre- and post-processing; return COCO results."""
    images = [[image.id, str(image.path.resolve())] for image in split.images]
    results = (out / "results.json").resolve()
    _run(python, PREDICT, {"model": str(model), "images": images, "size": size, "results": str(results)}, out)
    found: list[dict[str, Any]] = json.loads(results.read_text())
    return found


def _run(python: Path, script: str, job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run a script there; return what it says when it is done."""
    environment = {**os.environ, "YOLO_CONFIG_DIR": str(folder.resolve()), "YOLO_OFFLINE": "true"}
    environment.pop("PYTHONPATH", None)
    command = [str(python.absolute()), "-c", script, json.dumps(job)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    answers = [line for line in done.stdout.splitlines() if line.startswith("done:")]
    if done.returncode or not answers:
        raise SystemExit(f"{python} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    answer: dict[str, Any] = json.loads(answers[-1].removeprefix("done:"))
    return answer
