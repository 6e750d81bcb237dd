"""A side of a check that is known by its COCO results alone, as another machine wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.check.images import CheckImage, CheckImages
from mdpose_edge.common.json_text import parse_json
from mdpose_edge.datasets.coco import CocoSplit
from mdpose_edge.errors import DataError
from mdpose_edge.families.measure import Observation
from mdpose_edge.families.registry import evaluation_of
from mdpose_edge.poses import Poses
from mdpose_edge.spec import ModelSpec

RESULTS_SUFFIX = ".json"
MAX_IMAGES_WITHOUT_RESULTS = 0.1
"""Of the images with people. At the threshold of an evaluation nearly every image has results: where many have none,
the evaluation was of fewer images."""


class Results:
    """COCO results of the same images, as `mdpose-edge eval` writes them.

    Args:
        path: the results.
        images: with annotations, of the split that the results are for.
        candidate: whose threshold of use and keypoints apply.

    Raises:
        DataError: not COCO results, of other images or keypoints, or lacking results for many images with people.
    """

    batch = 1
    engine = "results on file"
    spec = None

    def __init__(self, path: str | Path, images: CheckImages, candidate: ModelSpec) -> None:
        self.name = str(path)
        if images.split is None:
            do = "give --data a folder in COCO's layout, or record head tensors with --record"
            raise DataError(self.name, expected="annotated images for a results file", got=images.where, do=do)
        self._threshold = candidate.decode.score_threshold
        self._num_keypoints = len(candidate.keypoints.names)
        self._max_poses = evaluation_of(candidate).max_poses
        self._category_ids = images.split.result_ids
        rows = _read_rows(self.name, *(("keypoints", 3 * self._num_keypoints) if self._num_keypoints else ("bbox", 4)))
        self._rows = _rows_by_image(images.split.from_file_order(rows))
        self._check_images(images.split, len(images))

    def observe(self, images: Sequence[CheckImage]) -> list[Observation]:
        """Look the images up: see Side."""
        return [self._observe(image.image_id) for image in images]

    def close(self) -> None:
        """Do nothing: the file was read."""

    def _observe(self, image_id: int | None) -> Observation:
        rows = sorted(self._rows.get(image_id, []), key=lambda row: -float(row["score"]))[: self._max_poses]
        scores = np.array([row["score"] for row in rows], np.float32)
        poses = self._poses(rows, scores) if self._num_keypoints else self._boxes(rows, scores)
        return Observation(poses, poses.take(scores > self._threshold))

    def _poses(self, rows: Sequence[Mapping[str, Any]], scores: NDArray[np.float32]) -> Poses:
        triples = np.array([row["keypoints"] for row in rows], np.float32).reshape(len(rows), self._num_keypoints, 3)
        return Poses(triples[..., :2].copy(), scores, np.full_like(triples[..., :2], np.nan))

    def _boxes(self, rows: Sequence[Mapping[str, Any]], scores: NDArray[np.float32]) -> Poses:
        corners = np.array([row["bbox"] for row in rows], np.float32).reshape(len(rows), 4)
        corners[:, 2:] += corners[:, :2]
        nothing = np.zeros((len(rows), 0, 2), np.float32)
        unknown = {row.get("category_id") for row in rows} - set(self._category_ids)
        if unknown:
            expected = f"the category ids {', '.join(map(str, self._category_ids))} of the annotations"
            do = "evaluate the reference on the same data"
            raise DataError(self.name, expected=expected, got=str(min(unknown, key=str)), do=do)
        classes = np.array([self._category_ids.index(row["category_id"]) for row in rows], np.int64)
        return Poses(nothing, scores, nothing.copy(), corners, classes)

    def _check_images(self, split: CocoSplit, count: int) -> None:
        """Refuse results of other images, or of fewer: they would make the reference look worse than it is."""
        strangers = self._rows.keys() - {image.id for image in split.images}
        if strangers:
            expected, do = f"images of {split.annotation_file}", "evaluate the reference on the same split"
            raise DataError(self.name, expected=expected, got=f"image_id {min(strangers)}", do=do)
        with_people = [image.id for i, image in enumerate(split.images[:count]) if len(split.persons(i))]
        missing = [image_id for image_id in with_people if image_id not in self._rows]
        if len(missing) > MAX_IMAGES_WITHOUT_RESULTS * len(with_people):
            expected = f"results for the {len(with_people)} images with people"
            do = "evaluate the reference on all of them, or check fewer with --limit"
            raise DataError(self.name, expected=expected, got=f"none for {len(missing)} of them", do=do)


def _read_rows(where: str, key: str, length: int) -> list[Mapping[str, Any]]:
    do = "give the --results file of mdpose-edge eval"
    try:
        rows = parse_json(Path(where).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(where, expected="COCO results", got=str(error), do=do) from error
    if not isinstance(rows, list):
        raise DataError(where, expected="a list of COCO results", got=f"a {type(rows).__name__}", do=do)
    for number, row in enumerate(rows):
        fault = _fault(row, key, length)
        if fault:
            what = "keypoint numbers" if key == "keypoints" else f"numbers under {key}"
            expected = f"results with image_id, score and {length} {what}"
            raise DataError(where, expected=expected, got=f"{fault} in result {number}, counted from 0", do=do)
    return rows


def _fault(row: Any, key: str, length: int) -> str:
    """Return what is wrong with a result, or nothing."""
    if not isinstance(row, dict):
        return f"a {type(row).__name__}"
    missing = [name for name in ("image_id", "score", key) if name not in row]
    if missing:
        return f"no {missing[0]}"
    if not isinstance(row["image_id"], int):
        return f"image_id {row['image_id']!r}, a {type(row['image_id']).__name__},"
    shapes: dict[str, tuple[int, ...]] = {"score": (), key: (length,)}
    for name, shape in shapes.items():
        try:
            values = np.array(row[name], np.float64)
        except (TypeError, ValueError):
            return f"{name} of other than numbers"
        if values.shape != shape:
            return f"{name} of shape {values.shape}"
        if not np.isfinite(values).all():
            return f"{name} not finite"
    return ""


def _rows_by_image(rows: Sequence[Mapping[str, Any]]) -> dict[Any, list[Mapping[str, Any]]]:
    found: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["image_id"], []).append(row)
    return found
