"""Making a thing once for many trials that differ elsewhere: ranges do not change with the layers that stay float."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Once(Protocol):
    """Says whether a thing is made anew."""

    def __call__(self, make: Callable[[], T]) -> T:
        """Give what `make` gives, or gave before."""


def every_time(make: Callable[[], T]) -> T:
    """Make it anew."""
    return make()


class Kept:
    """Makes the first thing that is asked for, and gives that one ever after."""

    def __init__(self) -> None:
        self._made: list[Any] = []

    def __call__(self, make: Callable[[], T]) -> T:
        """See Once."""
        if not self._made:
            self._made.append(make())
        made: T = self._made[0]
        return made
