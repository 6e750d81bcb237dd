"""Batches for training: decoded and augmented by worker processes, a pure function of (seed, iteration)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mdpose_edge.datasets.coco import CocoSplit
from mdpose_edge.datasets.cutouts import read_cut_outs
from mdpose_edge.datasets.doubts import doubts_in_words
from mdpose_edge.datasets.images import read_annotated
from mdpose_edge.datasets.readers import open_split
from mdpose_edge.datasets.three_d import camera_at
from mdpose_edge.errors import DataError, MdposeError
from mdpose_edge.families.registry import training_of
from mdpose_edge.spec import InputSpec, ModelSpec
from mdpose_edge.train.augment import Sample, clipped_centers, random_view, reduction, warp_image, warp_people
from mdpose_edge.train.config import TrainConfig
from mdpose_edge.train.mosaic import joined, mosaic_tiles
from mdpose_edge.train.paste import MOST_PASTED, cover, paste_view, pasted
from mdpose_edge.train.pixels import change_pixels
from mdpose_edge.train.workers import POLL_S, start_worker, watched


@dataclass(frozen=True)
class Batch:
    """B images with up to P persons each."""

    images: Tensor
    """(B, H, W, 3) uint8, BGR."""
    keypoints_xy: Tensor
    """(B, P, K, 2) pixels of the input: what is known of the people, whatever the family makes of it."""
    labelled: Tensor
    """(B, P, K) bool; all false where a row is padding."""
    targets: Mapping[str, Tensor]
    """The family's own, the batch first: see `families.base.Training.encode`."""
    boxes_xyxy: Tensor | None = None
    """(B, P, 4) pixels of the input, without an area where a row is padding; None with keypoints."""
    classes: Tensor | None = None
    """(B, P) indices into `ModelSpec.classes`, of these boxes."""

    def to(self, device: torch.device) -> Batch:
        """Move to a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def parts(self, count: int) -> list[Batch]:
        """Cut into equal parts; `count` divides B."""
        return [self._map(lambda tensor, part=part: tensor.chunk(count)[part]) for part in range(count)]  # type: ignore[misc]

    def pin_memory(self) -> Batch:
        """Pin host memory, as DataLoader asks for."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        targets = {name: change(tensor) for name, tensor in self.targets.items()}
        boxes = None if self.boxes_xyxy is None else change(self.boxes_xyxy)
        classes = None if self.classes is None else change(self.classes)
        return Batch(change(self.images), change(self.keypoints_xy), change(self.labelled), targets, boxes, classes)


class Example(NamedTuple):
    """One augmented image with its targets."""

    sample: Sample
    targets: Mapping[str, NDArray[Any]]


