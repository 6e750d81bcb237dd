"""Batches for training: decoded and augmented by worker processes, a pure function of (seed, iteration)."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mdpose_edge.datasets.coco import CocoImage, CocoSplit
from mdpose_edge.datasets.images import read_image
from mdpose_edge.datasets.readers import open_split
from mdpose_edge.errors import DataError, MdposeError
from mdpose_edge.spec import InputSpec, ModelSpec
from mdpose_edge.train.augment import Sample, clipped_centers, random_view, reduction, warp_image, warp_keypoints
from mdpose_edge.train.config import TrainConfig
from mdpose_edge.train.mosaic import joined, mosaic_tiles
from mdpose_edge.train.pixels import change_pixels


@dataclass(frozen=True)
class Batch:
    """B images with up to P persons each; J keypoints, the last of them the box centre."""

    images: Tensor
    """(B, H, W, 3) uint8, BGR."""
    keypoints_xy: Tensor
    """(B, P, J, 2) in the coordinate frame of the head tensors, [0, coordinate_extent)."""
    labelled: Tensor
    """(B, P, J) bool."""
    person_mask: Tensor
    """(B, P) bool: false where a row is padding."""

    def to(self, device: torch.device) -> Batch:
        """Move to a device."""
        move = {name: getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__}
        return Batch(**move)

    def parts(self, count: int) -> list[Batch]:
        """Cut into equal parts; `count` divides B."""
        pieces = zip(*(getattr(self, name).chunk(count) for name in self.__dataclass_fields__), strict=True)
        return [Batch(*piece) for piece in pieces]

    def pin_memory(self) -> Batch:
        """Pin host memory, as DataLoader asks for."""
        return Batch(**{name: getattr(self, name).pin_memory() for name in self.__dataclass_fields__})


class TrainingImages(Dataset["Sample | MdposeError"]):
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
        self.counts = config.count_weight > 0
        trainable = _per_image(_trainable(data.keypoints, data.iscrowd), data)
        self.indices = np.flatnonzero(_images_to_take(data, config, trainable))
        if not trainable[self.indices].any():
            raise DataError(
                str(data.annotation_file),
                expected="images with annotated keypoints",
                got="none",
                do="give a keypoint annotation file",
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: tuple[int, int]) -> Sample | MdposeError:
        """Decode and augment image `index` as the `position`-th sample of the run."""
        position, index = key
        try:
            return self._sample(np.random.default_rng([self.config.seed, position]), int(self.indices[index]))
        except MdposeError as error:
            return error

    def _sample(self, rng: np.random.Generator, row: int) -> Sample:
        augment, input_spec = self.config.augment, self.spec.input
        if augment.mosaic_prob and rng.random() < augment.mosaic_prob:
            tiles = mosaic_tiles(input_spec, int(rng.integers(2, augment.mosaic + 1)))
            rows = [row, *rng.choice(self.indices, len(tiles) - 1).tolist()]
            view = joined([self._view(rng, one, tile.spec) for one, tile in zip(rows, tiles, strict=True)], tiles)
        else:
            view = self._view(rng, row, input_spec)
        image = change_pixels(rng, view.image, view.keypoints_xy, view.labelled, augment)
        to_extent = constants_of(self.spec).coordinate_extent / np.array(
            [input_spec.width, input_spec.height], np.float32
        )
        return Sample(image, view.keypoints_xy * to_extent, view.labelled)

    def _view(self, rng: np.random.Generator, row: int, input_spec: InputSpec) -> Sample:
        """Take a view of one image; keypoints in pixels of the view."""
        persons, augment = self.data.persons(row), self.config.augment
        keep = ~persons.iscrowd if self.counts else _trainable(persons.keypoints, persons.iscrowd)
        boxes = persons.boxes_xywh[keep]
        centers = boxes[:, :2] + boxes[:, 2:] / 2
        record = self.data.images[row]
        # The view comes first, from the size that the annotations state: it says how finely the file must be decoded.
        view = random_view(rng, (record.width, record.height), centers, input_spec, augment)
        image, shrunk = _read(record, reduction(view, (record.width, record.height)))
        if augment.clip_boxes:
            centers = clipped_centers(boxes, view, input_spec)
        points, labelled = warp_keypoints(
            persons.keypoints[keep], centers, view, input_spec, self.spec.keypoints, center_suffices=self.counts
        )
        return Sample(warp_image(image, view, input_spec, shrunk), points, labelled)


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


def collate(outcomes: list[Sample | MdposeError]) -> Batch | MdposeError:
    """Stack samples, padding persons to the most in any; where there is an error, pass on the first."""
    samples = []
    for outcome in outcomes:
        if isinstance(outcome, MdposeError):
            return outcome
        samples.append(outcome)
    most = max(1, *(len(s.keypoints_xy) for s in samples))
    joints = samples[0].keypoints_xy.shape[1]
    keypoints = np.zeros((len(samples), most, joints, 2), np.float32)
    labelled = np.zeros((len(samples), most, joints), bool)
    mask = np.zeros((len(samples), most), bool)
    for i, sample in enumerate(samples):
        count = len(sample.keypoints_xy)
        keypoints[i, :count], labelled[i, :count], mask[i, :count] = sample.keypoints_xy, sample.labelled, True
    images = np.stack([sample.image for sample in samples])
    return Batch(*map(torch.from_numpy, (images, keypoints, labelled, mask)))


def training_batches(
    config: TrainConfig, spec: ModelSpec, data_dir: Path, split: str, *, rank: int = 0, ranks: int = 1
) -> Callable[[int], Generator[Batch]]:
    """Open the training data.

    Args:
        config: batch size, seed, augmentation, workers.
        spec: input, keypoints and coordinate frame.
        data_dir: data in COCO's layout.
        split: "train" means DIR/train2017.
        rank: of this process; see RunSampler.
        ranks: processes that share each batch.

    Returns:
        A function from the first iteration to the batches from there to the end of the run; the worker processes end
        when its generator is closed. It raises InputError or DataError at an image that cannot be used.

    Raises:
        DataError: the data cannot be read, or holds no annotated person.
    """
    data = open_split(data_dir, split, config.data.format, spec.keypoints)
    images = TrainingImages(data, spec, config)

    def batches(start: int) -> Generator[Batch]:
        sampler = RunSampler(
            len(images), config.batch_size, config.seed, start, config.schedule.iterations, rank=rank, ranks=ranks
        )
        loader: DataLoader[Sample | MdposeError] = DataLoader(
            images,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=config.workers,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=4 if config.workers else None,
            worker_init_fn=start_worker,
        )
        for batch in loader:
            if isinstance(batch, MdposeError):
                raise batch
            yield batch

    return batches


def _images_to_take(data: CocoSplit, config: TrainConfig, trainable: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say which images train: those of people with keypoints, and what the configuration adds to or takes from them."""
    people, crowds = _per_image(~data.iscrowd, data), _per_image(data.iscrowd, data)
    taken = trainable > 0
    if config.negatives:
        taken |= (people == 0) & (crowds == 0)
    if config.count_weight:
        taken = (taken | (people > 0)) & (crowds == 0)
    return taken


