"""Addresses without the passwords in them, for messages, records and pages."""

from __future__ import annotations

import re
from urllib.parse import unquote

MASK = "***"

_URL = re.compile(r"[a-z][a-z0-9+.-]+:/{1,2}[^\s\"'<>]+", re.IGNORECASE)
_USER = re.compile(r"^[^\s/?#]*@")
_ODD_USER = re.compile(r"^(?!\[)[^\s/@]*:(?!\d+[/?#])[^\s@]*@(?:[^\s/@]*@)*")
"""With a character in the password that should have been percent-encoded; a port is none."""
_FIELD = re.compile(r"([^?&;#/=\s]+)=([^&;#\s]+?)(?=[:.,]?(?:[&;#\s]|$))")
_SECRET = re.compile(
    r"pass|pwd|psw|secret|token|key|auth|sig|cred|login|session|user|usr|^(pw|pin|u|p)$", re.IGNORECASE
)
"""Names of what cameras and stores take as a password, in the query or, with some recorders, in the path."""


def without_secrets(text: str) -> str:
    """Return a text without the users, passwords and tokens of the URLs in it; one without URLs stays as it is."""
    return _URL.sub(lambda url: _shown(url[0]), text)


def _shown(url: str) -> str:
    scheme = re.match("[^/]*/{1,2}", url)
    assert scheme is not None
    rest = url[scheme.end() :]
    for user in (_USER, _ODD_USER):
        rest = user.sub("", rest, count=1)
    return scheme[0] + _FIELD.sub(_masked, rest)


def _masked(field: re.Match[str]) -> str:
    return f"{field[1]}={MASK}" if _SECRET.search(unquote(field[1])) else field[0]
