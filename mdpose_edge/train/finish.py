"""Training images as a finished network sees them: what families fit to it that no gradient reaches."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from mdpose_edge.datasets.coco import CocoSplit
from mdpose_edge.datasets.readers import open_split
from mdpose_edge.errors import MdposeError
from mdpose_edge.families.base import FitImage
from mdpose_edge.preprocess import FrameGeometry
from mdpose_edge.spec import ModelSpec
from mdpose_edge.train.config import TrainConfig
from mdpose_edge.train.predict import head_tensors, in_eval_mode
from mdpose_edge.train.validation import Frames, Input, as_it_is
from mdpose_edge.train.workers import POLL_S, start_worker, watched


def fit_images(
    network: nn.Module, spec: ModelSpec, config: TrainConfig, split: tuple[Path, str], count: int
) -> Generator[FitImage]:
    """Run a network over training images with annotated people, spread evenly over the split.

    Args:
        network: that was trained.
        spec: of it.
        config: of the run: format of the data, workers.
        split: folder and name.
        count: images at most.

    Yields:
        Each image's head tensors and people.

    Raises:
        InputError: an image cannot be read.
        DataError: the data cannot be read.
        TrainingError: a process that reads images died.
    """
    data = open_split(split[0], split[1], config.data.format, spec.keypoints)
    counted = ~data.iscrowd & (data.num_keypoints > 0)
    shown = np.flatnonzero(np.diff(np.concatenate([[0], np.cumsum(counted)])[data.first_person]))
    rows = shown[np.unique(np.linspace(0, len(shown) - 1, min(count, len(shown))).round().astype(int))].tolist()
    loader: DataLoader[Input | MdposeError] = DataLoader(
        Frames(data, spec.input, rows),
        batch_size=None,
        collate_fn=as_it_is,
        num_workers=config.workers,
        worker_init_fn=start_worker,
        timeout=POLL_S if config.workers else 0,
    )
    device = next(network.parameters()).device
    with in_eval_mode(network), closing(watched(loader)) as read:
        for row, outcome in zip(rows, read, strict=True):
            if isinstance(outcome, MdposeError):
                raise outcome
            image, geometry = outcome
            yield _seen(head_tensors(network, spec, torch.from_numpy(image)[None].to(device)), data, row, geometry)


def _seen(
    heads: dict[str, np.typing.NDArray[np.float32]], data: CocoSplit, row: int, geometry: FrameGeometry
) -> FitImage:
    persons = data.persons(row)
    keep = ~persons.iscrowd & (persons.num_keypoints > 0)
    points = geometry.to_network(persons.keypoints[keep, :, :2])
    scale = np.float32(np.prod(geometry.scale_xy))
    return FitImage(heads, points, persons.keypoints[keep, :, 2] > 0, persons.areas[keep] * scale)
