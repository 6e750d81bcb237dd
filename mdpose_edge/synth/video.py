"""Moving people before a fixed camera, frame by frame, with ground truth for each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.progress import Progress
from mdpose_edge.errors import DataError
from mdpose_edge.synth.backdrop import draw_backdrop
from mdpose_edge.synth.body import Build, sample_build
from mdpose_edge.synth.dataset import FIRST_ID, JPEG_QUALITY, new_folder, write_document
from mdpose_edge.synth.finish import Lens, cast_shadows, finish, sample_lens
from mdpose_edge.synth.gait import Motion, figure_at, sample_stand, sample_walk
from mdpose_edge.synth.instances import MIN_AREA, visible
from mdpose_edge.synth.raster import rasterize
from mdpose_edge.synth.scene import (
    FINE_HEAD_PX,
    Person,
    Scene,
    annotate,
    camera_record,
    check_arguments,
    sample_camera,
    sample_light,
)
from mdpose_edge.synth.shade import Light, shade
from mdpose_edge.synth.solids import Camera, Solids
from mdpose_edge.synth.wardrobe import Look, dress, sample_look

SPLIT = "val"
"""The name of the split that the frames are."""
VIDEO_NAME = "video.mp4"
MAX_VIDEO_PEOPLE = 100
MAX_FRAMES = 100_000
STANDING = 0.25
"""Share of people who stand and move their arms; the others walk."""
LANE_M = 1.7
"""Each lane is a strip of the ground at one distance, as deep as this: those in different lanes never collide."""
TURN_M = (0.55, 0.7)
"""Half the depth of a walker's loop: wide enough to turn round in."""
WALK_M = (0.8, 1.6)
"""Half the width of a walker's loop."""


@dataclass(frozen=True)
class Actor:
    """Somebody who is in the whole video."""

    build: Build
    look: Look
    motion: Motion


@dataclass(frozen=True)
class Stage:
    """What stays the same in every frame."""

    camera: Camera
    light: Light
    backdrop: NDArray[np.uint8]
    lens: Lens
    actors: tuple[Actor, ...]


def write_video(
    out: Path,
    *,
    seconds: float,
    fps: float = 30.0,
    size_wh: tuple[int, int] = (640, 360),
    people: int = 4,
    seed: int = 0,
    mp4: bool = False,
    progress: Progress | None = None,
) -> None:
    """Draw a video in COCO's layout; the same arguments give the same bytes.

    Each frame is an image of the split val, in order, with `frame_id` (from 0) and `time_s`; each annotation has the
    `track_id` (from 1) of the person, and `keypoints_3d` as `write_dataset` gives them. The key `videos` states `fps`,
    `frames` and size. Somebody of whom next to nothing is seen has no annotation in that frame.

    Args:
        out: the folder to make; it appears once it is complete.
        seconds: how long.
        fps: frames per second.
        size_wh: width and height, px.
        people: how many.
        seed: where the randomness comes from.
        mp4: True writes video.mp4 as well (MPEG-4).
        progress: called with the frames done and their total.

    Raises:
        DataError: an argument out of range, or `out` exists and is not an empty folder.
    """
    frames = _check(seconds, fps, size_wh, people, seed)
    with new_folder(out) as building:
        (building / f"{SPLIT}2017").mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        writer = _open_writer(building / VIDEO_NAME, fps, size_wh) if mp4 else None
        for index, scene in enumerate(render_video(seed, frames, fps, size_wh, people)):
            image_id = FIRST_ID[SPLIT] + index
            name = f"{image_id:012d}.jpg"
            _, jpeg = cv2.imencode(".jpg", scene.frame, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            (building / f"{SPLIT}2017" / name).write_bytes(jpeg.tobytes())
            if writer is not None:
                writer.write(scene.frame)
            images.append({
                "id": image_id, "file_name": name, "width": size_wh[0], "height": size_wh[1], "license": 1,
                "video_id": 1, "frame_id": index, "time_s": index / fps, "camera": scene.camera,
            })  # fmt: skip
            first = len(annotations) + 1
            annotations += [{"id": first + i, "image_id": image_id, **a} for i, a in enumerate(scene.annotations)]
            if progress is not None:
                progress(index + 1, frames)
        if writer is not None:
            writer.release()
        parameters = {"seed": seed, "people": people, "seconds": seconds, "fps": fps}
        video = {
            "id": 1, "name": VIDEO_NAME if mp4 else "", "fps": fps, "frames": frames, "width": size_wh[0],
            "height": size_wh[1],
        }  # fmt: skip
        write_document(building, SPLIT, {"synth_video": parameters}, images, annotations, videos=[video])


def render_video(seed: int, frames: int, fps: float, size_wh: tuple[int, int], people: int) -> Iterator[Scene]:
    """Draw the frames of a video; each annotation has its person's `track_id`. See `write_video`."""
    stage = set_stage(
        np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2,))), size_wh, people, frames / fps
    )
    for index in range(frames):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(3, index)))
        yield render_frame(stage, index / fps, rng)