class TrainingImages(Dataset["Example | MdposeError"]):
    """Augmented images; the key (position, index) decides all of the chance in a sample.

    An image that cannot be used gives its error instead of raising it: DataLoader would rebuild the exception of a
    worker from its text, and wrap it in a traceback.

    Args:
        data: the annotated images.
        spec: input, keypoints and coordinate frame.
        config: augmentation and seed.
    """

    def __init__(self, data: CocoSplit, spec: ModelSpec, config: TrainConfig) -> None:
        self.data, self.spec, self.config = data, spec, config
        if data.keypoint_names != spec.keypoints.names:
            raise DataError(
                str(data.annotation_file),
                expected=f"the keypoints {', '.join(spec.keypoints.names)}",
                got=", ".join(data.keypoint_names),
                do="give data of the same keypoint set",
            )
        self.family = training_of(config.family)
        self.counts = self.family.counts_everybody(config.loss)
        self.cut_outs = read_cut_outs(data) if config.augment.paste_prob else ()
        trainable = _per_image(_trainable(data.keypoints, data.iscrowd), data)
        self.indices = np.flatnonzero(_images_to_take(data, trainable, negatives=config.negatives, counts=self.counts))
        if not trainable[self.indices].any():
            expected, do = "images with annotated keypoints", "give a keypoint annotation file"
            if not spec.keypoints.names:
                expected, do = "images with annotated boxes", "give an instances annotation file"
            raise DataError(str(data.annotation_file), expected=expected, got="none", do=do)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: tuple[int, int]) -> Example | MdposeError:
        """Decode and augment image `index` as the `position`-th sample of the run."""
        position, index = key
        try:
            sample = self._sample(np.random.default_rng([self.config.seed, position]), int(self.indices[index]))
        except MdposeError as error:
            return error
        return Example(sample, self.family.encode(sample.people, self.spec, self.config.loss))

    def _sample(self, rng: np.random.Generator, row: int) -> Sample:
        augment, input_spec = self.config.augment, self.spec.input
        if augment.mosaic_prob and rng.random() < augment.mosaic_prob:
            tiles = mosaic_tiles(input_spec, int(rng.integers(2, augment.mosaic + 1)))
            rows = [row, *rng.choice(self.indices, len(tiles) - 1).tolist()]
            view = joined([self._view(rng, one, tile.spec) for one, tile in zip(rows, tiles, strict=True)], tiles)
        else:
            view = self._view(rng, row, input_spec)
        if augment.paste_prob and rng.random() < augment.paste_prob:
            for _ in range(int(rng.integers(1, MOST_PASTED + 1))):
                view = self._pasted(rng, view)
        return Sample(change_pixels(rng, view.image, view.people, augment), view.people)

    def _view(self, rng: np.random.Generator, row: int, input_spec: InputSpec) -> Sample:
        """Take a view of one image; its people in pixels of the view."""
        persons, augment = self.data.persons(row), self.config.augment
        known = _trainable(persons.keypoints, persons.iscrowd)
        keep = ~persons.iscrowd if self.counts else known
        boxes = persons.boxes_xywh[keep]
        centers = boxes[:, :2] + boxes[:, 2:] / 2
        # What a crop must show of somebody: the centre, or any point where people may be cut off.
        anchors = boxes[:, :2] + boxes[:, 2:] * rng.random((len(boxes), 2)) if augment.clip_boxes else centers
        record = self.data.images[row]
        # The view comes first, from the size that the annotations state: it says how finely the file must be decoded.
        view = random_view(rng, (record.width, record.height), anchors, input_spec, augment)
        image, shrunk = read_annotated(record.path, record.wh, reduction(view, record.wh))
        if augment.clip_boxes:
            centers = clipped_centers(boxes, view, input_spec)
        people = warp_people(
            persons.keypoints[keep],
            boxes,
            view,
            input_spec,
            self.spec.keypoints,
            centers_xy=centers,
            box_suffices=self.counts,
            classes=None if persons.classes is None else persons.classes[keep],
            keypoints_3d=None if persons.keypoints_3d is None else persons.keypoints_3d[keep],
            camera=persons.camera,
            ignored_xywh=persons.boxes_xywh[~known],
        )
        return Sample(warp_image(image, view, input_spec, shrunk), people)

    def _pasted(self, rng: np.random.Generator, below: Sample) -> Sample:
        """Paste a person of another picture into a view."""
        cut_out, input_spec = self.cut_outs[int(rng.integers(len(self.cut_outs)))], self.spec.input
        one, record = slice(cut_out.person, cut_out.person + 1), self.data.images[cut_out.image]
        boxes = self.data.boxes_xywh[one].astype(np.float32)
        view = paste_view(rng, boxes[0], input_spec, self.config.augment, at_bottom=cut_out.at_bottom)
        keypoints, clips = self.data.keypoints[one].astype(np.float32), self.config.augment.clip_boxes
        centers = clipped_centers(boxes, view, input_spec) if clips else None
        joints, camera = self.data.keypoints_3d, camera_at(self.data.cameras, cut_out.image)
        people = warp_people(
            keypoints,
            boxes,
            view,
            input_spec,
            self.spec.keypoints,
            centers_xy=centers,
            box_suffices=self.counts,
            keypoints_3d=None if joints is None else joints[one],
            camera=camera,
        )
        if not len(people.centers_xy):
            return below
        image, shrunk = read_annotated(record.path, record.wh, reduction(view, record.wh))
        above = Sample(warp_image(image, view, input_spec, shrunk), people)
        return pasted(below, above, cover(cut_out, view, input_spec))


