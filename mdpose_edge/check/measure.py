"""Both sides over the same images, shown to every measure: one pass, one chunk of images in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.check.images import CheckImage, CheckImages
from mdpose_edge.check.limits import Limits
from mdpose_edge.check.matching import disagreement
from mdpose_edge.check.measures.accuracy import AccuracyMeasure
from mdpose_edge.check.measures.boxes import BoxAccuracyMeasure, BoxShiftMeasure
from mdpose_edge.check.measures.calibration import CalibrationMeasure
from mdpose_edge.check.measures.colour import colour_cast
from mdpose_edge.check.measures.coverage import CoverageMeasure
from mdpose_edge.check.measures.outputs import OutputMeasure, TensorError
from mdpose_edge.check.measures.scores import ScoreMeasure
from mdpose_edge.check.measures.settings import SettingsMeasure
from mdpose_edge.check.measures.shift import ShiftMeasure
from mdpose_edge.check.sides import Artifact, Side
from mdpose_edge.common.progress import Progress
from mdpose_edge.datasets.coco import Persons
from mdpose_edge.families.measure import Finding, Histogram, Measure, Measured, ObservedImage, Truth
from mdpose_edge.families.registry import make_measures, sigma_law
from mdpose_edge.poses import Poses
from mdpose_edge.spec import ModelSpec


@dataclass(frozen=True)
class ImagePair:
    """What remains of one image: the poses as deployed, for the report, and how far they are apart."""

    index: int
    """In the images of the check."""
    candidate: Poses
    reference: Poses
    disagreement: float


@dataclass(frozen=True)
class Measurement:
    """All figures of a check."""

    measured: tuple[Measured, ...]
    """Of each measure."""
    outputs: tuple[TensorError, ...]
    """Of each head tensor; none where they cannot be compared."""
    images: tuple[ImagePair, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those of all measures."""
        return tuple(finding for measured in self.measured for finding in measured.findings)

    @property
    def histograms(self) -> tuple[Histogram, ...]:
        """Those of all measures."""
        return tuple(histogram for measured in self.measured for histogram in measured.histograms)

    def by_difference(self) -> list[ImagePair]:
        """Return the images that differ, most first: by the poses, and between equal ones by the measures in turn."""
        per_image = [measured.per_image for measured in self.measured if measured.per_image is not None]
        keys = np.array([[pair.disagreement for pair in self.images], *per_image])
        order = np.lexsort(-keys[::-1])
        return [self.images[i] for i in order if keys[:, i].any()]


def measure(
    candidate: Artifact,
    reference: Side,
    images: CheckImages,
    progress: Progress | None = None,
    *,
    calibration: Iterable[NDArray[np.uint8]] = (),
    limits: Limits | None = None,
) -> Measurement:
    """Run both sides over the images and measure all that can be.

    Args:
        candidate: what is asked about.
        reference: what the candidate should be.
        images: with annotations, or without: then what needs them is not measured.
        progress: called after each chunk of images.
        calibration: the inputs (H, W, 3) that the candidate's ranges were measured on, where they are at hand.
        limits: what to hold the figures against.

    Raises:
        MissingPackageError: accuracy needs the extra `eval`.
        MdposeError: an image, artifact or engine fails.
    """
    outputs, measures = _measures(candidate, reference, images, calibration, limits or Limits())
    pairs = []
    for index, observed in enumerate(_observe(candidate, reference, images, progress)):
        deployed = observed.candidate.deployed, observed.reference.deployed
        pairs.append(ImagePair(index, *deployed, disagreement(*deployed, candidate.spec.keypoints.sigmas)))
        for one in measures:
            one.add(observed)
    return Measurement(tuple(one.result() for one in measures), outputs.errors, tuple(pairs))


def _measures(
    candidate: Artifact,
    reference: Side,
    images: CheckImages,
    calibration: Iterable[NDArray[np.uint8]],
    limits: Limits,
) -> tuple[OutputMeasure, list[Measure]]:
    """Return the measures in the order of their findings, and of them that of the head tensors."""
    spec = candidate.spec
    outputs = OutputMeasure(spec, reference.spec, limits.outputs)
    measures: list[Measure] = [SettingsMeasure(spec, reference.spec)]
    if casts := [colour_cast(image) for image in calibration]:
        measures.append(CalibrationMeasure(casts, limits.calibration))
    measures += (_keypoint_measures if spec.keypoints.names else _box_measures)(spec, images, limits)
    return outputs, [*measures, outputs, *make_measures(spec, reference.spec)]


def _keypoint_measures(spec: ModelSpec, images: CheckImages, limits: Limits) -> list[Measure]:
    """Return the measures of poses: AP of keypoints, and what pairs people by OKS."""
    sigmas = spec.keypoints.sigmas
    measures: list[Measure] = []
    if images.split is not None:
        measures.append(AccuracyMeasure(images.split, len(images), sigmas, limits.accuracy))
        measures.append(CoverageMeasure(sigmas, sigma_law(spec.family), limits.coverage))
    measures.append(ScoreMeasure(spec.decode.score_threshold, sigmas, limits.scores))
    measures.append(ShiftMeasure(sigmas, limits.shift))
    return measures


def _box_measures(spec: ModelSpec, images: CheckImages, limits: Limits) -> list[Measure]:
    """Return the measures of boxes: AP of boxes, and what pairs them by IoU."""
    measures: list[Measure] = []
    if images.split is not None:
        measures.append(BoxAccuracyMeasure(images.split, len(images), limits.accuracy))
    measures.append(ScoreMeasure(spec.decode.score_threshold, (), limits.scores))
    measures.append(BoxShiftMeasure(limits.boxes))
    return measures


def _observe(
    candidate: Artifact, reference: Side, images: CheckImages, progress: Progress | None
) -> Iterator[ObservedImage]:
    """Run both sides, as many images at a time as the larger batch."""
    size = max(candidate.batch, reference.batch)
    for start in range(0, len(images), size):
        chunk = [images[index] for index in range(start, min(start + size, len(images)))]
        seen = zip(candidate.observe(chunk), reference.observe(chunk), strict=True)
        for offset, (image, sides) in enumerate(zip(chunk, seen, strict=True)):
            yield ObservedImage(image.pixels, *sides, _truth(images, start + offset, image))
        if progress is not None:
            progress(start + len(chunk), len(images))


def _truth(images: CheckImages, index: int, image: CheckImage) -> Truth | None:
    if images.split is None or image.image_id is None:
        return None
    people = images.split.persons(index)
    if people.classes is not None:
        return _box_truth(image.image_id, people, people.classes)
    labelled = (people.keypoints[..., 2] > 0) & ~people.iscrowd[:, None]
    joints = people.keypoints_3d
    return Truth(image.image_id, people.keypoints[..., :2], labelled, people.areas, keypoints_3d=joints)


def _box_truth(image_id: int, boxes: Persons, classes: NDArray[np.int64]) -> Truth:
    single = ~boxes.iscrowd
    corners = boxes.boxes_xywh[single]
    corners[:, 2:] += corners[:, :2]
    keypoints = boxes.keypoints[single]
    return Truth(image_id, keypoints[..., :2], keypoints[..., 2] > 0, boxes.areas[single], corners, classes[single])
