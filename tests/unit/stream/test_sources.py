from __future__ import annotations

import io
import re
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mdpose_edge.common.secrets import without_secrets
from mdpose_edge.errors import ConfigError, InputError
from mdpose_edge.stream import capture, sources
from mdpose_edge.stream.files import ImageSource, RawSource, VideoFile
from mdpose_edge.stream.live import LiveSource, Reconnect
from mdpose_edge.stream.sources import names_images, open_source
from tests.unit.stream.media import network_camera, number_of, picture, plain_server, write_video


@pytest.mark.parametrize(
    "word, images",
    [
        ("a.jpg", True),
        ("missing/b.PNG", True),
        ("*.jpg", True),
        ("clips/*", True),
        ("clip.mp4", False),
        ("0", False),
        ("/dev/video2", False),
        ("csi:0", False),
        ("-", False),
        ("rtsp://camera/one.jpg", False),
        ("http://host/a*b", False),
    ],
)
def test_what_names_images(word: str, images: bool) -> None:
    assert names_images(word) is images


def test_an_image_of_any_name_is_an_image(tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(cv2.imencode(".png", picture(3))[1].tobytes())
    assert names_images(str(tmp_path / "photo"))
    assert not names_images(str(write_video(tmp_path / "clip.avi", 2)))


def test_images_folders_and_globs(tmp_path: Path) -> None:
    for number in (2, 1, 3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(number))
    for words in (str(tmp_path), str(tmp_path / "*.png"), [str(tmp_path / f"{n}.png") for n in (1, 2, 3)]):
        source = open_source(words, fps=10)
        assert isinstance(source, ImageSource)
        frames = list(source)
        assert [number_of(frame.image_bgr) for frame in frames] == [1, 2, 3]
        assert [(frame.index, frame.time_s) for frame in frames] == [(0, 0.0), (1, 0.1), (2, 0.2)]
        assert [Path(frame.name).name for frame in frames] == ["1.png", "2.png", "3.png"]
        assert (source.live, source.total) == (False, 3)


def test_a_video_file(tmp_path: Path) -> None:
    source = open_source(str(write_video(tmp_path / "clip.avi", 5)))
    assert isinstance(source, VideoFile)
    assert (source.live, source.fps, source.total) == (False, 10.0, 5)


def test_a_file_on_the_web_is_a_file_and_a_stream_is_live() -> None:
    with network_camera() as camera:
        with open_source(camera.url) as source:
            assert isinstance(source, LiveSource)
            assert source.live
            assert number_of(next(iter(source)).image_bgr) < 30
        assert camera.visits == 1


def test_an_mp4_whose_index_a_server_without_ranges_keeps_out_of_reach_says_what_to_do(tmp_path: Path) -> None:
    clip, noise = tmp_path / "clip.mp4", np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    writer = cv2.VideoWriter(str(clip), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 240))
    for number in range(10):  # more than FFmpeg holds at once
        writer.write(np.roll(noise, number, 0))
    writer.release()
    with plain_server(tmp_path) as url, open_source(f"{url}/{clip.name}") as source:
        assert isinstance(source, VideoFile)
        with pytest.raises(InputError, match=r"a video with frames, got none .* range requests .*\+faststart"):
            list(source)
    assert len(list(open_source(str(clip)))) == 10


def test_raw_frames_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(picture(4).tobytes() + picture(5).tobytes())))
    source = open_source("-", frame_size="96x64", fps=20)
    assert isinstance(source, RawSource)
    assert [(number_of(f.image_bgr), f.time_s) for f in source] == [(4, 0.0), (5, 0.05)]


@pytest.mark.parametrize("size", [None, "0x0", "96x0", "96", "axb", "-1x5", "96x64x3"])
def test_stdin_needs_a_size(size: str | None) -> None:
    with pytest.raises(ConfigError, match="--frame-size"):
        open_source("-", frame_size=size)