class RunSampler(Sampler[list[tuple[int, int]]]):
    """The batches of a run from some iteration on: every image once per epoch, reshuffled each time.

    An epoch's tail and the next one's head share a batch, so that none is short. Each of several processes takes its
    part of every batch: together they see what one process would.

    Args:
        count: images.
        batch_size: of the whole run.
        seed: of the order.
        start: the first iteration.
        stop: the iteration after the last.
        rank: which part of each batch to give, from 0.
        ranks: equal parts to cut a batch into; divides `batch_size`.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, start: int, stop: int, *, rank: int = 0, ranks: int = 1
    ) -> None:
        self.count, self.batch_size, self.seed, self.start, self.stop = count, batch_size, seed, start, stop
        self.part = range(rank * (batch_size // ranks), (rank + 1) * (batch_size // ranks))

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, np.empty(0, np.int64)
        for iteration in range(self.start, self.stop):
            batch = []
            for offset in self.part:
                position = iteration * self.batch_size + offset
                if position // self.count != epoch:
                    epoch = position // self.count
                    order = np.random.default_rng([self.seed, epoch, self.count]).permutation(self.count)
                batch.append((position, int(order[position % self.count])))
            yield batch


def collate(outcomes: list[Example | MdposeError]) -> Batch | MdposeError:
    """Stack images and targets, padded along their first axis; where there is an error, pass on the first."""
    examples = []
    for outcome in outcomes:
        if isinstance(outcome, MdposeError):
            return outcome
        examples.append(outcome)
    people = [example.sample.people for example in examples]
    targets = {name: _stacked([example.targets[name] for example in examples]) for name in examples[0].targets}
    classes = [one.classes for one in people if one.classes is not None]
    return Batch(
        torch.from_numpy(np.stack([example.sample.image for example in examples])),
        _stacked([one.keypoints_xy for one in people]),
        _stacked([one.labelled for one in people]),
        targets,
        _stacked([one.boxes_xyxy for one in people]) if classes else None,
        _stacked(classes) if classes else None,
    )


def _stacked(arrays: list[NDArray[Any]]) -> Tensor:
    """Stack arrays (n, ...) whose first axes differ: what they lack is zero, and one row is the least."""
    stacked = np.zeros((len(arrays), max(1, *map(len, arrays)), *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in zip(stacked, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(stacked)


def training_batches(
    config: TrainConfig,
    spec: ModelSpec,
    data_dir: Path,
    split: str,
    *,
    rank: int = 0,
    ranks: int = 1,
    stopped: Callable[[], bool] = lambda: False,
    note: Callable[[str], None] | None = None,
) -> Callable[[int], Generator[Batch]]:
    """Open the training data.

    Args:
        config: batch size, seed, augmentation, workers.
        spec: input, keypoints and coordinate frame.
        data_dir: data in COCO's layout.
        split: "train" means DIR/train2017.
        rank: of this process; see RunSampler.
        ranks: processes that share each batch.
        stopped: asked while the workers give nothing; true ends the batches early.
        note: called with a sentence on annotations that seem wrong.

    Returns:
        A function from the first iteration to the batches from there to the end of the run; the worker processes end
        when its generator is closed. It raises InputError or DataError at an image that cannot be used, and
        TrainingError where a worker dies.

    Raises:
        DataError: the data cannot be read, or holds no annotated person.
    """
    data = open_split(data_dir, split, config.data.format, spec.keypoints, spec.classes)
    data.check_in_view()
    if data.doubts and note is not None:
        note(doubts_in_words(data.doubts, data_dir))
    images = TrainingImages(data, spec, config)

    def batches(start: int) -> Generator[Batch]:
        sampler = RunSampler(
            len(images), config.batch_size, config.seed, start, config.schedule.iterations, rank=rank, ranks=ranks
        )
        loader: DataLoader[Example | MdposeError] = DataLoader(
            images,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=config.workers,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=4 if config.workers else None,
            worker_init_fn=start_worker,
            timeout=POLL_S if config.workers else 0,
        )
        with closing(watched(loader, stopped)) as read:
            for batch in read:
                if isinstance(batch, MdposeError):
                    raise batch
                yield batch

    return batches


def _images_to_take(
    data: CocoSplit, trainable: NDArray[np.int64], *, negatives: bool, counts: bool
) -> NDArray[np.bool_]:
    """Say which images train: those of people with keypoints, and what the configuration adds to or takes from them."""
    people, crowds = _per_image(~data.iscrowd, data), _per_image(data.iscrowd, data)
    taken = trainable > 0
    if negatives:
        taken |= (people == 0) & (crowds == 0)
    if counts:
        taken = (taken | (people > 0)) & (crowds == 0)
    return taken


def _per_image(people: NDArray[np.bool_], data: CocoSplit) -> NDArray[np.int64]:
    """Count, in each image, the people marked."""
    before = np.concatenate([[0], np.cumsum(people)])
    return np.diff(before[data.first_person])


def _trainable(keypoints: NDArray[np.floating], iscrowd: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say who carries loss: people with at least one labelled keypoint, or every box without keypoints; not crowds."""
    is_box = not keypoints.shape[1]
    return np.asarray(~iscrowd & (is_box | (keypoints[:, :, 2] > 0).any(axis=1)))
