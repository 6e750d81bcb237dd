"""The frames that a benchmark shows: a source's first ones, or drawn people where there is no source."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.errors import InputError
from mdpose_edge.stream.frames import Note, ignore_note
from mdpose_edge.stream.sources import open_source
from mdpose_edge.synth.scene import render_scene

MAX_KEPT = 32
"""Frames that are held in memory and shown over and over: 88 MB at 1280x720."""
DRAWN = 4


@dataclass(frozen=True)
class Frames:
    """What is shown, and how long it took to come."""

    frames_bgr: list[NDArray[np.uint8]]
    capture_ms: NDArray[np.float64] | None
    """(n,) ms until each frame of the source was there, or None where they were drawn."""
    where: str


def read_frames(source: str, limit: int, *, note: Note = ignore_note) -> Frames:
    """Read a source's first frames, with a clock on each.

    Args:
        source: see stream.sources.open_source.
        limit: frames to time; the first MAX_KEPT of them are kept.
        note: called with a sentence about what was left out.

    Raises:
        InputError: the source cannot be opened or read, or has no frame that can be used.
    """
    kept: list[NDArray[np.uint8]] = []
    milliseconds: list[float] = []
    with open_source(source, note=note) as opened:
        start = time.perf_counter()
        for frame in opened:
            milliseconds.append(1e3 * (time.perf_counter() - start))
            if len(kept) < MAX_KEPT:
                kept.append(frame.image_bgr)
            if len(milliseconds) == limit:
                break
            start = time.perf_counter()
    if not kept:
        got = f"{opened.skipped} that cannot be used" if opened.skipped else "none"
        raise InputError(opened.name, expected="frames to show", got=got, do="name another source")
    return Frames(kept, np.array(milliseconds), opened.name)


def draw_frames(size_wh: tuple[int, int], people: int, seed: int = 0) -> Frames:
    """Draw frames with people in them; the same arguments give the same frames.

    Args:
        size_wh: width and height, px.
        people: in each frame.
        seed: of the drawing.

    Raises:
        DataError: a size or number of people that cannot be drawn.
    """
    scenes = [render_scene(seed + i, size_wh, (people, people), 0.2) for i in range(DRAWN)]
    where = f"{DRAWN} drawn frames of {size_wh[0]}x{size_wh[1]} px with {people} people each, seed {seed}"
    return Frames([scene.frame for scene in scenes], None, where)
