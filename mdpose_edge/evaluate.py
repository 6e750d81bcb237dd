"""Accuracy of an artifact, by the protocol of the data: COCO's of keypoints or of boxes, CrowdPose's or OCHuman's.

The protocols are not ours to rewrite: faster-coco-eval computes the figures. Why that library:
docs/decisions/0002-coco-protocol.md. What the three differ in: docs/data.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mdpose_edge.camera import Camera
from mdpose_edge.common.optional import require
from mdpose_edge.common.progress import Progress
from mdpose_edge.datasets.coco import CocoSplit, Persons, results_of
from mdpose_edge.datasets.images import read_annotated
from mdpose_edge.datasets.readers import open_split
from mdpose_edge.datasets.three_d import camera_at
from mdpose_edge.errors import ConfigError, DataError
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.families.registry import evaluation_of
from mdpose_edge.families.solid import root_of
from mdpose_edge.families.solid_figures import SolidFigures
from mdpose_edge.machine.facts import machine_identity
from mdpose_edge.poses import Poses
from mdpose_edge.runtimes.registry import read_model_spec
from mdpose_edge.spec import COCO_KEYPOINTS, KeypointSpec, ModelSpec

FIGURES = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
"""COCO's ten figures for keypoints, in the order of its evaluation code."""
BOX_FIGURES = ("AP", "AP50", "AP75", "APS", "APM", "APL", "AR1", "AR10", "AR100", "ARS", "ARM", "ARL")
"""COCO's twelve figures for boxes, likewise: means over the categories."""
CROWDPOSE_FIGURES = ("AP", "AP50", "AP75", "AR", "AR50", "AR75")
"""Those of the ten that CrowdPose reports, which has no figures by size."""
CROWD_LEVELS = {
    "AP_easy": (0.0, 0.1),
    "AP_medium": (0.1, 0.8),
    "AP_hard": (0.8, np.inf),
    "AP_easy_0.2": (0.0, 0.2),
    "AP_medium_0.2": (0.2, 0.8),
}
"""CrowdPose's levels: images whose crowdIndex lies in [low, high). The paper (Li et al., CVPR 2019) has easy up to 0.1;
the evaluation code that it came with, and so most published figures, up to 0.2. Both are given."""


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation measured, on what and where."""

    model: str
    engine: str
    data: str
    split: str
    images: int
    figures: dict[str, float | None]
    """Those of the protocol, in [0, 1]; None where no annotated person falls into the figure's range."""
    ms: dict[str, float]
    """"median" and "p90" over images, of frame to Poses: resize, engine and decoding, without reading the file."""
    machine: dict[str, Any]
    results: list[dict[str, Any]]
    """In COCO's result format, with the category and the order of keypoints of the annotations: see write_results."""
    format: str = "coco"
    """Whose annotations and protocol: one of layout.FORMATS."""
    doubts: dict[str, int] = field(default_factory=dict)
    """What of the annotations seems wrong and is taken as it stands: how many people show it, by kind."""
    solid: dict[str, float | None] | None = None
    """Of the third dimension, where model and annotations have one: see families/solid_figures.py."""

    def to_json_dict(self) -> dict[str, Any]:
        """Return all but the results, ready for json.dump."""
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
    data_format: str | None = None,
    keypoints: KeypointSpec | None = None,
    camera: Camera | float | None = None,
) -> Evaluation:
    """Measure an artifact's accuracy on a split.

        found = evaluate("bundle/", "path/to/coco")
        print(found.figures["AP"], found.ms["median"])

    Args:
        model: a checkpoint or a bundle.
        data_dir: a dataset's folder, as docs/data.md lays it out.
        split: "train", "val", ...
        runtime: the engine, or None for the artifact's own choice.
        threads: CPU threads of the engine, or None for its default.
        limit: only the first so many images, or None for all.
        progress: called after each image.
        data_format: "coco", "crowdpose", "ochuman", "instances", or None to take the only one that is there.
        keypoints: the OKS constants to measure with, for the artifact's own keypoints; None takes the artifact's.
        camera: of images whose annotations have none: see PoseEstimator.

    Raises:
        MissingPackageError: the extra `eval` is not installed.
        ConfigError: `keypoints` are not those that the artifact predicts.
        DataError: the split cannot be used, annotates nobody, or does not annotate the keypoints or categories that
            the artifact predicts.
        MdposeError: the artifact or the engine fails.
    """
    _evaluation_library()  # before minutes of inference
    decode = evaluation_of(read_model_spec(model))
    with PoseEstimator(model, runtime=runtime, threads=threads, decode=decode, camera=camera) as estimator:
        keypoints = _measured_keypoints(str(model), estimator.spec.keypoints, keypoints)
        data = open_split(data_dir, split, data_format, keypoints, estimator.spec.classes)
        data.check_people(limit)
        solid = _solid_figures(estimator.spec, data, keypoints.sigmas)
        results, milliseconds = run_estimator(estimator, data, limit=limit, progress=progress, solid=solid)
        engine = estimator.engine
    return Evaluation(
        model=str(model),
        engine=engine,
        data=str(data_dir),
        split=split,
        images=len(milliseconds),
        figures=protocol_figures(data, results, sigmas=keypoints.sigmas, num_images=len(milliseconds)),
        ms={"median": float(np.median(milliseconds)), "p90": float(np.percentile(milliseconds, 90))},
        machine=machine_identity(),
        results=data.in_file_order(results),
        format=data.format,
        solid=None if solid is None else solid.figures(),
        doubts=dict(data.doubts),
    )


