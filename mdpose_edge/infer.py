"""Poses of image files: painted copies and a JSON document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.draw import draw_poses
from mdpose_edge.errors import InputError
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.images import list_images, read_image, write_image
from mdpose_edge.poses import Poses
from mdpose_edge.spec import KeypointSpec
from mdpose_edge.stream.painted import plan_copies
from mdpose_edge.stream.records import pose_records

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


def infer_images(
    model: str | Path,
    sources: Sequence[str | Path],
    out_dir: str | Path,
    *,
    runtime: str | None = None,
    threads: int | None = None,
    threshold: float = 0.3,
    sigma: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Find the poses in images, and paint a copy of each.

    That all sources exist, and that no painted copy takes another's name or a source's, is checked before the model is
    opened. An image that turns out unreadable ends the run there: copies painted before it are whole, and no copy of it
    or of a later one is made.

    Args:
        model: a checkpoint or a bundle.
        sources: files, folders and globs: see images.list_images. EXIF orientation is honoured: coordinates refer to
            the upright picture, as the painted copy shows it.
        out_dir: where the painted copies go; made where missing.
        runtime: the engine, or None for the artifact's own choice.
        threads: CPU threads of the engine, or None for its default.
        threshold: poses with a score at or below this are left out.
        sigma: True also paints each keypoint's uncertainty.
        progress: called after each image.

    Returns:
        {"model", "engine", "images": [{"file", "painted", "width", "height", "poses": [{"score", "keypoints_xy",
        "sigma_xy"}]}]}, ready for json.dump; coordinates and sigmas in px.

    Raises:
        InputError: a source or image cannot be used, or painted copies would overwrite something.
        MdposeError: the artifact or the engine fails.
    """
    copies = plan_copies(list_images(sources), Path(out_dir))
    with PoseEstimator(model, runtime=runtime, threads=threads, threshold=threshold) as estimator:
        _make_folder(Path(out_dir))
        images = paint_images(estimator, copies, estimator.spec.keypoints, sigma=sigma, progress=progress)
        return {"model": str(model), "engine": estimator.engine, "images": images}


def paint_images(
    estimator: Callable[[NDArray[np.uint8]], Poses],
    copies: dict[Path, Path],
    keypoints: KeypointSpec,
    *,
    sigma: bool = False,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Run an estimator over image files and paint a copy of each.

    Args:
        estimator: BGR frame to Poses.
        copies: where the painted copy of each image goes.
        keypoints: what the estimator predicts.
        sigma: True also paints each keypoint's uncertainty.
        progress: called after each image.

    Returns:
        The records under "images" of `infer_images`.

    Raises:
        InputError: an image cannot be read.
    """
    records = []
    for source, painted in copies.items():
        frame = read_image(source, orient=True)
        poses = estimator(frame)
        write_image(painted, draw_poses(frame, poses, keypoints, sigma=sigma))
        height, width = frame.shape[:2]
        records.append(
            {
                "file": str(source),
                "painted": str(painted),
                "width": width,
                "height": height,
                "poses": pose_records(poses),
            }
        )
        if progress is not None:
            progress(len(records), len(copies))
    return records


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        got = f"the system's answer: {error.strerror}"
        do = "name a folder that can be made"
        raise InputError(str(path), expected="a folder for the painted copies", got=got, do=do) from error
