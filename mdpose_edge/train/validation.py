"""Accuracy while training: the network as it is, the decoder that every engine shares, images spread over processes.

Training runs no engine and knows no protocol: who starts it hands over the decoder's options and the function that
scores (see commands/train.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mdpose_edge.datasets.coco import CocoSplit, results_of
from mdpose_edge.datasets.images import read_annotated
from mdpose_edge.datasets.readers import open_split
from mdpose_edge.errors import MdposeError
from mdpose_edge.families.registry import make_decoder, merging_as
from mdpose_edge.preprocess import FrameGeometry, preprocess
from mdpose_edge.spec import DecodeSpec, InputSpec, ModelSpec
from mdpose_edge.train.distributed import World
from mdpose_edge.train.predict import head_tensors, in_eval_mode
from mdpose_edge.train.workers import POLL_S, start_worker, watched

Figures = Mapping[str, float | None]
"""A protocol's figures by name, in [0, 1]; None where nobody falls into a figure's range."""


class Score(Protocol):
    """A protocol of evaluation, like `evaluate.protocol_figures`."""

    def __call__(self, split: CocoSplit, results: Sequence[Mapping[str, Any]], *, sigmas: Sequence[float]) -> Figures:
        """Score results in COCO's format against a split."""


@dataclass(frozen=True)
class Validation:
    """What to evaluate on, and how."""

    data_dir: Path
    split: str
    decode: DecodeSpec
    score: Score
    figure_names: Callable[[CocoSplit], tuple[str, ...]]
    """Of what `score` gives for a split, in the order of the columns of eval.csv."""


class Validator:
    """Evaluates a network in training.

    Args:
        validation: what and how.
        spec: of the network.
        world: the processes that share the images.
        workers: processes that read images, for each of these.
        data_format: as for `open_split`.

    Raises:
        DataError: the split cannot be used, annotates nobody, or annotates other keypoints.
    """

    def __init__(
        self,
        validation: Validation,
        spec: ModelSpec,
        world: World,
        workers: int,
        data_format: str | None = None,
    ) -> None:
        self.spec, self.world, self.workers, self.score = spec, world, workers, validation.score
        self.split = open_split(validation.data_dir, validation.split, data_format, spec.keypoints, spec.classes)
        self.split.check_people()
        self.figure_names = validation.figure_names(self.split)
        self.decode = make_decoder(spec, merging_as(spec, validation.decode))

    def __call__(self, network: nn.Module) -> Figures | None:
        """Measure, in all processes together; the main one gets the figures, the others None.

        Each image is run alone and in float32, so that the figures do not depend on how many processes there are.

        Raises:
            InputError: an image cannot be read.
            EngineError: the network's outputs are not finite.
            TrainingError: a process that reads images died.
        """
        own = range(self.world.rank, len(self.split.images), self.world.size)
        found: dict[int, list[dict[str, Any]]] = {}
        with self.world.together(), in_eval_mode(network), closing(watched(self._inputs(own))) as read:
            for index, outcome in zip(own, read, strict=True):
                if isinstance(outcome, MdposeError):
                    raise outcome
                image, geometry = outcome
                heads = head_tensors(network, self.spec, torch.from_numpy(image)[None].to(self.world.device))
                found[index] = results_of(
                    self.split.images[index].id, self.decode(heads, geometry), self.split.result_ids
                )
        parts = [json.loads(part) for part in self.world.gather(json.dumps(found).encode())]
        merged = {int(index): rows for part in parts for index, rows in part.items()}
        results = [row for index in sorted(merged) for row in merged[index]]
        with self.world.together():
            if not self.world.is_main:
                return None
            return self.score(self.split, results, sigmas=self.spec.keypoints.sigmas)

    def _inputs(self, indices: range) -> DataLoader[Input | MdposeError]:
        frames = Frames(self.split, self.spec.input, indices)
        return DataLoader(
            frames,
            batch_size=None,
            collate_fn=as_it_is,
            num_workers=self.workers,
            worker_init_fn=start_worker,
            timeout=POLL_S if self.workers else 0,
        )


Input = tuple[NDArray[np.uint8], FrameGeometry]


class Frames(Dataset["Input | MdposeError"]):
    """Some images of a split as network input; one that cannot be used gives its error, as in data.TrainingImages."""

    def __init__(self, split: CocoSplit, spec: InputSpec, indices: Sequence[int]) -> None:
        self.split, self.spec, self.indices = split, spec, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Input | MdposeError:
        """Read and resize one image."""
        image = self.split.images[self.indices[position]]
        try:
            return preprocess(read_annotated(image.path, image.wh)[0], self.spec)
        except MdposeError as error:
            return error


def as_it_is(item: Any) -> Any:
    """Collate nothing."""
    return item
