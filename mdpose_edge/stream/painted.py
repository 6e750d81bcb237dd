"""Painted pictures of frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.datasets.images import write_image
from mdpose_edge.draw import draw_poses
from mdpose_edge.errors import InputError
from mdpose_edge.scene import beside
from mdpose_edge.spec import KeypointSpec
from mdpose_edge.stream.result import FrameResult
from mdpose_edge.stream.sinks import system_answers

PAINTED_SUFFIXES = (".jpg", ".jpeg", ".png")
"""A painted copy keeps these of its source; any other becomes .png."""


class Painter:
    """Paints a result once, however many sinks ask for it.

    Args:
        keypoints: what the estimator predicts.
        sigma: True also paints each keypoint's uncertainty.
        classes: names of what it finds, where these are several.
    """

    def __init__(self, keypoints: KeypointSpec, *, sigma: bool = False, classes: Sequence[str] = ()) -> None:
        self._keypoints, self._sigma, self._classes = keypoints, sigma, classes
        self._last: tuple[FrameResult, NDArray[np.uint8]] | None = None

    def __call__(self, result: FrameResult) -> NDArray[np.uint8]:
        """Return the painted frame, (H, W, 3) uint8 BGR; do not write into it.

        Poses of three dimensions are seen from elsewhere too, in a panel to its right.
        """
        if self._last is None or self._last[0] is not result:
            labels = (
                None if result.track_ids is None else [f"#{who}" if who else "?" for who in result.track_ids.tolist()]
            )
            image, poses = result.frame.image_bgr, result.poses
            painted = draw_poses(image, poses, self._keypoints, sigma=self._sigma, labels=labels, classes=self._classes)
            self._last = result, beside(painted, poses, self._keypoints)
        return self._last[1]


class PaintedImages:
    """A painted picture of each frame.

    Args:
        out_dir: made where missing; a run without a frame leaves none.
        paint: makes the pictures.
        copies: where the copy of each image file goes; a frame of anything else becomes frame_000000.jpg and so on.
    """

    def __init__(self, out_dir: str | Path, paint: Painter, copies: Mapping[Path, Path] | None = None) -> None:
        self._out_dir, self._paint = Path(out_dir), paint
        self._copies = {str(source): painted for source, painted in (copies or {}).items()}
        self._count, self._is_new = 0, not self._out_dir.exists()
        with system_answers(self._out_dir, "or name another folder"):
            self._out_dir.mkdir(parents=True, exist_ok=True)

    def write(self, result: FrameResult) -> None:
        """Paint a frame; see Sink."""
        painted = self._copies.get(result.frame.name, self._out_dir / f"frame_{result.frame.index:06d}.jpg")
        with system_answers(painted, f"the {self._count} pictures before are whole"):
            write_image(painted, self._paint(result))
        self._count += 1

    def close(self) -> None:
        """Remove the folder where it is new and has no picture; every picture is whole."""
        if self._is_new and not self._count:
            with suppress(OSError):  # somebody else has put something there
                self._out_dir.rmdir()

    def summary(self) -> dict[str, Any]:
        """Say what was written."""
        return {"kind": "images", "folder": str(self._out_dir), "frames": self._count}


def plan_copies(sources: Sequence[Path], out_dir: Path) -> dict[Path, Path]:
    """Name the painted copy of each source, refusing any that would overwrite a source or another copy."""
    originals = {path.resolve() for path in sources}
    owner: dict[Path, Path] = {}
    for source in sources:
        suffix = source.suffix if source.suffix.lower() in PAINTED_SUFFIXES else ".png"
        painted = out_dir / f"{source.stem}{suffix}"
        if painted.resolve() in originals:
            do = "write the painted copies elsewhere"
            raise InputError(str(out_dir), expected="a folder apart from the sources", got="one of them", do=do)
        if painted in owner:
            got = f"{owner[painted]} and {source}, both painted to {painted}"
            raise InputError(expected="sources of different names", got=got, do="run them with separate output folders")
        owner[painted] = source
    return {source: painted for painted, source in owner.items()}
