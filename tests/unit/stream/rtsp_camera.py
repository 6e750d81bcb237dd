"""A real RTSP server, GStreamer's, on the loopback interface; run as a program it is the server itself.

GStreamer's Python bindings come with the system's interpreter, not with a virtual environment, so that the server is a
process of that interpreter's. It ends by itself: after some time, or as soon as nobody holds its stdin.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PACKAGES = "gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-good and python3-gi"
"""Debian's, that the server needs; .ci/run installs them."""
INTERPRETERS = (sys.executable, "/usr/bin/python3")
LONGEST_S = 120
NEEDS = "gi.require_version('GstRtspServer', '1.0'); gi.require_version('Gst', '1.0')"
IS_COMPLETE = (
    f"import gi; {NEEDS}; from gi.repository import Gst, GstRtspServer; Gst.init(None); "
    "raise SystemExit(not all(map(Gst.ElementFactory.find, ('multifilesrc', 'rtpjpegpay'))))"
)


def find_interpreter() -> str:
    """The Python that has GStreamer's server, or a skip that says what is absent."""
    import pytest

    for python in filter(lambda name: Path(name).exists(), INTERPRETERS):
        if not subprocess.run([python, "-c", IS_COMPLETE], capture_output=True, timeout=60).returncode:
            return python
    pytest.skip(f"no RTSP server: Debian's {PACKAGES} are not installed")


@contextmanager
def rtsp_camera(pictures: Path, *, port: int = 0, user: str = "", password: str = "") -> Iterator[int]:
    """Serve the pictures 0.jpg, 1.jpg ... of a folder over and over, at 20 a second, under rtsp://127.0.0.1:PORT/cam.

    Args:
        pictures: their folder.
        port: where it listens; 0 is one that is free.
        user: that may look, with a password; empty lets everybody.
        password: the user's.

    Yields:
        The port.
    """
    command = [find_interpreter(), __file__, str(pictures), str(port), user, password]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None and server.stdout is not None
    try:
        yield int(server.stdout.readline())
    finally:
        server.kill()
        server.wait()
        server.stdin.close()
        server.stdout.close()


def serve(pictures: str, port: str, user: str, password: str) -> None:
    """Be the server."""
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    server: Any = GstRtspServer.RTSPServer(address="127.0.0.1", service=port)
    factory = GstRtspServer.RTSPMediaFactory(shared=True)
    source = f'multifilesrc location="{pictures}/%d.jpg" loop=true caps=image/jpeg,framerate=20/1'
    factory.set_launch(f"( {source} ! jpegparse ! rtpjpegpay name=pay0 pt=26 )")
    if user:
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", user)
        auth = GstRtspServer.RTSPAuth()
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        server.set_auth(auth)
        rights = f"{user}, media.factory.access=true, media.factory.construct=true"
        factory.add_role_from_structure(Gst.Structure.from_string(rights)[0])
    server.get_mount_points().add_factory("/cam", factory)
    server.attach(None)
    loop = GLib.MainLoop()
    GLib.timeout_add_seconds(LONGEST_S, loop.quit)
    GLib.io_add_watch(0, GLib.IO_HUP, lambda *_: loop.quit())
    print(server.get_bound_port(), flush=True)
    with suppress(KeyboardInterrupt):
        loop.run()


if __name__ == "__main__":
    serve(*sys.argv[1:])
