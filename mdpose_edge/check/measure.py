"""What a check measures: both sides over the same images, one pass, one chunk of images in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.check.colour import swapped_log_odds, warmth
from mdpose_edge.check.frames import Frame, Frames, Progress
from mdpose_edge.check.matching import coverage, disagreement, match, oks_matrix, paired_scores
from mdpose_edge.check.measurement import (
    CENTRAL_SHARES,
    Accuracy,
    Divergence,
    ImagePair,
    Measurement,
    OutputSums,
    Pair,
    Scores,
    SliceAccuracy,
    Uncertainty,
)
from mdpose_edge.check.sides import Artifact, Observation, Side, same_cells, settings_apart
from mdpose_edge.check.slices import SLICES, labelled_people, restrict
from mdpose_edge.datasets.coco import CocoSplit, Persons, results_of
from mdpose_edge.evaluate import FIGURES, coco_figures
from mdpose_edge.families.mixture import joint_nll, mixture_divergence
from mdpose_edge.poses import Poses
from mdpose_edge.spec import ModelSpec


def measure(
    candidate: Artifact,
    reference: Side,
    frames: Frames,
    progress: Progress | None = None,
    *,
    calibration: Iterable[NDArray[np.uint8]] = (),
) -> Measurement:
    """Run both sides over the images and measure all that can be.

    Args:
        candidate: what is asked about.
        reference: what the candidate should be.
        frames: with annotations, or without: then accuracy and uncertainty are not measured.
        progress: called after each chunk of images.
        calibration: the inputs (H, W, 3) that the candidate's ranges were measured on, where they are at hand.

    Raises:
        MissingPackageError: accuracy needs the extra `eval`.
        MdposeError: an image, artifact or engine fails.
    """
    tally = _Tally(candidate.spec, reference.spec, frames.split, [warmth(image) for image in calibration])
    size = max(candidate.batch, reference.batch)
    for start in range(0, len(frames), size):
        chunk = [frames[index] for index in range(start, min(start + size, len(frames)))]
        seen = zip(candidate.observe(chunk), reference.observe(chunk), strict=True)
        for offset, (frame, pair) in enumerate(zip(chunk, seen, strict=True)):
            tally.add(start + offset, frame, *pair)
        if progress is not None:
            progress(start + len(chunk), len(frames))
    return tally.measurement(len(frames))


@dataclass
class _Tally:
    """Sums up image by image, so that no more than a chunk of head tensors is ever in memory."""

    candidate: ModelSpec
    reference: ModelSpec | None
    split: CocoSplit | None
    calibration_warmth: list[float]
    warmth: list[float] = field(default_factory=list)
    images: list[ImagePair] = field(default_factory=list)
    scores: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=list)
    results: tuple[list[Any], list[Any]] = field(default_factory=lambda: ([], []))
    deployed: tuple[list[Any], list[Any]] = field(default_factory=lambda: ([], []))
    nll: list[NDArray[np.float64]] = field(default_factory=list)
    ratios: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = field(default_factory=lambda: ([], []))
    divergence: list[tuple[float, float]] = field(default_factory=list)
    outputs: dict[str, OutputSums] = field(default_factory=dict)

    def add(self, index: int, frame: Frame, candidate: Observation, reference: Observation) -> None:
        sigmas = self.candidate.keypoints.sigmas
        if self.calibration_warmth:
            self.warmth.append(warmth(frame.pixels))
        apart = disagreement(candidate.deployed, reference.deployed, sigmas)
        self.images.append(ImagePair(index, candidate.deployed, reference.deployed, apart))
        threshold = self.candidate.decode.score_threshold
        self.scores.append(paired_scores(candidate.poses, reference.poses, threshold, sigmas))
        if self._one_model():
            self._compare_components(candidate, reference)
        if self.split is not None:
            people = self.split.persons(index)
            self.nll.append(np.stack([_nll(side, people) for side in (candidate, reference)], axis=1))
            for side, observed in enumerate((candidate, reference)):
                self._grade(side, frame, observed, people)

    def measurement(self, num_images: int) -> Measurement:
        candidate, reference = (np.concatenate(parts) for parts in zip(*self.scores, strict=True))
        return Measurement(
            accuracy=None if self.split is None else self._accuracy(self.split, num_images),
            uncertainty=None if self.split is None else self._uncertainty(),
            scores=Scores(candidate, reference),
            divergence=self._divergence() if self._one_model() else None,
            settings_apart=self._settings_apart(),
            images=tuple(self.images),
            calibration_images=len(self.calibration_warmth) or None,
            swapped_colours=swapped_log_odds(self.calibration_warmth, self.warmth),
        )

    def _one_model(self) -> bool:
        return self.reference is not None and same_cells(self.candidate, self.reference)

    def _settings_apart(self) -> tuple[str, ...] | None:
        return None if self.reference is None else settings_apart(self.candidate, self.reference)

    def _compare_components(self, candidate: Observation, reference: Observation) -> None:
        assert candidate.mixture is not None and reference.mixture is not None
        self.divergence.append(mixture_divergence(candidate.mixture, reference.mixture))
        for name, expected in (reference.heads or {}).items():
            self.outputs.setdefault(name, OutputSums()).add((candidate.heads or {})[name], expected)

    def _grade(self, side: int, frame: Frame, observed: Observation, people: Persons) -> None:
        assert frame.image_id is not None
        self.results[side].extend(results_of(frame.image_id, observed.poses))
        self.deployed[side].extend(results_of(frame.image_id, observed.deployed))
        self.ratios[side].append(_error_ratios(observed.poses, people, self.candidate.keypoints.sigmas))

    def _accuracy(self, split: CocoSplit, num_images: int) -> Accuracy:
        def figures(rows: Sequence[Any], part: CocoSplit = split) -> dict[str, float | None]:
            return coco_figures(part, rows, sigmas=self.candidate.keypoints.sigmas, num_images=num_images)

        def ap(results: Iterable[Sequence[Any]], part: CocoSplit = split) -> Pair:
            return Pair(*(figures(rows, part)["AP"] for rows in results))

        both = [figures(rows) for rows in self.results]
        counted = labelled_people(split)
        counted[split.first_person[num_images] :] = False
        slices = []
        for one in SLICES:
            members = one.members(split) & counted
            slices.append(SliceAccuracy(one, int(members.sum()), ap(self.results, restrict(split, members))))
        pairs = {name: Pair(*(side[name] for side in both)) for name in FIGURES}
        return Accuracy(pairs, ap(self.deployed), tuple(slices))

    def _uncertainty(self) -> Uncertainty:
        ratios = [np.concatenate(side) for side in self.ratios]
        shares = {
            share: Pair(*(coverage(side, share) if len(side) else None for side in ratios)) for share in CENTRAL_SHARES
        }
        return Uncertainty(np.concatenate(self.nll), shares, min(map(len, ratios)))

    def _divergence(self) -> Divergence:
        weights, components = np.array(self.divergence).T
        return Divergence(weights, components, tuple(sums.error(name) for name, sums in self.outputs.items()))


def _labelled(people: Persons) -> NDArray[np.bool_]:
    """Give (N, K): the keypoints that are labelled and that the protocol counts."""
    labelled: NDArray[np.bool_] = (people.keypoints[..., 2] > 0) & ~people.iscrowd[:, None]
    return labelled


def _nll(observed: Observation, people: Persons) -> NDArray[np.float64]:
    """Give (people with labels,) nats per labelled keypoint; NaN without a mixture."""
    labelled = _labelled(people)
    counts = labelled.sum(axis=1)
    counted = counts > 0
    if observed.mixture is None:
        return np.full(int(counted.sum()), np.nan)
    nll = joint_nll(observed.mixture, people.keypoints[counted, :, :2], labelled[counted])
    per_keypoint: NDArray[np.float64] = nll / counts[counted]
    return per_keypoint


def _error_ratios(poses: Poses, people: Persons, sigmas: Sequence[float]) -> NDArray[np.float64]:
    """Give |error| / sigma of each labelled coordinate of people who have a pose; nothing where sigmas are unknown."""
    labelled = _labelled(people)
    oks = oks_matrix(poses.keypoints_xy, people.keypoints[..., :2], labelled, people.areas, sigmas)
    pairs = match(oks)
    found = np.flatnonzero(pairs >= 0)
    seen = labelled[pairs[found]]
    error = np.abs(poses.keypoints_xy[found] - people.keypoints[pairs[found], :, :2])[seen].astype(np.float64)
    sigma = poses.sigma_xy[found][seen].astype(np.float64)
    known = np.isfinite(sigma)
    ratios: NDArray[np.float64] = error[known] / np.maximum(sigma[known], np.spacing(1.0))
    return ratios
