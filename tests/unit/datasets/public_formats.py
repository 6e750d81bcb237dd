"""Tiny datasets in CrowdPose's and OCHuman's own files, written from the scenes that synth draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mdpose_edge.datasets.keypoints import CROWDPOSE_KEYPOINTS, OCHUMAN_KEYPOINTS
from mdpose_edge.spec import COCO_KEYPOINTS
from mdpose_edge.synth.scene import render_scene

SIZE = 128
CROWD_INDICES = (0.05, 0.15, 0.5, 0.9)


def scene(number: int) -> Any:
    """Draw two people who overlap; always the same."""
    return render_scene(np.random.default_rng(number), (SIZE, SIZE), (2, 2), 1.0, 0.0)


def by_name(person: dict[str, Any], names: tuple[str, ...]) -> dict[str, tuple[float, float, int]]:
    """Return COCO's keypoints by name, with a head and a neck above and below the nose where they are wanted."""
    triples = np.array(person["keypoints"], float).reshape(-1, 3)
    points = {name: (x, y, int(v)) for name, (x, y, v) in zip(COCO_KEYPOINTS.names, triples, strict=True)}
    x, y, v = points["nose"]
    points |= {"head": (x, y - 5, v), "neck": (x, y + 5, v)}
    return {name: points[name] for name in names}


def write_crowdpose(folder: Path, split: str = "test", indices: tuple[float, ...] = CROWD_INDICES) -> Path:
    """Write json/crowdpose_{split}.json and images/: no areas, a crowdIndex for each image."""
    images, annotations = [], []
    for number, index in enumerate(indices):
        drawn = scene(number)
        image_id = 100000 + number
        images.append(
            {"file_name": f"{image_id}.jpg", "id": image_id, "height": SIZE, "width": SIZE, "crowdIndex": index}
        )
        _write_image(folder / "images" / f"{image_id}.jpg", drawn.frame)
        for person in drawn.annotations:
            points = by_name(person, CROWDPOSE_KEYPOINTS.names)
            annotations.append(
                {
                    "num_keypoints": sum(v > 0 for _, _, v in points.values()),
                    "iscrowd": 0,
                    "keypoints": [number for point in points.values() for number in point],
                    "image_id": image_id,
                    "bbox": person["bbox"],
                    "category_id": 1,
                    "id": len(annotations) + 1,
                }
            )
    category = {"supercategory": "person", "id": 1, "name": "person", "keypoints": list(CROWDPOSE_KEYPOINTS.names)}
    data = {"images": images, "annotations": annotations, "categories": [category]}
    return _write_json(folder / "json" / f"crowdpose_{split}.json", data)


def write_ochuman(folder: Path, images: int = 3) -> Path:
    """Write ochuman.json and images/: annotations inside the images, corner boxes, v up to 3, some without masks."""
    records = []
    for number in range(images):
        drawn = scene(number)
        name = f"{images - number:06d}"  # not in the order of the file
        _write_image(folder / "images" / f"{name}.jpg", drawn.frame)
        people = [_ochuman_person(person, position) for position, person in enumerate(drawn.annotations)]
        people.append({"bbox": [1, 1, 9, 9], "keypoints": None, "segms": None, "max_iou": 0.0})
        records.append(
            {"image_id": name, "file_name": f"{name}.jpg", "width": SIZE, "height": SIZE, "annotations": people}
        )
    visible = {"missing": 0, "vis": 1, "self_occluded": 2, "others_occluded": 3}
    data = {"keypoint_names": list(OCHUMAN_KEYPOINTS.names), "keypoint_visible": visible, "images": records}
    return _write_json(folder / "ochuman.json", data)


def _ochuman_person(person: dict[str, Any], position: int) -> dict[str, Any]:
    points = by_name(person, OCHUMAN_KEYPOINTS.names)
    hidden_by = (3, 2)[position]  # the first by another, the second by itself
    coded = [(x, y, {0: 0, 1: hidden_by, 2: 1}[v]) for x, y, v in points.values()]
    x, y, width, height = person["bbox"]
    return {
        "bbox": [x, y, x + width, y + height],
        "keypoints": [number for point in coded for number in point],
        "segms": {"outer": [[1, 1, 9, 1, 9, 9]], "inner": [], "height": SIZE, "width": SIZE},
        "max_iou": 0.6,
    }


def _write_image(path: Path, frame: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), frame)


def _write_json(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path
