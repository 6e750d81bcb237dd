"""Pictures and annotations on disk, in COCO's own layout."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mdpose_edge.common.files import refuse_url
from mdpose_edge.common.processes import check_shared_memory
from mdpose_edge.common.progress import Progress
from mdpose_edge.errors import DataError
from mdpose_edge.spec import COCO_KEYPOINTS
from mdpose_edge.synth.instances import write_instances
from mdpose_edge.synth.scene import MAX_PEOPLE, check_arguments, render_scene

JPEG_QUALITY = 95
SPLITS = ("train", "val")
FIRST_ID = {"train": 1, "val": 1_000_001}
"""Image ids, so that the splits share none."""
MAX_IMAGES = 1_000_000


def write_dataset(
    out: Path,
    *,
    train_images: int,
    val_images: int,
    size: int | tuple[int, int] = 736,
    seed: int = 0,
    people: tuple[int, int] = (1, 8),
    occlusion: float = 0.2,
    variety: float = 1.0,
    workers: int = 1,
    progress: Progress | None = None,
) -> None:
    """Draw a data set in COCO's layout, annotated as people with keypoints and as boxes of people and things.

    The same arguments give the same bytes, whatever `workers` is.

    Args:
        out: the folder to make; it appears once it is complete.
        train_images: pictures in train2017/.
        val_images: pictures in val2017/.
        size: side of a square, or (width, height), px.
        seed: the pictures of the two splits come from separate streams of it.
        people: fewest and most persons in a picture, 0 for none; at full occlusion at least two, if any.
        occlusion: 0 keeps people apart; at 1 each person's box overlaps another's by an IoU above one half.
        variety: share of people in any pose, seen from any side; the others stand or walk, turned to the camera.
        workers: processes that draw.
        progress: called with the pictures done and their total.

    Raises:
        DataError: an argument out of range, or `out` exists and is not an empty folder.
    """
    size_wh = (size, size) if isinstance(size, int) else size
    check_arguments(size_wh, people, occlusion, variety)
    _check_counts(train_images, val_images, seed, workers)
    counts = {"train": train_images, "val": val_images}
    total, done = train_images + val_images, 0
    with new_folder(out) as building:
        for stream, split in enumerate(SPLITS):
            (building / f"{split}2017").mkdir()
            draw = functools.partial(_draw, building, split, (seed, stream), size_wh, people, (occlusion, variety))
            drawn = []
            with _mapper(workers) as mapper:
                for record in mapper(draw, range(counts[split])):
                    drawn.append(record)
                    done += 1
                    if progress is not None:
                        progress(done, total)
            parameters = {
                "seed": seed, "split": split, "people": list(people), "occlusion": occlusion, "variety": variety,
            }  # fmt: skip
            _write_annotations(building, drawn, parameters)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Return a folder with annotations/ to write into, which takes the name `out` when the block ends well.

    Raises:
        DataError: `out` exists and is not an empty folder, or is a URL.
    """
    _check_out(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        (building / "annotations").mkdir()
        yield building
        building.chmod(0o755)
        os.replace(building, out)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _check_counts(train_images: int, val_images: int, seed: int, workers: int) -> None:
    if not (0 <= train_images < MAX_IMAGES and 0 <= val_images < MAX_IMAGES and train_images + val_images >= 1):
        raise DataError(
            "--images", expected=f"1 to {MAX_IMAGES - 1} images", got=f"{train_images} + {val_images}", do="change it"
        )
    if seed < 0:
        raise DataError("--seed", expected="a whole number of at least 0", got=str(seed), do="change it")
    if workers < 1:
        raise DataError("--workers", expected="at least 1 process", got=str(workers), do="change it")


def _check_out(out: Path) -> None:
    refuse_url(out, where=str(out), error=DataError)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        got = "a folder with files in it" if out.is_dir() else "a file"
        raise DataError(str(out), expected="a new or empty folder", got=got, do="choose another or remove it")


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Iterator[dict[str, Any]]]]:
    """Return a map that keeps order: the built-in one, or that of a pool of processes."""
    if workers == 1:
        yield map
        return
    check_shared_memory(where="--workers", do="draw in one process: --workers 1", error=DataError)
    spawn = multiprocessing.get_context("spawn")  # a fork would copy the locks of this process's threads
    with ProcessPoolExecutor(workers, spawn, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield functools.partial(pool.map, chunksize=8)


def _draw(
    root: Path, split: str, stream: tuple[int, int], size_wh: tuple[int, int], people: tuple[int, int],
    knobs: tuple[float, float], index: int,
) -> dict[str, Any]:  # fmt: skip
    """Draw and write picture `index` of a split; give its COCO image record with its annotations inside."""
    seed, branch = stream
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(branch, index)))
    scene = render_scene(rng, size_wh, people, *knobs)
    image_id = FIRST_ID[split] + index
    name = f"{image_id:012d}.jpg"
    _, jpeg = cv2.imencode(".jpg", scene.frame, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    (root / f"{split}2017" / name).write_bytes(jpeg.tobytes())
    return {
        "id": image_id, "file_name": name, "width": size_wh[0], "height": size_wh[1], "license": 1,
        "camera": scene.camera, "annotations": scene.annotations, "instances": scene.instances,
    }  # fmt: skip


def _write_annotations(root: Path, drawn: list[dict[str, Any]], parameters: dict[str, Any]) -> None:
    instances = [image.pop("instances") for image in drawn]
    records = [(image["id"], record) for image in drawn for record in image.pop("annotations")]
    first = FIRST_ID[parameters["split"]] * MAX_PEOPLE
    annotations = [
        {"id": first + number, "image_id": image_id, **record} for number, (image_id, record) in enumerate(records)
    ]
    write_document(root, parameters["split"], {"synth": parameters}, drawn, annotations)
    write_instances(root, parameters["split"], _head({"synth": parameters}), drawn, instances)


def write_document(
    root: Path,
    split: str,
    info: dict[str, Any],
    images: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
    **more: Any,
) -> None:
    """Write a split's annotation file; `info` says how it was made, `more` goes beside COCO's own keys."""
    document = {
        **_head(info),
        **more,
        "images": images,
        "annotations": annotations,
        "categories": [{
            "id": 1, "name": "person", "supercategory": "person", "keypoints": list(COCO_KEYPOINTS.names),
            "skeleton": [[a + 1, b + 1] for a, b in COCO_KEYPOINTS.skeleton],
        }],
    }  # fmt: skip
    (root / "annotations" / f"person_keypoints_{split}2017.json").write_text(json.dumps(document))


def _head(info: dict[str, Any]) -> dict[str, Any]:
    """Return what annotation files begin with."""
    return {
        "info": {"description": "synthetic people drawn by mdpose-edge synth", **info},
        "licenses": [{"id": 1, "name": "synthetic", "url": ""}],
    }
