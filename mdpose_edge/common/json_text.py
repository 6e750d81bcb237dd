"""JSON that others wrote, so nested that Python's reader gives up included."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Read a JSON document.

    Args:
        text: the document; bytes are UTF-8.

    Raises:
        ValueError: it is none, no UTF-8, or nested deeper than anything that is written on purpose.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("brackets nested too deep to be read") from error
