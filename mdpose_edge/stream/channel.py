"""A bounded queue between two stages that can be ended from either side."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """Hand items from thread to thread, in order, at most `depth` of them waiting.

    A full channel holds up whoever puts: that is the back-pressure which keeps memory bounded.
    """

    def __init__(self, depth: int) -> None:
        self._items: deque[T] = deque()
        self._depth = depth
        self._closed = False
        self._takers = 0
        self._changed = threading.Condition()

    def wait_wanted(self) -> None:
        """Wait until somebody waits for an item or the channel is closed, so that what is put is not old when taken."""
        with self._changed:
            self._changed.wait_for(lambda: self._takers > len(self._items) or self._closed)

    def put(self, item: T) -> bool:
        """Hand an item on once there is room; False where the channel was closed and the item was not taken."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._depth or self._closed)
            if self._closed:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def get(self, timeout_s: float | None = None) -> T | None:
        """Take the oldest item; None after the time is up, and where the channel was closed and is empty."""
        with self._changed:
            self._takers += 1
            self._changed.notify_all()
            try:
                self._changed.wait_for(lambda: self._items or self._closed, timeout_s)
            finally:
                self._takers -= 1
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def __iter__(self) -> Iterator[T]:
        while (item := self.get()) is not None:
            yield item

    @property
    def is_over(self) -> bool:
        """True once nothing will ever come out again."""
        with self._changed:
            return self._closed and not self._items

    def close(self) -> None:
        """Let nothing more in; what is there can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Let nothing more in, and drop what is there."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()
