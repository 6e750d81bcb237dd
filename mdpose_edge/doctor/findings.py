"""What the doctor says of one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "absent", "note", "broken"]
"""`absent` may be wanted some day, `note` may cost speed or a feature; only `broken` makes the exit code 1."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    topic: str
    """"packages", "engines", "combinations" or "machine"."""
    name: str
    state: State
    found: str
    remedy: str = ""
    """What to do, as an imperative; never empty where the state is broken."""

    def __post_init__(self) -> None:
        assert self.remedy or self.state != "broken", self
