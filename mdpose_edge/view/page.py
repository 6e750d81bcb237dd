"""The page: one file that loads nothing, and the policy that holds the browser to that."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files


def load_page() -> tuple[bytes, str]:
    """Put the page together.

    Returns:
        The HTML, and the value of its Content-Security-Policy: its own script and style, by their hashes, its own
        stream, and nothing else.
    """
    assets = files("mdpose_edge") / "assets"
    html, style, script = ((assets / f"view.{suffix}").read_text(encoding="utf-8") for suffix in ("html", "css", "js"))
    policy = (
        f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; img-src data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html.replace("/*style*/", style).replace("/*script*/", script).encode(), policy


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
