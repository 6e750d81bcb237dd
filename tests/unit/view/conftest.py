"""A hub with someone to show, and a server around it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from mdpose_edge.poses import Poses
from mdpose_edge.spec import COCO_KEYPOINTS
from mdpose_edge.view.hub import Hub, InferredFrame, describe
from mdpose_edge.view.server import ViewServer

STAGES_MS = {"preprocess": 1.0, "engine": 20.0, "decode": 0.5}
FRAME_WH = (320, 240)
KEYPOINT_XY = np.array([[100 + 7 * i, 60 + 9 * (i % 9)] for i in range(17)], np.float32)
"""Where the one person's keypoints are, px of the frame."""
SCORES = (0.9, 0.4)


def about(threshold: float = 0.1, start: float = 0.25, *, tracked: bool = True) -> dict[str, object]:
    return describe(
        model="bundle",
        engine="none",
        precision="fp32",
        source="test",
        threshold=threshold,
        start=start,
        stages=list(STAGES_MS),
        keypoints=COCO_KEYPOINTS,
        tracked=tracked,
    )


def shown(index: int, frame_wh: tuple[int, int] = FRAME_WH) -> InferredFrame:
    """A grey frame with two people in one place, of whom the second scores 0.4."""
    poses = Poses(
        np.stack([KEYPOINT_XY, KEYPOINT_XY]), np.array(SCORES, np.float32), np.full((2, 17, 2), 6.0, np.float32)
    )
    image = np.full((frame_wh[1], frame_wh[0], 3), 90, np.uint8)
    return InferredFrame(index, image, poses, np.array([7, 8]), STAGES_MS, 23.0, 0)


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub(about(), max_fps=200)
    yield hub
    hub.end("the test is over")


@pytest.fixture
def server(hub: Hub) -> Iterator[ViewServer]:
    with ViewServer(hub, port=0) as server:
        yield server
        hub.end("the test is over")


class Playing:
    """Shows frames in a thread until it is stopped, and keeps how long the slowest call took."""

    def __init__(self, hub: Hub, fps: float = 50.0, frame_wh: tuple[int, int] = FRAME_WH) -> None:
        self._hub, self._pause_s, self._frame_wh = hub, 1 / fps, frame_wh
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play)
        self.index = 0

    def _play(self) -> None:
        while not self._stop.wait(self._pause_s):
            self._hub.show(shown(self.index, self._frame_wh))
            self.index += 1

    def __enter__(self) -> Playing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
