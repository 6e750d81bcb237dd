"""The images of a check: of a split with annotations, of a plain folder, or those that a recording carries."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.camera import Camera
from mdpose_edge.datasets.coco import CocoSplit
from mdpose_edge.datasets.images import decode_annotated, decode_image, list_images, read_image_bytes
from mdpose_edge.datasets.layout import is_dataset
from mdpose_edge.datasets.readers import open_split
from mdpose_edge.datasets.three_d import camera_at
from mdpose_edge.errors import ConfigError
from mdpose_edge.spec import ModelSpec


@dataclass(frozen=True)
class CheckImage:
    """One image: its file, and its pixels in the frame of its annotations, as stored where it has none."""

    name: str
    data: bytes
    """The file."""
    image_id: int | None
    """COCO's, or None without annotations."""
    stated_wh: tuple[int, int] | None = None
    """As the annotations state it."""
    camera: Camera | None = None
    """What the image was taken with, where the annotations say."""

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 3) BGR.

        Raises:
            InputError: not an image.
            DataError: an annotated image of another size.
        """
        if self.stated_wh is not None:
            return decode_annotated(self.data, self.name, self.stated_wh)[0]
        return decode_image(self.data, self.name, orient=False)

    @cached_property
    def sha256(self) -> str:
        """Of the file."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class CheckImages:
    """The images of a check, read one at a time."""

    where: str
    names: tuple[str, ...]
    read: Callable[[int], bytes]
    """Maps an index to the file."""
    split: CocoSplit | None = None
    """The annotations, whose first images these are; None for plain images."""
    stated: Sequence[Sequence[int] | None] = ()
    """Without `split`: the width and height that annotations state of each image."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> CheckImage:
        if self.split is None:
            stated = self.stated[index] if self.stated else None
            stated_wh = None if stated is None else (stated[0], stated[1])
            return CheckImage(self.names[index], self.read(index), None, stated_wh)
        image = self.split.images[index]
        camera = camera_at(self.split.cameras, index)
        return CheckImage(self.names[index], self.read(index), image.id, image.wh, camera)


def images_of(
    data: str | Path,
    split: str,
    limit: int | None,
    data_format: str | None = None,
    spec: ModelSpec | None = None,
) -> CheckImages:
    """Open the images of a folder.

    Args:
        data: a dataset's folder, as docs/data.md lays it out; one that is none is taken as plain images.
        split: "val", ...: of a dataset.
        limit: only the first so many, or None for all.
        data_format: "coco", "crowdpose", "ochuman", "instances", or None to take the only one that is there.
        spec: of the artifact, whose keypoints, or classes of boxes, are read; None reads all.

    Raises:
        DataError: the annotations cannot be used, or lack these keypoints or categories.
        InputError: a plain folder has no images.
        ConfigError: the limit is below 1.
    """
    check_limit(limit)
    if data_format is None and not is_dataset(data):
        return _of_files(str(data), list_images([data])[:limit])
    wanted = () if spec is None else (spec.keypoints, spec.classes)
    annotated = open_split(data, split, data_format, *wanted)
    images = annotated.images[:limit]
    return _of_files(f"{data} ({split})", [image.path for image in images], annotated)


def check_limit(limit: int | None) -> None:
    """Refuse to measure on nothing.

    Raises:
        ConfigError: the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError("limit", expected="at least 1 image", got=str(limit), do="raise it, or leave it out")


def _of_files(where: str, paths: Sequence[Path], split: CocoSplit | None = None) -> CheckImages:
    return CheckImages(where, tuple(map(str, paths)), lambda index: read_image_bytes(paths[index]), split)
