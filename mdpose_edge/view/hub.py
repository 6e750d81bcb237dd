"""Between inference, which must not wait, and viewers, who may be slow, many, or gone.

Inference leaves its newest frame in a slot and goes on. One thread turns what lies there into a message, once for all
viewers and only while there are any; each viewer's thread takes the newest message when it is ready for one. So nothing
queues up anywhere, and a viewer who is slow sees fewer frames, never older ones.
"""

from __future__ import annotations

import json
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.draw import box_color, palette_of
from mdpose_edge.poses import Poses
from mdpose_edge.spec import KeypointSpec

JPEG_QUALITY = 80
RATE_WINDOW_S = 2.0
"""Frames per second are counted over so long."""
FAREWELL_S = 1.0
"""So long the end waits for viewers to be told of it."""
_LENGTHS = struct.Struct("!II")


@dataclass(frozen=True, eq=False)
class InferredFrame:
    """One frame that inference is done with."""

    index: int
    image_bgr: NDArray[np.uint8]
    """(H, W, 3). Must not be written to any more."""
    poses: Poses
    ids: NDArray[np.int64] | None
    """(N,) who is who over time, from 1, less where nobody knows; None where nobody is tracked."""
    stages_ms: Mapping[str, float]
    """How long each stage took; the same stages in the same order every time."""
    latency_ms: float
    """From the frame's arrival to its poses."""
    dropped: int
    """Frames that the source has dropped so far."""


class Hub:
    """Gives each viewer the newest message.

    Args:
        about: what viewers are told first, ready for json.dumps; see `describe`.
        max_fps: messages per second at most. Inference may be faster.
        max_side: longer pictures are made smaller before they are sent, px.
    """

    def __init__(self, about: Mapping[str, Any], *, max_fps: float = 30.0, max_side: int = 1280) -> None:
        self._about = about
        self._max_side, self._pause_s = max_side, 1.0 / max_fps
        self._changed = threading.Condition()
        self._slot: InferredFrame | None = None
        self._message: tuple[int, bytes] = (0, b"")
        self._viewers = 0
        self._ended: str | None = None
        self._times: deque[float] = deque()
        self._encoder = threading.Thread(target=self._encode_newest, name="view-encoder", daemon=True)
        self._encoder.start()

    @property
    def viewers(self) -> int:
        """How many are watching."""
        return self._viewers

    def show(self, shown: InferredFrame) -> None:
        """Leave a frame for whoever watches; never waits for a viewer."""
        now = time.monotonic()
        with self._changed:
            self._times.append(now)
            while now - self._times[0] > RATE_WINDOW_S:
                self._times.popleft()
            self._slot = shown
            self._changed.notify_all()

    def end(self, why: str) -> None:
        """Tell viewers that there will be no more frames, and let them go.

        It waits for them, FAREWELL_S at most, since the program may be about to end. A second call changes nothing.
        """
        with self._changed:
            if self._ended is None:
                self._ended = why
            self._changed.notify_all()
        self._encoder.join()
        with self._changed:
            self._changed.wait_for(lambda: not self._viewers, timeout=FAREWELL_S)

    def watch(self) -> Iterator[bytes]:
        """Return messages for one viewer: what this is, then the newest frame whenever there is one, then the end.

        A message is the lengths of two parts (big-endian uint32 each), JSON, and a JPEG or nothing.
        """
        yield _message({"about": self._about})
        with self._changed:
            self._viewers += 1
            self._changed.notify_all()
        try:
            seen = 0
            while True:
                number, message, ended = self._next_message(seen)
                if number > seen:
                    seen = number
                    yield message
                if ended is not None:
                    yield _message({"ended": ended})
                    return
        finally:
            with self._changed:
                self._viewers -= 1
                self._changed.notify_all()

    def _next_message(self, seen: int) -> tuple[int, bytes, str | None]:
        """Wait for a message after `seen`, or for the end; give the newest with its number, and the end's reason."""
        with self._changed:
            self._changed.wait_for(lambda: self._message[0] > seen or self._ended is not None)
            return *self._message, self._ended

    def _encode_newest(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended is not None or (self._slot is not None and self._viewers))
                shown, self._slot = self._slot, None
                fps = self._frames_per_second()
                if shown is None or self._ended is not None:
                    return
            start = time.monotonic()
            message = self._encode(shown, fps)
            with self._changed:
                self._message = (self._message[0] + 1, message)
                self._changed.notify_all()
                self._changed.wait_for(
                    lambda: self._ended is not None, timeout=max(0.0, self._pause_s - (time.monotonic() - start))
                )

    def _encode(self, shown: InferredFrame, fps: float) -> bytes:
        height, width = shown.image_bgr.shape[:2]
        image = shown.image_bgr
        if max(height, width) > self._max_side:
            scale = self._max_side / max(height, width)
            image = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        facts = {
            "index": shown.index,
            "width": width,
            "height": height,
            "fps": fps,
            "latency_ms": shown.latency_ms,
            "stages_ms": [round(ms, 3) for ms in shown.stages_ms.values()],
            "dropped": shown.dropped,
            "poses": _pose_records(shown),
        }
        return _message(facts, jpeg.tobytes())

    def _frames_per_second(self) -> float:
        """Count over the time between the first and the last frame of the window, which a pause does not blur."""
        span = self._times[-1] - self._times[0] if self._times else 0.0
        return (len(self._times) - 1) / span if span > 0 else 0.0