def set_stage(rng: np.random.Generator, size_wh: tuple[int, int], people: int, seconds: float) -> Stage:
    """Choose a camera, a place, and who does what."""
    share = rng.uniform(0.5, 0.7) / (1 + 0.06 * people) ** 0.5
    focal = rng.uniform(0.9, 1.4) * max(size_wh)
    distance = focal * 1.7 / (share * size_wh[1])
    camera = sample_camera(rng, size_wh, focal, distance)
    lanes = min(people, max(3, math.ceil(1.2 * math.sqrt(people))))
    actors = []
    for number in range(people):
        lane, column = number % lanes, number // lanes
        columns = len(range(lane, people, lanes))
        actors.append(_cast(rng, camera, distance + LANE_M * lane, (column, columns), seconds))
    backdrop = draw_backdrop(rng, camera, reach=distance + LANE_M * lanes)
    return Stage(camera, sample_light(rng), backdrop, sample_lens(rng, size_wh), tuple(actors))


def render_frame(stage: Stage, time_s: float, rng: np.random.Generator) -> Scene:
    """Draw everybody at one time; `rng` gives the sensor's noise only."""
    camera, solids, persons = stage.camera, Solids(), []
    for owner, actor in enumerate(stage.actors):
        figure, shift = figure_at(actor.build, actor.motion, time_s)
        height_px = camera.focal_px * actor.build.height / max(float(shift[2]), 0.5)
        dress(figure, actor.look, solids, owner, shift, fine=0.13 * height_px > FINE_HEAD_PX)
        persons.append(Person(figure, shift, figure.keypoints() + shift))
    raster = rasterize(solids, camera)
    owners = raster.owner()
    boxes, areas = visible(owners, len(persons))
    seen = {number: person for number, person in enumerate(persons) if areas[number] >= MIN_AREA}
    annotations = annotate(camera, seen, raster, owners, boxes, areas)
    for number, annotation in zip(seen, annotations, strict=True):
        annotation["track_id"] = number + 1
    canvas = stage.backdrop.copy()
    cast_shadows(canvas, camera, stage.light, [person.keypoints for person in persons])
    shade(canvas, raster, camera, stage.light)
    return Scene(finish(rng, canvas, stage.lens), annotations, camera_record(camera))


def _cast(rng: np.random.Generator, camera: Camera, distance: float, place: tuple[int, int], seconds: float) -> Actor:
    """Draw somebody for a part of a lane: `place` is which of how many parts."""
    build, look = sample_build(rng), sample_look(rng)
    column, columns = place
    width = 0.94 * camera.size_wh[0] / camera.focal_px * distance
    part = width / columns
    middle = -0.5 * width + (column + 0.5) * part
    if rng.random() < STANDING:
        x = middle + 0.3 * part * rng.uniform(-1, 1)
        yaw = float(180 + rng.normal(0, 50))
        return Actor(build, look, sample_stand(rng, (x, distance), yaw, seconds))
    half = min(rng.uniform(*WALK_M), 0.5 * part)
    x = middle + (0.5 * part - half) * rng.uniform(-1, 1)
    deep = min(rng.uniform(*TURN_M), half)
    return Actor(build, look, sample_walk(rng, build, (x, distance), (half, deep)))


def _check(seconds: float, fps: float, size_wh: tuple[int, int], people: int, seed: int) -> int:
    """Refuse what cannot be drawn; give the number of frames."""
    check_arguments(size_wh, (1, 1), 0.0, 1.0)
    if not 1 <= people <= MAX_VIDEO_PEOPLE:
        raise DataError("--people", expected=f"1 to {MAX_VIDEO_PEOPLE}", got=str(people), do="change it")
    if not (math.isfinite(fps) and fps > 0):
        raise DataError("--fps", expected="a number above 0", got=f"{fps:g}", do="change it")
    frames = round(seconds * fps) if math.isfinite(seconds * fps) else 0
    if not 1 <= frames <= MAX_FRAMES:
        expected = f"1 to {MAX_FRAMES} frames"
        raise DataError("--seconds", expected=expected, got=f"{seconds:g} s at {fps:g} a second", do="change it")
    if seed < 0:
        raise DataError("--seed", expected="a whole number of at least 0", got=str(seed), do="change it")
    return frames


def _open_writer(path: Path, fps: float, size_wh: tuple[int, int]) -> cv2.VideoWriter:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), fps, size_wh)
    if not writer.isOpened():
        do = "install an OpenCV with FFmpeg, or leave --mp4 out"
        raise DataError("--mp4", expected="an OpenCV that writes MPEG-4", got="none", do=do)
    return writer
