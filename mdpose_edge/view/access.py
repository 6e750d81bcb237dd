"""Who may look: the address a request must have been sent to, and the token."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import socket
from http.cookies import CookieError, SimpleCookie

from mdpose_edge.errors import ConfigError

MIN_TOKEN = 12
"""Characters; random ones of which 12 hold 72 bits."""


class Access:
    """The rule for one server.

    Args:
        host: the address or name that the server listens on.
        token: what viewers must know, or None on loopback addresses.

    Raises:
        ConfigError: no token where one is needed, or one that can be guessed.
    """

    def __init__(self, host: str, token: str | None) -> None:
        self.loopback = is_loopback(host)
        suggestion = f"add --token {secrets.token_urlsafe(16)}"
        if token is None and not self.loopback:
            do = f"{suggestion}, or leave --host out and tunnel: ssh -L 8080:localhost:8080 BOARD"
            raise ConfigError("--host", expected="a --token for any address but loopback", got="none", do=do)
        if token is not None and (len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable()):
            expected = f"at least {MIN_TOKEN} printable ASCII characters"
            raise ConfigError("--token", expected=expected, got=f"{len(token)} characters", do=suggestion)
        self._token = token
        own = {host.lower(), socket.gethostname().lower()}
        self._names = {"localhost"} if self.loopback else {"localhost", *own, *(f"{name}.local" for name in own)}

    def knows_host(self, header: str | None) -> bool:
        """Say whether a Host header names this server.

        A page elsewhere can make its own name resolve to this address (DNS rebinding) and would then read what the
        browser shows it; the Host header still tells that name. An address in figures cannot be rebound.
        """
        name = _host_name(header or "")
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return address.is_loopback if self.loopback else True

    def admits(self, *, bearer: str | None, query: str | None, cookie: str | None) -> bool:
        """Say whether one of these shows that the viewer knows the token, in a time that does not tell how nearly.

        Args:
            bearer: what follows "Bearer" in the Authorization header.
            query: the address's `token`.
            cookie: the value of the cookie that `cookie_value` gave.
        """
        if self._token is None:
            return True
        wanted = self.cookie_value()
        return any([_same(bearer, self._token), _same(query, self._token), _same(cookie, wanted)])

    def cookie_value(self) -> str:
        """Return what a browser keeps instead of the token: other servers on this host are shown cookies too."""
        return hmac.new((self._token or "").encode(), b"mdpose-edge view", hashlib.sha256).hexdigest()

    @property
    def needs_token(self) -> bool:
        """Whether there is one."""
        return self._token is not None


def is_loopback(host: str) -> bool:
    """Say whether only programs on this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def read_cookie(header: str | None, name: str) -> str | None:
    """Find a cookie's value in a Cookie header."""
    try:
        morsel = SimpleCookie(header or "").get(name)
    except CookieError:
        return None
    return None if morsel is None else morsel.value


def _host_name(header: str) -> str:
    """Take the port off a Host header: "[::1]:8080" is ::1."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].rstrip(".").lower()


def _same(given: str | None, wanted: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode(errors="replace"), wanted.encode())
