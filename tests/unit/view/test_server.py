"""Who is let in, what they are told, and what no viewer can do to inference: with raw sockets."""

from __future__ import annotations

import http.client
import json
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from mdpose_edge.errors import ConfigError, InputError
from mdpose_edge.view import server as server_module
from mdpose_edge.view.access import Access, read_cookie
from mdpose_edge.view.hub import Hub
from mdpose_edge.view.server import MAX_CONNECTIONS, ViewServer
from tests.unit.view.conftest import Playing, shown

TOKEN = "correct horse battery"
Answer = tuple[int, dict[str, str], bytes]


def get(server: ViewServer, path: str = "/", method: str = "GET", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read() if path != "/stream" or answer.status != 200 else b""
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


@contextmanager
def viewer(server: ViewServer) -> Iterator[socket.socket]:
    """A connection that has asked for the stream."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"GET /stream HTTP/1.0\r\nHost: localhost\r\n\r\n")
        try:
            yield connection
        finally:
            with suppress(OSError):  # reset already
                connection.shutdown(socket.SHUT_RDWR)  # files made of it would keep it open


def messages(connection: socket.socket) -> Iterator[dict[str, object]]:
    file = connection.makefile("rb")
    while file.readline().strip():  # headers
        pass
    while len(lengths := file.read(8)) == 8:
        json_length, jpeg_length = struct.unpack("!II", lengths)
        yield json.loads(file.read(json_length))
        file.read(jpeg_length)


def wait_until(condition: object, what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@pytest.fixture
def guarded(hub: Hub) -> Iterator[ViewServer]:
    with ViewServer(hub, port=0, token=TOKEN) as server:
        yield server
        hub.end("the test is over")


def test_the_page_may_load_nothing_but_its_own_stream(server: ViewServer) -> None:
    status, headers, body = get(server)
    html = body.decode()
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy and "http" not in policy and "*" not in policy
    assert re.findall(r'(?:src|href)="([^"]*)"', html) == ["data:,"]
    assert "url(" not in html and "@import" not in html and "innerHTML" not in html
    assert not re.findall(r"https?://", html)


@pytest.mark.parametrize("path", ["/", "/stream", "/nothing"])
def test_every_answer_forbids_framing_guessing_and_keeping(server: ViewServer, path: str) -> None:
    _, headers, _ = get(server, path)
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "python" not in headers["server"].lower()


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/../etc/passwd", 404), ("POST", "/", 501)])
def test_there_is_nothing_else(server: ViewServer, method: str, path: str, status: int) -> None:
    assert get(server, path, method)[0] == status


@pytest.mark.parametrize(
    ("host", "name", "known"),
    [
        pytest.param("127.0.0.1", "localhost:9000", True, id="tunnel from another port"),
        pytest.param("127.0.0.1", "127.0.0.1:8080", True, id="address"),
        pytest.param("127.0.0.1", "[::1]:8080", True, id="address, IPv6"),
        pytest.param("127.0.0.1", "LOCALHOST.", True, id="letters and final dot"),
        pytest.param("127.0.0.1", "evil.example", False, id="rebound name"),
        pytest.param("127.0.0.1", "localhost.evil.example", False, id="rebound name that looks right"),
        pytest.param("127.0.0.1", "192.168.0.7:8080", False, id="another address"),
        pytest.param("127.0.0.1", None, False, id="none"),
        pytest.param("0.0.0.0", "192.168.0.7:8080", True, id="open: an address cannot be rebound"),
        pytest.param("0.0.0.0", "evil.example", False, id="open: rebound name"),
        pytest.param("board.lan", "board.lan:8080", True, id="open: its own name"),
    ],
)
def test_host_header(host: str, name: str | None, known: bool) -> None:
    assert Access(host, TOKEN).knows_host(name) is known


def test_a_rebound_name_is_refused_over_the_wire(server: ViewServer) -> None:
    assert get(server, "/", Host="evil.example")[0] == 403
    assert get(server, "/stream", Host="evil.example")[0] == 403


@pytest.mark.parametrize("path", ["/", "/stream", "/?token=", "/?token=wrong", "/?token=correct%20horse"])
def test_without_the_token_nothing_is_shown(guarded: ViewServer, path: str) -> None:
    status, headers, body = get(guarded, path)
    assert status == 401
    assert "set-cookie" not in headers and b"<html" not in body
    assert get(guarded, path, Authorization="Bearer wrong", Cookie=f"mdpose_view_{guarded.port}={TOKEN}")[0] == 401


def test_the_token_moves_from_the_address_into_a_cookie(guarded: ViewServer) -> None:
    status, headers, _ = get(guarded, "/?token=correct%20horse%20battery")
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "horse" not in cookie
    assert get(guarded, "/", Cookie=cookie.partition(";")[0])[0] == 200
    assert get(guarded, "/stream", Authorization=f"Bearer {TOKEN}")[0] == 200


@pytest.mark.parametrize("header", ["", "a", "=;=", "x=\x00", "mdpose_view_1", "mdpose_view_1=a; b", "a=b; " * 999])
def test_a_mangled_cookie_is_no_cookie(header: str) -> None:
    assert read_cookie(header, "mdpose_view_1") in (None, "a")


@pytest.mark.parametrize(
    ("host", "token", "words"),
    [
        pytest.param("0.0.0.0", None, ["--token", "none"], id="open without a token"),
        pytest.param("192.168.0.7", None, ["--token"], id="another address without a token"),
        pytest.param("0.0.0.0", "short", ["5 characters"], id="short token"),
        pytest.param("127.0.0.1", "", ["0 characters"], id="empty token"),
        pytest.param("0.0.0.0", "naïve-naïve-naïve", ["ASCII"], id="token that headers cannot carry"),
    ],
)
def test_an_address_that_others_reach_needs_a_good_token(host: str, token: str | None, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Access(host, token)
    assert all(word in str(caught.value) for word in words)


def test_a_port_that_is_taken_is_said_in_one_sentence(hub: Hub, server: ViewServer) -> None:
    with pytest.raises(InputError, match=rf"127\.0\.0\.1:{server.port}: expected an address to listen on"):
        ViewServer(hub, port=server.port)


def test_frames_arrive_in_order_and_end_with_a_reason(hub: Hub, server: ViewServer) -> None:
    with viewer(server) as connection, Playing(hub):
        stream = messages(connection)
        assert "about" in next(stream)
        indices = [int(str(next(stream)["index"])) for _ in range(5)]
        assert indices == sorted(set(indices))
        hub.end("stopped")
        assert [message for message in stream if "index" not in message] == [{"ended": "stopped"}]


def test_twenty_viewers_at_once(hub: Hub, server: ViewServer) -> None:
    with ExitStack() as stack, Playing(hub):
        streams = [messages(stack.enter_context(viewer(server))) for _ in range(20)]
        for stream in streams:
            assert "about" in next(stream)
        for stream in streams:
            assert "index" in next(stream)
        assert hub.viewers == 20
    wait_until(lambda: hub.viewers == 0 or hub.show(shown(0)), "viewers who left are still counted")


def test_viewers_who_never_read_delay_neither_inference_nor_others(hub: Hub, server: ViewServer) -> None:
    """Frames far larger than any socket's buffer; whoever does not take them blocks only their own thread."""
    wh = (1280, 960)
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(viewer(server))
        wait_until(lambda: hub.viewers == 5, "viewers did not arrive")
        attentive = messages(stack.enter_context(viewer(server)))
        next(attentive)
        slowest = 0.0
        for index in range(60):
            frame = shown(index, wh)
            start = time.perf_counter()
            hub.show(frame)
            slowest = max(slowest, time.perf_counter() - start)
            time.sleep(0.005)
        assert "index" in next(attentive)
        assert slowest < 0.5  # a viewer would hold it for STALL_S


def test_a_viewer_who_takes_nothing_is_dropped(hub: Hub, server: ViewServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module._Handler, "timeout", 0.3)
    with viewer(server) as connection, Playing(hub, fps=100, frame_wh=(1280, 960)):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wait_until(lambda: hub.viewers == 1, "the viewer did not arrive")
        wait_until(lambda: hub.viewers == 0, "the viewer is still there")


def test_a_viewer_who_vanishes_is_forgotten(hub: Hub, server: ViewServer, capfd: pytest.CaptureFixture[str]) -> None:
    with Playing(hub):
        with viewer(server) as connection:
            wait_until(lambda: hub.viewers == 1, "the viewer did not arrive")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()  # resets the connection
        wait_until(lambda: hub.viewers == 0, "the viewer is still there")
    assert capfd.readouterr().err == ""


def test_connections_that_say_nothing_do_not_lock_others_out_for_long(
    hub: Hub, server: ViewServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module._Handler, "timeout", 0.5)
    with ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        wait_until(lambda: _answers(server), "the server is still full")


def test_the_server_stops_while_viewers_are_there(hub: Hub) -> None:
    server = ViewServer(hub, port=0)
    with viewer(server) as connection:
        next(messages(connection))
        start = time.monotonic()
        server.close()
        server.close()
        assert time.monotonic() - start < 5


def _answers(server: ViewServer) -> bool:
    try:
        return get(server)[0] == 200
    except OSError:
        return False
    except http.client.HTTPException:
        return False