@pytest.mark.parametrize(
    "word, sentence",
    [
        ("missing.mp4", "an image, a video, a camera or a URL, got no such file"),
        ("missing.jpg", "no such file"),
        ("csi:x", "csi: and the sensor's number"),
        ("77", "expected a camera, got no /dev/video77"),
        (77, "expected a camera, got no /dev/video77"),
        ("/dev/video77", "expected a camera, got no /dev/video77"),
        ("http://127.0.0.1:9/none", "a video stream"),
    ],
)
def test_what_is_not_there_is_told_in_a_sentence(word: str | int, sentence: str) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        open_source(word, reconnect=Reconnect(0))


def test_a_folder_without_images_and_a_device_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder with images"):
        open_source(str(tmp_path))
    with pytest.raises(InputError, match="a video file, got something else"):
        open_source("/dev/null")


def test_several_sources_must_all_be_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"clip\.mp4: expected one source, or several images"):
        open_source(["a.jpg", "clip.mp4"])


@pytest.mark.skipif("GStreamer:                   NO" not in cv2.getBuildInformation(), reason="it has GStreamer")
def test_a_wheel_without_gstreamer_says_so() -> None:
    assert not capture.has_gstreamer()


def test_csi_needs_gstreamer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "has_gstreamer", lambda: False)
    with pytest.raises(InputError, match=r"an OpenCV with GStreamer.*libopencv-python"):
        open_source("csi:0")


def test_the_csi_pipeline_names_sensor_size_and_rate() -> None:
    pipeline = capture.csi_pipeline(1, (1920, 1080), 29.97)
    assert pipeline.startswith("nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM), format=NV12, framerate=30/1 !")
    assert "width=1920, height=1080, format=BGRx" in pipeline
    assert pipeline.endswith("video/x-raw, format=BGR ! appsink drop=true max-buffers=1 sync=false")


def test_csi_opens_that_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    class Argus:
        """A Jetson's camera, as far as this machine has one."""

        def __init__(self, target: str, backend: int, parameters: list[int]) -> None:
            opened.append((target, backend))

        def get(self, what: int) -> float:
            return 0.0

        def release(self) -> None:
            pass

        def isOpened(self) -> bool:
            return True

        def read(self, image: object = None) -> tuple[bool, object]:
            return True, picture(7)

    monkeypatch.setattr(capture, "has_gstreamer", lambda: True)
    monkeypatch.setattr(capture.cv2, "VideoCapture", Argus)
    with sources.open_source("csi:0", frame_size="640x480", fps=60) as source:
        assert number_of(next(iter(source)).image_bgr) == 7
    assert opened == [(capture.csi_pipeline(0, (640, 480), 60), cv2.CAP_GSTREAMER)]


@dataclass
class PictureServer:
    url: str
    fetched: list[str]


@contextmanager
def picture_server(data: bytes, *, password: str = "", states_length: bool = True) -> Iterator[PictureServer]:
    """Serve one file at every address, to those who know the password."""
    fetched: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = "Basic " + b64encode(f"admin:{password}".encode()).decode()
            if password and self.headers.get("Authorization") != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            fetched.append(self.path)
            self.send_response(200)
            if states_length:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        user = f"admin:{password}@" if password else ""
        yield PictureServer(f"http://{user}127.0.0.1:{server.server_address[1]}", fetched)
    finally:
        server.shutdown()
        server.server_close()


def turned_jpeg() -> bytes:
    """Encode a picture that EXIF says to turn by 90 degrees: 96x64 as stored, 64x96 as shown."""
    data = cv2.imencode(".jpg", picture(3))[1].tobytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    return data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]


@pytest.mark.parametrize("states_length", [True, False])
@pytest.mark.parametrize("password", ["", "s3cret"])
@pytest.mark.parametrize("path", ["/photo.jpg", "/photo.jpg?sig=1", "/snapshot?channel=2", "/photo"])
def test_a_picture_at_a_url_is_a_picture_fetched_once(path: str, password: str, states_length: bool) -> None:
    serving = picture_server(turned_jpeg(), password=password, states_length=states_length)
    with serving as server, open_source(server.url + path) as source:
        (frame,) = source
    assert (source.live, source.total, frame.image_bgr.shape) == (False, 1, (96, 64, 3))
    assert server.fetched == [path]
    assert "s3cret" not in frame.name + source.name


