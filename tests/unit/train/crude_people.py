"""A COCO folder of crudely drawn people, and a configuration small enough to train on it within a test."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.families.mdpose.network import NetworkConfig
from mdpose_edge.spec import COCO_KEYPOINTS
from mdpose_edge.train.config import InputConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from tests.unit.tiny_coco import document, person

WIDTH, HEIGHT = 160, 120
IMAGES = 10
SMALL_PX = 64

# A standing figure seen from the front, in its bounding box: x to the right, y down, the person's left on the right.
FIGURE = np.array(
    [
        [0.50, 0.08], [0.55, 0.05], [0.45, 0.05], [0.62, 0.08], [0.38, 0.08], [0.72, 0.25], [0.28, 0.25], [0.88, 0.40],
        [0.12, 0.40], [1.00, 0.55], [0.00, 0.55], [0.64, 0.55], [0.36, 0.55], [0.66, 0.78], [0.34, 0.78], [0.68, 1.00],
        [0.32, 1.00],
    ]
)  # fmt: skip

LEFT, RIGHT, CENTRE = (40, 200, 40), (40, 40, 220), (220, 200, 60)


def write_crude_people(folder: Path, split: str = "train") -> None:
    """Draw IMAGES pictures of one to three people each, every one labelled, in COCO's layout; always the same."""
    rng = np.random.default_rng(7)
    images = folder / f"{split}2017"
    images.mkdir(parents=True)
    people = []
    for image_id in range(1, IMAGES + 1):
        canvas = np.full((HEIGHT, WIDTH, 3), rng.integers(60, 130, 3), np.uint8)
        count = 1 + image_id % 3
        for slot in range(count):
            keypoints = _place(rng, slot, count)
            _draw(canvas, keypoints)
            people.append(_annotation(image_id, keypoints))
        assert cv2.imwrite(str(images / f"{image_id:012d}.jpg"), canvas)
    data = document(people, image_ids=range(1, IMAGES + 1))
    for record in data["images"]:
        record.update(width=WIDTH, height=HEIGHT)
    path = folder / "annotations" / f"person_keypoints_{split}2017.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data))


def tiny_config(**changes: Any) -> TrainConfig:
    """A run of seconds on a CPU: every iteration a checkpoint's worth, no worker processes, float32."""
    config = TrainConfig(
        input=InputConfig(height=SMALL_PX, width=SMALL_PX),
        network=NetworkConfig(backbone="mobilenetv4_conv_small", channels=16, head_convs=2),
        optimizer=OptimizerConfig(name="adamw", lr=1e-3),
        schedule=ScheduleConfig(iterations=12, kind="cosine", warmup=2),
        batch_size=4,
        pretrained=False,
        precision="fp32",
        workers=0,
        log_every=1,
        checkpoint_every=5,
    )
    return replace(config, **changes)


def _place(rng: np.random.Generator, slot: int, count: int) -> NDArray[np.float64]:
    height = rng.uniform(0.55, 0.9) * HEIGHT
    width = min(0.45 * height, 0.85 * WIDTH / count)
    left = (slot + 0.5) * WIDTH / count - width / 2
    top = rng.uniform(0.02 * HEIGHT, 0.98 * HEIGHT - height)
    return FIGURE * (width, height) + (left, top)


def _draw(canvas: NDArray[np.uint8], keypoints: NDArray[np.float64]) -> None:
    for a, b in COCO_KEYPOINTS.skeleton:
        sides = {COCO_KEYPOINTS.names[i].partition("_")[0] for i in (a, b)}
        colour = LEFT if sides == {"left"} else RIGHT if sides == {"right"} else CENTRE
        start, stop = (tuple(int(v) for v in keypoints[i]) for i in (a, b))
        cv2.line(canvas, start, stop, colour, 3, cv2.LINE_AA)


def _annotation(image_id: int, keypoints: NDArray[np.float64]) -> dict[str, Any]:
    (x, y), (width, height) = keypoints.min(axis=0), np.ptp(keypoints, axis=0)
    visible = np.column_stack([keypoints, np.full(len(keypoints), 2)])
    return person(image_id, keypoints=visible.ravel().tolist(), bbox=[x, y, width, height], area=0.6 * width * height)