def _per_image(people: NDArray[np.bool_], data: CocoSplit) -> NDArray[np.int64]:
    """Count, in each image, the people marked."""
    before = np.concatenate([[0], np.cumsum(people)])
    return np.diff(before[data.first_person])


def _trainable(keypoints: NDArray[np.floating], iscrowd: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say who carries loss: people with at least one labelled keypoint, not crowds."""
    return np.asarray(~iscrowd & (keypoints[:, :, 2] > 0).any(axis=1))


def _read(record: CocoImage, shrink: int) -> tuple[NDArray[np.uint8], int]:
    """Decode an image, shrunk where it is a JPEG; give by how much it was."""
    if record.path.suffix.lower() not in (".jpg", ".jpeg"):
        shrink = 1
    image = read_image(record.path, orient=False, shrink=shrink)
    if image.shape[:2] == (-(-record.height // shrink), -(-record.width // shrink)):
        return image, shrink
    height, width = read_image(record.path, orient=False).shape[:2]
    raise DataError(
        str(record.path),
        expected=f"{record.width}x{record.height} px, as the annotation file says",
        got=f"{width}x{height}",
        do="scale the annotations with the images, or restore the image",
    )


def start_worker(_: int) -> None:
    """Make a process that reads images a quiet one."""
    cv2.setNumThreads(0)  # OpenCV's own threads in every worker only fight for the same cores.
    # Sent to the whole process group, they ask the trainer to save and end; workers end with the trainer.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
