"""Which images: a sample in which every kind of scene has its share.

The draw depends on the seed and on the images' names alone, by sha256: it is the same on every machine, for every
version of numpy, in whatever order the images are listed.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np

from mdpose_edge.datasets.coco import Persons

PEOPLE_STRATA = {"0": 0, "1": 1, "2 to 4": 2, "5 and more": 5}
"""Kinds of scene by person count, each with its lowest value; the same below."""
SCALE_STRATA = {"below 0.1": 0.0, "0.1 to 0.25": 0.1, "0.25 and more": 0.25}
"""17, 7 and 12 of 36 images of COCO with people."""
OCCLUSION_STRATA = {"below 0.1": 0.0, "0.1 to 0.3": 0.1, "0.3 and more": 0.3}
"""14, 12 and 2 of the 28 among them with labelled keypoints; synth's people hide one another more."""


@dataclass(frozen=True)
class Traits:
    """What the annotations say of the people in an image; crowds do not count."""

    people: int
    scale: float | None
    """Median over people of sqrt(area of the person / area of the image), or None without people."""
    occlusion: float | None
    """Share of the labelled keypoints that are hidden, or None where none is labelled."""

    @property
    def stratum(self) -> tuple[int, int, int]:
        """The kind of scene: strata of person count, scale and occlusion."""
        return (
            stratum_of(self.people, PEOPLE_STRATA),
            stratum_of(self.scale, SCALE_STRATA),
            stratum_of(self.occlusion, OCCLUSION_STRATA),
        )


def stratum_of(value: float | None, strata: Mapping[str, float]) -> int:
    """Return the index of the stratum that a value lies in; 0 where there is nothing to measure."""
    return 0 if value is None else sum(value >= lowest for lowest in strata.values()) - 1


def traits_of(persons: Persons, image_wh: tuple[int, int]) -> Traits:
    """Sum up the annotations of one image.

    Args:
        persons: all of the image's people.
        image_wh: (width, height) px.
    """
    single = ~persons.iscrowd
    if not single.any():
        return Traits(0, None, None)
    shares = persons.areas[single] / (image_wh[0] * image_wh[1])
    visibility = persons.keypoints[single, :, 2]
    labelled, hidden = int((visibility > 0).sum()), int((visibility == 1).sum())
    return Traits(
        people=int(single.sum()),
        scale=round(float(np.median(np.sqrt(shares))), 4),
        occlusion=round(hidden / labelled, 4) if labelled else None,
    )


def rank_images(strata: Mapping[str, Hashable], seed: int) -> list[str]:
    """Put images in an order whose every beginning is a stratified sample.

    Each stratum comes once, as far as the sample reaches; then the strata come in proportion to their sizes.

    Args:
        strata: the stratum of each image, by name.
        seed: of the draw.

    Returns:
        The names: the first n are the sample of n, those after them its spares.
    """
    members: dict[Hashable, list[str]] = defaultdict(list)
    draw = {name: hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest() for name in strata}
    for name in sorted(strata, key=draw.__getitem__):
        members[strata[name]].append(name)
    place = {name: (index / len(names), draw[name]) for names in members.values() for index, name in enumerate(names)}
    return sorted(strata, key=place.__getitem__)
