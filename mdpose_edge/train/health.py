"""Whether a run still learns: what is not finite or has diverged ends it, and the last good checkpoint stays."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

from mdpose_edge.errors import TrainingError

WINDOW = 100
"""Iterations over which losses are averaged before a run is called diverged."""
RECENT = 10
"""Iterations over which they are averaged before a checkpoint is written."""


class LossWatch:
    """Judges a run by its losses; the same losses give the same judgement, whether in one go or resumed.

    The loss is a negative log-likelihood, which may be negative: so the limit is a difference, not a ratio. 10 nats
    mean that a group of keypoints has become e^10 = 22,000 times less likely.

    Args:
        limit: nats by which the mean loss may exceed that of the first WINDOW iterations.
        losses: of the iterations done.
    """

    def __init__(self, limit: float, losses: Iterable[float] = ()) -> None:
        self.limit = limit
        self._first: list[float] = []
        self._last: deque[float] = deque(maxlen=WINDOW)
        for loss in losses:
            self.add(loss)

    def add(self, loss: float) -> None:
        """Take note of an iteration's loss."""
        if len(self._first) < WINDOW:
            self._first.append(loss)
        else:
            self._last.append(loss)

    @property
    def is_healthy(self) -> bool:
        """Whether a checkpoint of now is worth keeping: the mean of the last RECENT losses is within the limit."""
        recent = list(self._last)[-RECENT:]
        return not recent or fmean(recent) <= fmean(self._first) + self.limit

    def check(self, iteration: int, resume_file: Path) -> None:
        """End a run that has diverged.

        Raises:
            TrainingError: the mean of the last WINDOW losses is beyond the limit.
        """
        if len(self._last) < WINDOW or fmean(self._last) <= fmean(self._first) + self.limit:
            return
        raise lost_run(
            iteration,
            expected=f"a loss below that of the start, {fmean(self._first):.4g}, plus divergence {self.limit:g}",
            got=f"{fmean(self._last):.4g} over {WINDOW} iterations",
            resume_file=resume_file,
        )


def lost_run(iteration: int, *, expected: str, got: str, resume_file: Path) -> TrainingError:
    """Make the error that ends a run which no longer learns; it names the last good checkpoint."""
    start = f", from init={resume_file}" if resume_file.is_file() else ""
    return TrainingError(
        f"iteration {iteration}",
        expected=expected,
        got=got,
        do=f"lower optimizer.lr or add schedule.warmup, and start a new run{start}",
    )