def describe(
    *,
    model: str,
    engine: str,
    precision: str,
    source: str,
    threshold: float,
    start: float,
    stages: list[str],
    keypoints: KeypointSpec,
    tracked: bool,
    classes: Sequence[str] = (),
) -> dict[str, Any]:
    """Say what viewers need to know before the first frame.

    The page's slider reaches down to `threshold`, and begins at `start`; `classes` are named where there are several.
    """
    palette = palette_of(keypoints)
    limbs = zip(keypoints.skeleton, palette.limbs, strict=True)
    return {
        "model": model,
        "engine": engine,
        "precision": precision,
        "source": source,
        "threshold": threshold,
        "start": start,
        "stages": stages,
        "tracked": tracked,
        "keypoints": list(keypoints.names),
        "dots": [_css(color) for color in palette.dots],
        "limbs": [[start, end, _css(color)] for (start, end), color in limbs],
        "classes": [[name, _css(box_color(number))] for number, name in enumerate(classes)],
    }


def _pose_records(shown: InferredFrame) -> list[dict[str, Any]]:
    poses, boxes, points_3d = shown.poses, shown.poses.model_boxes_xyxy, shown.poses.keypoints_3d
    seen = np.isfinite(poses.keypoints_xy).all(axis=(1, 2)) & np.isfinite(poses.sigma_xy).all(axis=(1, 2))
    return [
        {
            "score": round(float(poses.scores[i]), 4),
            "id": None if shown.ids is None or shown.ids[i] < 1 else int(shown.ids[i]),
            "keypoints_xy": poses.keypoints_xy[i].ravel().astype(float).round(1).tolist(),
            "sigma_xy": poses.sigma_xy[i].ravel().astype(float).round(1).tolist(),
            "box_xyxy": None if boxes is None else boxes[i].astype(float).round(1).tolist(),
            "class": None if poses.classes is None else int(poses.classes[i]),
            "keypoints_3d": None if points_3d is None else points_3d[i].ravel().astype(float).round(3).tolist(),
            "metric": None if points_3d is None else poses.metric,
        }
        for i in np.flatnonzero(seen)
    ]


def _message(facts: Mapping[str, Any], jpeg: bytes = b"") -> bytes:
    text = json.dumps(facts, separators=(",", ":"), allow_nan=False).encode()
    return _LENGTHS.pack(len(text), len(jpeg)) + text + jpeg


def _css(color_bgr: tuple[int, int, int]) -> str:
    blue, green, red = color_bgr
    return f"rgb({red},{green},{blue})"
