"""Poses of image files: painted copies and a JSON document."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.camera import Camera
from mdpose_edge.common.files import files_together, name_text, refused
from mdpose_edge.common.outputs import check_output
from mdpose_edge.common.progress import Progress
from mdpose_edge.datasets.images import left_out, list_images, read_image, write_image
from mdpose_edge.draw import draw_poses
from mdpose_edge.errors import InputError
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.poses import Poses
from mdpose_edge.scene import beside
from mdpose_edge.spec import KeypointSpec
from mdpose_edge.stream.frames import Note, ignore_note
from mdpose_edge.stream.painted import plan_copies
from mdpose_edge.stream.records import pose_records

Copies = dict[Path, Path | None]
"""Images, and what the painted copy of each is called; None where there is none."""


def infer_images(
    model: str | Path,
    sources: Sequence[str | Path],
    out_dir: str | Path | None,
    *,
    runtime: str | None = None,
    threads: int | None = None,
    threshold: float | None = None,
    camera: Camera | float | None = None,
    sigma: bool = False,
    force: bool = False,
    strict: bool = False,
    note: Note = ignore_note,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Find the poses in images, and paint a copy of each where a folder for them is given.

    That all sources exist, and that no painted copy takes another's name or a source's, is checked before the model is
    opened. The copies appear together when all are painted. One of several images that cannot be read is left out and
    told; where none can be read, there is an error.

    Args:
        model: a checkpoint or a bundle.
        sources: files, folders and globs: see images.list_images. EXIF orientation is honoured: coordinates refer to
            the upright picture, as the painted copy shows it.
        out_dir: where the painted copies go, made where missing; None paints nothing.
        runtime: the engine, or None for the artifact's own choice.
        threads: CPU threads of the engine, or None for its default.
        threshold: poses with a score at or below this are left out; None takes the model's own.
        camera: what took the frames, for a model of three dimensions: see PoseEstimator.
        sigma: True also paints each keypoint's uncertainty.
        force: True lets painted copies replace files that no command here made.
        strict: True makes the first image that cannot be read an error: then there are no copies.
        note: called with a sentence about each file that is left out.
        stop: set it, also from a signal handler, and the run ends after the image under way.
        progress: called after each image.

    Returns:
        {"model", "engine", "stopped", "images": [{"file", "painted" (or None), "width", "height", "poses": [{"score",
        "keypoints_xy", "sigma_xy"}]}], "skipped": [{"file", "reason"}]}, ready for json.dump; coordinates and sigmas in
        px.

    Raises:
        InputError: a source or image cannot be used, or painted copies would overwrite something.
        OutputError: the painted copies cannot be written, or would replace somebody else's files.
        MdposeError: the artifact or the engine fails.
    """
    listed = list_images(sources)
    copies: Copies = dict.fromkeys(listed) if out_dir is None else {**plan_copies(listed, Path(out_dir))}
    if others := left_out(sources):
        note(f"left out: {others}.")
    for painted in filter(None, copies.values()):
        check_output("--out", painted, (), force=force)
    skipped: list[dict[str, str]] = []

    def skip(source: Path, error: InputError) -> None:
        skipped.append({"file": name_text(source), "reason": f"expected {error.expected}, got {error.got}"})
        if strict or len(skipped) == len(copies):
            raise error
        note(f"skipped: {error}")

    options: dict[str, Any] = {"runtime": runtime, "threads": threads, "threshold": threshold, "camera": camera}
    with PoseEstimator(model, **options) as estimator:
        with nullcontext() if out_dir is None else _painted_together(Path(out_dir)) as staging:
            images = paint_images(
                estimator,
                copies,
                staging,
                estimator.spec.keypoints,
                classes=estimator.spec.classes,
                sigma=sigma,
                stop=stop,
                skip=skip,
                progress=progress,
            )
        stopped = len(images) + len(skipped) < len(copies)
        found = {"model": str(model), "engine": estimator.engine, "stopped": stopped}
        return {**found, "images": images, "skipped": skipped}


def paint_images(
    estimator: Callable[[NDArray[np.uint8]], Poses],
    copies: Copies,
    folder: Path | None,
    keypoints: KeypointSpec,
    *,
    classes: Sequence[str] = (),
    sigma: bool = False,
    stop: threading.Event | None = None,
    skip: Callable[[Path, InputError], None] | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Run an estimator over image files and paint a copy of each.

    Args:
        estimator: BGR frame to Poses.
        copies: what the painted copy of each image is called in the end; its name counts.
        folder: where the copies are written; None paints nothing.
        keypoints: what the estimator predicts.
        classes: names of what it finds, where these are several.
        sigma: True also paints each keypoint's uncertainty.
        stop: set it, also from a signal handler, and the run ends after the image under way.
        skip: called with an image that cannot be read, and what is wrong with it; None makes that an error.
        progress: called after each image.

    Returns:
        The records under "images" of `infer_images`.

    Raises:
        InputError: an image cannot be read.
    """
    records = []
    for done, (source, painted) in enumerate(copies.items(), 1):
        if stop is not None and stop.is_set():
            break
        try:
            frame = read_image(source, orient=True)
        except InputError as error:
            if skip is None:
                raise
            skip(source, error)
            continue
        poses = estimator(frame)
        if folder is not None and painted is not None:
            picture = draw_poses(frame, poses, keypoints, sigma=sigma, classes=classes)
            write_image(folder / painted.name, beside(picture, poses, keypoints))
        height, width = frame.shape[:2]
        records.append(
            {
                "file": name_text(source),
                "painted": None if painted is None else name_text(painted),
                "width": width,
                "height": height,
                "poses": pose_records(poses, classes=classes),
            }
        )
        if progress is not None:
            progress(done, len(copies))
    return records


@contextmanager
def _painted_together(out_dir: Path) -> Iterator[Path]:
    """Return a folder whose pictures appear in `out_dir` at the end, and turn the system's answers into sentences."""
    try:
        with files_together(out_dir) as staging:
            yield staging
    except OSError as error:
        raise refused(out_dir, error, "no painted copy was kept") from error
