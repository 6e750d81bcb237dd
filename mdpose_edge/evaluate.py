"""Accuracy of an artifact, by COCO's own protocol.

The protocol is not ours to rewrite: faster-coco-eval computes the figures. Why that library:
docs/decisions/0002-coco-protocol.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.coco import CocoSplit, load_split, results_of
from mdpose_edge.errors import ConfigError, DataError
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.images import read_image
from mdpose_edge.machine.facts import machine_identity
from mdpose_edge.optional import require
from mdpose_edge.poses import Poses
from mdpose_edge.spec import COCO_KEYPOINTS, DecodeSpec

MAX_POSES_PER_IMAGE = 20
"""COCO's protocol for keypoints counts the best 20 of an image and no more (maxDets)."""
EVAL_DECODE = DecodeSpec(score_threshold=1e-4, nms="box", nms_threshold=0.7, max_poses=MAX_POSES_PER_IMAGE)
"""As MDPose's paper evaluates: AP integrates over all scores, so that the threshold lies far below that of use."""
FIGURES = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
"""COCO's ten figures for keypoints, in the order of its evaluation code."""

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation measured, on what and where."""

    model: str
    engine: str
    data: str
    split: str
    images: int
    figures: dict[str, float | None]
    """FIGURES in [0, 1]; None where no annotated person falls into the figure's range of sizes."""
    ms: dict[str, float]
    """"median" and "p90" over images, of frame to Poses: resize, engine and decoding, without reading the file."""
    machine: dict[str, Any]
    results: list[dict[str, Any]]
    """In COCO's result format: see coco.write_results."""

    def to_json_dict(self) -> dict[str, Any]:
        """Give all but the results, ready for json.dump."""
        return {name: value for name, value in vars(self).items() if name != "results"}


def evaluate(
    model: str | Path,
    data_dir: str | Path,
    split: str = "val",
    *,
    runtime: str | None = None,
    threads: int | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure an artifact's accuracy on a split.

    Args:
        model: a checkpoint or a bundle.
        data_dir: a folder in COCO's layout.
        split: "train", "val", ...
        runtime: the engine, or None for the artifact's own choice.
        threads: CPU threads of the engine, or None for its default.
        limit: only the first so many images, or None for all.
        progress: called after each image.

    Raises:
        MissingPackageError: the extra `eval` is not installed.
        DataError: the split cannot be used, or annotates other keypoints than the artifact predicts.
        MdposeError: the artifact or the engine fails.
    """
    _evaluation_library()  # before minutes of inference
    data = load_split(data_dir, split)
    with PoseEstimator(model, runtime=runtime, threads=threads, decode=EVAL_DECODE) as estimator:
        keypoints = estimator.spec.keypoints
        if keypoints.names != data.keypoint_names:
            expected = f"the keypoints that {model} predicts ({', '.join(keypoints.names)})"
            do = "evaluate on data annotated alike"
            raise DataError(str(data.annotation_file), expected=expected, got=", ".join(data.keypoint_names), do=do)
        results, milliseconds = run_estimator(estimator, data, limit=limit, progress=progress)
        engine = estimator.engine
    return Evaluation(
        model=str(model),
        engine=engine,
        data=str(data_dir),
        split=split,
        images=len(milliseconds),
        figures=coco_figures(data, results, sigmas=keypoints.sigmas, num_images=len(milliseconds)),
        ms={"median": float(np.median(milliseconds)), "p90": float(np.percentile(milliseconds, 90))},
        machine=machine_identity(),
        results=results,
    )


def run_estimator(
    estimator: Callable[[NDArray[np.uint8]], Poses],
    split: CocoSplit,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
) -> tuple[list[dict[str, Any]], list[float]]:
    """Run an estimator over the images of a split, pixels as stored, which is what COCO's annotations refer to.

    Args:
        estimator: BGR frame to Poses.
        split: what `load_split` gave.
        limit: only the first so many images, or None for all.
        progress: called after each image.

    Returns:
        The results of all images in COCO's format, and the milliseconds that the estimator took for each image. One
        call on the first image goes ahead unmeasured: engines allocate on their first run.

    Raises:
        InputError: an image cannot be read.
        ConfigError: the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError("limit", expected="at least 1 image", got=str(limit), do="raise it, or leave it out")
    images = split.images[:limit]
    estimator(read_image(images[0].path, orient=False))
    results: list[dict[str, Any]] = []
    milliseconds: list[float] = []
    for image in images:
        frame = read_image(image.path, orient=False)
        start = time.perf_counter()
        poses = estimator(frame)
        milliseconds.append(1e3 * (time.perf_counter() - start))
        results += results_of(image.id, poses)
        if progress is not None:
            progress(len(milliseconds), len(images))
    return results, milliseconds


def coco_figures(
    split: CocoSplit,
    results: Sequence[Mapping[str, Any]],
    *,
    sigmas: Sequence[float] = COCO_KEYPOINTS.sigmas,
    num_images: int | None = None,
) -> dict[str, float | None]:
    """Compute COCO's ten keypoint figures.

    Args:
        split: the ground truth.
        results: COCO's result format; images without results count as images without poses. Not modified.
        sigmas: the keypoints' OKS constants.
        num_images: only the first so many images of the split, or None for all.

    Returns:
        FIGURES in [0, 1]; None where no annotated person falls into the figure's range of sizes.

    Raises:
        MissingPackageError: the extra `eval` is not installed.
        DataError: a result is for an image that is not among these.
    """
    library = _evaluation_library()
    dataset = split.ground_truth(num_images)
    strangers = {row["image_id"] for row in results} - {image["id"] for image in dataset["images"]}
    if strangers:
        got = f"image_id {min(strangers)}"
        raise DataError("results", expected=f"images of {split.annotation_file}", got=got, do="evaluate its own images")
    truth = library.COCO(dataset)
    rows = [dict(row) for row in results]  # the library writes area, box and id into them
    found = truth.loadRes(rows) if rows else library.COCO({**dataset, "annotations": []})
    protocol = library.COCOeval_faster(truth, found, iouType="keypoints", kpt_oks_sigmas=list(sigmas))
    protocol.evaluate()
    protocol.accumulate()
    protocol.summarize()
    return {name: None if value < 0 else float(value) for name, value in zip(FIGURES, protocol.stats, strict=True)}


def _evaluation_library() -> Any:
    return require("faster_coco_eval", extra="eval", feature="COCO's evaluation protocol")
