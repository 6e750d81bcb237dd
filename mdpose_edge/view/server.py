"""The server: one page and one stream, over HTTP, by Python's own library."""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mdpose_edge.common.closing import Closing
from mdpose_edge.errors import InputError
from mdpose_edge.view.access import Access, read_cookie
from mdpose_edge.view.hub import Hub
from mdpose_edge.view.page import load_page

MAX_CONNECTIONS = 64
"""Further ones are closed at once: each has a thread."""
STALL_S = 10.0
"""A connection that takes nothing, or says nothing, for so long is closed."""
SEND_BUFFER_BYTES = 1 << 17
"""What the system holds for a slow viewer: about a frame, so that what arrives is new. Its default holds seconds."""
POLL_S = 0.1
"""How soon the server notices that it should stop."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class ViewServer(Closing):
    """Serves the page and the stream until it is closed.

    Args:
        hub: where messages come from.
        host: the address or name to listen on.
        port: 0 lets the system choose.
        token: what viewers must know; needed on any address but loopback.

    Raises:
        ConfigError: no token where one is needed, or one that can be guessed.
        InputError: the address cannot be listened on.
    """

    def __init__(self, hub: Hub, *, host: str = "127.0.0.1", port: int = 8080, token: str | None = None) -> None:
        access = Access(host, token)
        try:
            self._server = _Server((host, port), hub, access)
        except OSError as error:
            got, do = f"the system's answer: {error.strerror or error}", "choose another --port or --host"
            raise InputError(f"{host}:{port}", expected="an address to listen on", got=got, do=do) from error
        self.port: int = self._server.server_address[1]
        """What the system chose, where the port was 0."""
        self.url = f"http://{_reachable_name(host)}:{self.port}/"
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(POLL_S,), name="view-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; viewers who are still there go when the hub ends. Calling it twice is harmless."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _reachable_name(host: str) -> str:
    """Return what stands in an address: a server that listens everywhere is reached by the machine's name."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], hub: Hub, access: Access) -> None:
        self.hub, self.access = hub, access
        self.page, self.policy = load_page()
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)
        self.cookie = f"mdpose_view_{self.server_address[1]}"

    def server_bind(self) -> None:
        """Bind without asking a name server for this machine's name, as the base class does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of viewers who vanish; anything else is our own fault and shown."""
        if not isinstance(sys.exception() if sys.version_info >= (3, 11) else sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "mdpose-edge", ""
    timeout = STALL_S

    def do_GET(self) -> None:
        access, address = self.server.access, urlsplit(self.path)
        if not access.knows_host(self.headers.get("Host")):
            self._answer(HTTPStatus.FORBIDDEN, "This address is not one of this server's own names.")
            return
        tokens = parse_qs(address.query).get("token", [None])
        if not access.admits(bearer=self._bearer(), query=tokens[0], cookie=self._cookie()):
            self._answer(HTTPStatus.UNAUTHORIZED, "Open the address with ?token=..., as the command printed it.")
        elif address.path == "/" and access.needs_token and tokens[0] is not None:
            self._keep_token()
        elif address.path == "/":
            self._send_page()
        elif address.path == "/stream":
            self._send_stream()
        else:
            self._answer(HTTPStatus.NOT_FOUND, "There is only / and /stream.")

    def end_headers(self) -> None:
        """Add what every answer carries, errors of the base class included."""
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep stderr for the program's own words; addresses may hold the token."""

    def _send_page(self) -> None:
        page = self.server.page
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.send_header("Content-Security-Policy", self.server.policy)
        self.end_headers()
        self.wfile.write(page)

    def _send_stream(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/octet-stream")
        self.end_headers()
        for message in self.server.hub.watch():
            self.wfile.write(message)

    def _keep_token(self) -> None:
        """Take the token out of the address, where histories and shoulders see it, and into a cookie."""
        cookie = f"{self.server.cookie}={self.server.access.cookie_value()}; HttpOnly; SameSite=Lax; Path=/"
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", "/")
        self.send_header("Set-Cookie", cookie)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, status: HTTPStatus, sentence: str) -> None:
        text = f"{sentence}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _bearer(self) -> str | None:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None

    def _cookie(self) -> str | None:
        return read_cookie(self.headers.get("Cookie"), self.server.cookie)
