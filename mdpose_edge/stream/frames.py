"""What every source gives, and what every source is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.closing import Closing
from mdpose_edge.common.secrets import without_secrets
from mdpose_edge.errors import InputError
from mdpose_edge.preprocess import check_frame

Note = Callable[[str], None]
"""Called with a sentence for whoever runs the program, about what did not go as it should and did not end the run."""


def ignore_note(sentence: str) -> None:
    """Take a note and do nothing: for those who read the counts instead."""


@dataclass(frozen=True, slots=True, eq=False)
class CapturedFrame:
    """One picture of a source."""

    index: int
    """Counted from 0 as the source made them: numbers that are missing were dropped or skipped."""
    time_s: float
    """A file's own time, from its start; a live source's time of arrival, from the first frame's."""
    image_bgr: NDArray[np.uint8]
    """(H, W, 3); may change size from one frame to the next."""
    name: str
    """The image file, or the source's name."""
    is_file: bool = False
    """True of an image file of its own; False of a frame of a video, camera or stream."""


class FrameSource(Closing):
    """Frames in order, once. Iterate on one thread; `close` may come from another and ends the iteration.

        with open_source("rtsp://camera/1") as source:
            for frame in source:
                poses = estimator(frame.image_bgr)

    Raises:
        InputError: while iterating: an image cannot be read, a file breaks off early, a live source is lost for good.
    """

    live = False
    """True where frames come whether or not they are fetched, so that old ones are dropped for new ones."""

    def __init__(self, name: str, *, note: Note = ignore_note) -> None:
        self.name = without_secrets(name)
        """As the source was named; no password of a URL."""
        self.fps: float | None = None
        """Frames per second as the source states it, where it does."""
        self.total: int | None = None
        """How many frames there will be, where that is known."""
        self.dropped = 0
        """Frames that came while an older one was waiting: the newest was kept."""
        self.skipped = 0
        """Frames that could not be used: damaged, empty, too small, or too narrow."""
        self.reconnects = 0
        """How often a live source was opened again."""
        self._note = note

    @abstractmethod
    def __iter__(self) -> Iterator[CapturedFrame]: ...

    def _usable(self, image: NDArray[np.uint8] | None, index: int) -> bool:
        """Say whether a video's frame can be used; count it where it cannot, and say so the first time."""
        try:
            check_frame(np.zeros(0, np.uint8) if image is None else image, f"{self.name}, frame {index}")
        except InputError as error:
            self._skip(str(error))
            return False
        return True

    def _skip(self, why: str, count: int = 1) -> None:
        """Count frames that cannot be used, and say so the first time."""
        if not self.skipped:
            self._note(f"skipped: {why} Others like it are skipped without a word, and counted.")
        self.skipped += count