def test_a_png_at_a_url_is_a_picture_and_a_gif_there_a_file(tmp_path: Path) -> None:
    with picture_server(cv2.imencode(".png", picture(5))[1].tobytes()) as server, open_source(server.url) as source:
        assert [number_of(frame.image_bgr) for frame in source] == [5]
    if not hasattr(cv2, "Animation"):
        return
    moving = cv2.Animation()
    moving.frames, moving.durations = [picture(n) for n in range(4)], np.full(4, 100, np.int32)
    cv2.imwriteanimation(str(tmp_path / "moving.gif"), moving)
    with picture_server((tmp_path / "moving.gif").read_bytes()) as server, open_source(server.url) as source:
        assert [number_of(frame.image_bgr) for frame in source] == [0, 1, 2, 3]
        assert not source.live


@pytest.mark.parametrize("suffix", [".avif", ".webp"])
def test_an_animation_at_a_url_that_ffmpeg_shows_in_part_is_refused(suffix: str, tmp_path: Path) -> None:
    if not hasattr(cv2, "Animation") or not cv2.haveImageWriter(f"moving{suffix}"):
        pytest.skip(f"OpenCV {cv2.__version__} writes no such animations")
    moving = cv2.Animation()
    moving.frames, moving.durations = [picture(n) for n in range(4)], np.full(4, 100, np.int32)
    cv2.imwriteanimation(str(tmp_path / f"moving{suffix}"), moving)
    data = (tmp_path / f"moving{suffix}").read_bytes()
    with (
        picture_server(data) as server,
        pytest.raises(InputError, match="got an animation; give the file alone"),
        open_source(server.url) as source,
    ):
        list(source)


def test_heic_at_a_url_is_refused_by_name() -> None:
    heic = b"\0\0\0\x18ftypheic" + bytes(100)
    with picture_server(heic) as server, open_source(server.url + "/a") as source, pytest.raises(InputError) as caught:
        list(source)
    assert "got HEIC, which OpenCV cannot decode" in str(caught.value)


@pytest.mark.parametrize(
    "url, shown",
    [
        ("rtsp://user:secret@camera:554/a@b", "rtsp://camera:554/a@b"),
        ("http://host/path", "http://host/path"),
        ("http://host:8080/a@b", "http://host:8080/a@b"),
        ("http://[::1]:8080/a@b", "http://[::1]:8080/a@b"),
        ("http://secret@host/path", "http://host/path"),
        ("rtsp://admin:se/cret@host/1", "rtsp://host/1"),
        ("rtsp://admin:se#cr@et@host/1", "rtsp://host/1"),
        ("rtspx:/admin:secret@host/1", "rtspx:/host/1"),
        ("http://host/s?channel=1&password=secret", "http://host/s?channel=1&password=***"),
        ("http://host/s?usr=secret&PWD=secret#token=secret", "http://host/s?usr=***&PWD=***#token=***"),
        ("http://host/s?loginpas=secret&x=1", "http://host/s?loginpas=***&x=1"),
        ("http://host/s?p%61ss=secret", "http://host/s?p%61ss=***"),
        ("rtsp://host/user=secret_password=secret_channel=1&stream=0.sdp", "rtsp://host/user=***&stream=0.sdp"),
        ("a/b?user=2 and C:/x@y", "a/b?user=2 and C:/x@y"),
        ("http://u:secret@h/1: expected a, got b; try http://v:secret@i/?token=secret.",
         "http://h/1: expected a, got b; try http://i/?token=***."),
    ],
)  # fmt: skip
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    assert without_secrets(url) == shown
    assert without_secrets(shown) == shown


@pytest.mark.parametrize(
    "word", ["rtsp://u:s3cret@127.0.0.1:9/1", "http://127.0.0.1:9/?pwd=s3cret", "xyz://u:s3cret@h/1"]
)
def test_a_source_that_cannot_be_opened_is_told_without_its_password(word: str) -> None:
    for words in (word, [word, word]):
        with pytest.raises(InputError) as failure:
            open_source(words, reconnect=Reconnect(0))
        assert "s3cret" not in str(failure.value) and "expected" in str(failure.value)
