"""How far work is that takes long: one protocol, for whoever shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Is called as work goes on, and at its end."""

    def __call__(self, done: int, total: int, note: str = "", stage: str = "") -> None:
        """Take note that `done` of `total` steps of a stage are done.

        Args:
            done: steps, images or frames.
            total: of the stage, or 0 where nobody knows.
            note: what is going on, or figures so far.
            stage: which part of the work, where it has several; they may overlap.
        """


def no_progress(done: int, total: int, note: str = "", stage: str = "") -> None:
    """Show nothing."""


def in_stage(progress: Progress, name: str) -> Progress:
    """Return what reports work as a stage of a larger one."""

    def report(done: int, total: int, note: str = "", stage: str = "") -> None:
        progress(done, total, note, name)

    return report
