"""A COCO folder of boxes of several categories, for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.unit.tiny_coco import document, person, write_split

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 44, "name": "bottle"}, {"id": 90, "name": "chair"}]


def instance(image_id: int, category_id: int = 44, *, x: float = 30, y: float = 20, **changes: Any) -> dict[str, Any]:
    record = {"image_id": image_id, "category_id": category_id, "bbox": [x, y, 60, 80], "area": 3000.0, "iscrowd": 0}
    return {**record, **changes}


def boxes_document(instances: Sequence[dict[str, Any]]) -> dict[str, Any]:
    annotations = [{"id": number, **record} for number, record in enumerate(instances, 1)]
    return {**document([]), "annotations": annotations, "categories": CATEGORIES}


def write_boxes(folder: Path, data: dict[str, Any], split: str = "val", *, beside_people: bool = False) -> Path:
    """Write an instances file with its images, and a file of people's keypoints beside it where that is asked for."""
    people = write_split(folder, {**document([person(7)]), "images": data["images"]}, split)
    if not beside_people:
        people.unlink()
    path = folder / "annotations" / f"instances_{split}2017.json"
    path.write_text(json.dumps(data))
    return path
