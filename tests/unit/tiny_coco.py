"""A COCO folder of a few small real files, for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mdpose_edge.spec import COCO_KEYPOINTS

WIDTH, HEIGHT = 320, 240
PERSON_CATEGORY = {"id": 1, "name": "person", "keypoints": list(COCO_KEYPOINTS.names)}


def person(image_id: int, *, x: float = 100, y: float = 40, side: float = 120, **changes: Any) -> dict[str, Any]:
    """An annotation with all keypoints visible, spread over a square box."""
    steps = np.linspace(0, 1, 17)
    keypoints = np.column_stack([x + side * steps, y + side * (7 * steps % 1), np.full(17, 2)])
    record = {
        "image_id": image_id,
        "category_id": 1,
        "keypoints": keypoints.ravel().tolist(),
        "num_keypoints": 17,
        "bbox": [x, y, side, side],
        "area": 0.6 * side * side,
        "iscrowd": 0,
    }
    return {**record, **changes}


def unlabelled(image_id: int, **changes: Any) -> dict[str, Any]:
    """A person whose keypoints were not annotated."""
    return person(image_id, keypoints=[0] * 51, num_keypoints=0, **changes)


def document(people: Sequence[dict[str, Any]], image_ids: Sequence[int] = (7, 3), first_id: int = 1) -> dict[str, Any]:
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "width": WIDTH, "height": HEIGHT} for i in image_ids]
    annotations = [{"id": number, **record} for number, record in enumerate(people, first_id)]
    return {"images": images, "annotations": annotations, "categories": [PERSON_CATEGORY]}


def write_split(folder: Path, data: dict[str, Any], split: str = "val") -> Path:
    """Write annotations, and a JPEG of noise for each image; gives the annotation file."""
    images = folder / f"{split}2017"
    images.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    for record in data["images"]:
        assert cv2.imwrite(str(images / record["file_name"]), noise)
    path = folder / "annotations" / f"person_keypoints_{split}2017.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data))
    return path