def run_estimator(
    estimator: Callable[..., Poses],
    split: CocoSplit,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
    solid: SolidFigures | None = None,
) -> tuple[list[dict[str, Any]], list[float]]:
    """Run an estimator over the images of a split, in the frame that its annotations mean.

    Args:
        estimator: BGR frame to Poses; where `solid` is given, it takes the image's camera too.
        split: what `load_split` gave.
        limit: only the first so many images, or None for all.
        progress: called after each image.
        solid: takes the poses and the people of each image.

    Returns:
        The results of all images in COCO's format, and the milliseconds that the estimator took for each image. One
        call on the first image goes ahead unmeasured: engines allocate on their first run.

    Raises:
        InputError: an image cannot be read.
        DataError: an image is not of the size that the annotations state.
        ConfigError: the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError("limit", expected="at least 1 image", got=str(limit), do="raise it, or leave it out")
    images = split.images[:limit]
    estimator(read_annotated(images[0].path, images[0].wh)[0])
    results: list[dict[str, Any]] = []
    milliseconds: list[float] = []
    for index, image in enumerate(images):
        frame, _ = read_annotated(image.path, image.wh)
        more = () if solid is None else (camera_at(split.cameras, index),)
        start = time.perf_counter()
        poses = estimator(frame, *more)
        milliseconds.append(1e3 * (time.perf_counter() - start))
        results += results_of(image.id, poses, split.result_ids)
        if solid is not None:
            _add_people(solid, poses, split.persons(index))
        if progress is not None:
            progress(len(milliseconds), len(images))
    return results, milliseconds


def figure_names(split: CocoSplit) -> tuple[str, ...]:
    """Return the names of what `protocol_figures` measures on a split, in its order."""
    if split.categories is not None:
        return BOX_FIGURES
    return FIGURES if split.crowd_index is None else (*CROWDPOSE_FIGURES, *CROWD_LEVELS)


def protocol_figures(
    split: CocoSplit,
    results: Sequence[Mapping[str, Any]],
    *,
    sigmas: Sequence[float],
    num_images: int | None = None,
) -> dict[str, float | None]:
    """Compute the figures of the split's own protocol; arguments and errors as of `coco_figures`.

    Returns:
        COCO and OCHuman: FIGURES. CrowdPose: CROWDPOSE_FIGURES and an AP for each of CROWD_LEVELS. Instances:
        BOX_FIGURES.
    """
    if split.categories is not None:
        return box_figures(split, results, num_images=num_images)
    figures = coco_figures(split, results, sigmas=sigmas, num_images=num_images)
    if split.crowd_index is None:
        return figures
    kept = {name: figures[name] for name in CROWDPOSE_FIGURES}
    for name, (low, high) in CROWD_LEVELS.items():
        members = (split.crowd_index[:num_images] >= low) & (split.crowd_index[:num_images] < high)
        ids = [image.id for image, member in zip(split.images, members, strict=False) if member]
        level = coco_figures(split, results, sigmas=sigmas, num_images=num_images, image_ids=ids) if ids else {}
        kept[name] = level.get("AP")
    return kept


def coco_figures(
    split: CocoSplit,
    results: Sequence[Mapping[str, Any]],
    *,
    sigmas: Sequence[float] = COCO_KEYPOINTS.sigmas,
    num_images: int | None = None,
    image_ids: Sequence[int] | None = None,
) -> dict[str, float | None]:
    """Compute COCO's ten keypoint figures.

    Args:
        split: the ground truth.
        results: COCO's result format; images without results count as images without poses. Not modified.
        sigmas: the keypoints' OKS constants.
        num_images: only the first so many images of the split, or None for all.
        image_ids: only these of them, or None for all.

    Returns:
        FIGURES in [0, 1]; None where no annotated person falls into the figure's range of sizes.

    Raises:
        MissingPackageError: the extra `eval` is not installed.
        DataError: a result is for an image that is not among these.
    """
    return _figures("keypoints", split, results, FIGURES, num_images, image_ids, kpt_oks_sigmas=list(sigmas))


def box_figures(
    split: CocoSplit, results: Sequence[Mapping[str, Any]], *, num_images: int | None = None
) -> dict[str, float | None]:
    """Compute COCO's twelve figures for boxes; arguments and errors as of `coco_figures`.

    Returns:
        BOX_FIGURES in [0, 1]; None where no annotated box falls into the figure's range of sizes.
    """
    return _figures("bbox", split, results, BOX_FIGURES, num_images, None)


def _figures(
    kind: str,
    split: CocoSplit,
    results: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    num_images: int | None,
    image_ids: Sequence[int] | None,
    **options: Any,
) -> dict[str, float | None]:
    library = _evaluation_library()
    dataset = split.ground_truth(num_images)
    strangers = {row["image_id"] for row in results} - {image["id"] for image in dataset["images"]}
    if strangers:
        got = f"image_id {min(strangers)}"
        raise DataError("results", expected=f"images of {split.annotation_file}", got=got, do="evaluate its own images")
    truth = library.COCO(dataset)
    rows = [dict(row) for row in results]  # the library writes area, box and id into them
    found = truth.loadRes(rows) if rows else library.COCO({**dataset, "annotations": []})
    protocol = library.COCOeval_faster(truth, found, iouType=kind, **options)
    if image_ids is not None:
        protocol.params.imgIds = sorted(image_ids)
    protocol.evaluate()
    protocol.accumulate()
    protocol.summarize()
    return {name: None if value < 0 else float(value) for name, value in zip(names, protocol.stats, strict=True)}


def _measured_keypoints(model: str, predicted: KeypointSpec, given: KeypointSpec | None) -> KeypointSpec:
    if given is not None and given.names != predicted.names:
        expected = f"the keypoints that {model} predicts ({', '.join(predicted.names)})"
        raise ConfigError("--keypoints", expected=expected, got=", ".join(given.names), do="name the model's own set")
    return given or predicted


def _solid_figures(spec: ModelSpec, data: CocoSplit, sigmas: Sequence[float]) -> SolidFigures | None:
    """Return what measures the third dimension, or None where the model or the annotations have none."""
    if spec.dimensions != 3 or data.keypoints_3d is None:
        return None
    return SolidFigures(root_of(spec.keypoints), sigmas)


def _add_people(solid: SolidFigures, poses: Poses, people: Persons) -> None:
    assert people.keypoints_3d is not None
    single = ~people.iscrowd
    solid.add(poses, people.keypoints[single], people.areas[single], people.keypoints_3d[single])


def _evaluation_library() -> Any:
    return require("faster_coco_eval", extra="eval", feature="COCO's evaluation protocol")
