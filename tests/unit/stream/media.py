"""Real things to look at: video files, and a camera on the network that can stall, vanish and come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
STEP = 8
"""Grey levels between one picture and the next, so that a frame tells its number through any codec."""


def picture(number: int, size_wh: tuple[int, int] = (96, 64)) -> Image:
    """Draw the picture of a number below 30."""
    return np.full((size_wh[1], size_wh[0], 3), 10 + STEP * number, np.uint8)


def number_of(image: Image) -> int:
    """Read the number of a picture back."""
    return round((float(image.mean()) - 10) / STEP)


def write_video(path: Path, frames: int, *, fps: float = 10.0, size_wh: tuple[int, int] = (96, 64)) -> Path:
    """Write a video of motion JPEG, whose frames can be lost one by one."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), fps, size_wh)
    assert writer.isOpened()
    for number in range(frames):
        writer.write(picture(number, size_wh))
    writer.release()
    return path


def read_video(path: Path) -> list[Image]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(np.asarray(read[1], np.uint8))
    return frames


@contextmanager
def plain_server(folder: Path) -> Iterator[str]:
    """Serve a folder's files over HTTP, whole only: this server knows no ranges. Gives its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class NetworkCamera:
    """An HTTP server of motion JPEG on the loopback interface."""

    port: int = 0
    sending: threading.Event = field(default_factory=threading.Event)
    """Clear it and the stream stalls, its connection open."""
    hung_up: threading.Event = field(default_factory=threading.Event)
    """Set it and every connection ends, and new ones are refused with 503."""
    visits: int = 0
    over: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream.mjpg"


@contextmanager
def network_camera(fps: float = 50.0) -> Iterator[NetworkCamera]:
    """Serve a stream until the block ends."""
    camera = NetworkCamera()
    camera.sending.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if camera.hung_up.is_set():
                self.send_error(503)
                return
            camera.visits += 1
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            number = 0
            try:
                while not (camera.hung_up.is_set() or camera.over):
                    if camera.sending.wait(0.02):
                        data = cv2.imencode(".jpg", picture(number % 30))[1].tobytes()
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                        self.wfile.write(head.encode() + data + b"\r\n")
                        number += 1
                        time.sleep(1 / fps)
            except OSError:
                pass  # the client has gone

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    camera.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield camera
    finally:
        camera.over = True
        camera.sending.set()
        server.shutdown()
        server.server_close()
