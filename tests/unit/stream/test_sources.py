from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

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


@pytest.mark.parametrize(
    "url, shown",
    [
        ("rtsp://user:secret@camera:554/a@b", "rtsp://camera:554/a@b"),
        ("http://host/path", "http://host/path"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    assert "cret" not in capture.shown_url(url)
    assert capture.shown_url(url) == shown
