"""What a family's decoder is measured on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """Head tensors of so many people, ready to be decoded."""

    name: str
    kept: int
    """Poses that the decoder finds in them."""
    target_ms: float
    decode: Callable[[], Any]
    others: dict[str, Callable[[], Any]]
    """What it is compared with, or made of, by name: the same in each of the family's cases."""
