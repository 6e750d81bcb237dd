"""SIGTERM and Ctrl-C end a run in good order: whoever takes the machine back gets a checkpoint first."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A Ctrl-C ended a run in good order.

    Args:
        resume_from: the checkpoint that it goes on from.
    """

    def __init__(self, resume_from: Path) -> None:
        self.resume_from = resume_from
        super().__init__(f"stopped by Ctrl-C; resume from {resume_from}")


class StopSignal:
    """While entered, a SIGTERM or SIGINT is kept in `received` instead of ending the process; a second SIGINT ends it.

    Python delivers signals to the main thread alone; entered in another, it leaves them as they are. So it does with
    one that is ignored, as in a shell's background jobs.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        """The signal that came first."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        if number == signal.SIGINT:
            signal.signal(number, self._before[number])
