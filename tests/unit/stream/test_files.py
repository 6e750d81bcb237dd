from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from mdpose_edge.datasets.images import decode_image, read_image
from mdpose_edge.errors import InputError
from mdpose_edge.stream import animation
from mdpose_edge.stream.capture import Capture
from mdpose_edge.stream.containers import read_container
from mdpose_edge.stream.files import SIZE_UNSEEN, ImageSource, RawSource, VideoFile
from mdpose_edge.stream.frames import CapturedFrame, FrameSource
from mdpose_edge.stream.pyav import AvWriter
from mdpose_edge.stream.sources import open_source
from tests.unit.stream.media import number_of, picture, write_video


def frames_and_error(source: FrameSource) -> tuple[list[CapturedFrame], InputError | None]:
    frames: list[CapturedFrame] = []
    try:
        for frame in source:
            frames.append(frame)
    except InputError as error:
        return frames, error
    return frames, None


@pytest.fixture(params=["PyAV", "OpenCV"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Read video files by one or the other."""
    if request.param == "PyAV":
        pytest.importorskip("av")
    else:
        monkeypatch.setattr(animation, "available", lambda name: False)
    return str(request.param)


def test_a_video_gives_every_frame_with_its_time(tmp_path: Path, decoder: str) -> None:
    source = VideoFile(write_video(tmp_path / "clip.avi", 12))
    frames, error = frames_and_error(source)
    assert error is None
    assert [number_of(frame.image_bgr) for frame in frames] == list(range(12))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(12) / 10, atol=0.051)
    assert (np.diff([frame.time_s for frame in frames]) > 0).all()
    assert (source.dropped, source.skipped) == (0, 0)


def test_a_corrupt_tail_gives_the_frames_before_it_and_then_says_so(tmp_path: Path, decoder: str) -> None:
    path = write_video(tmp_path / "clip.avi", 20, size_wh=(640, 480))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    frames, error = frames_and_error(VideoFile(path))
    assert 1 <= len(frames) <= 16
    assert [number_of(frame.image_bgr) for frame in frames] == list(range(len(frames)))
    assert error is not None
    assert error.expected == "20 frames, as its header says"
    assert error.got.startswith(f"{len(frames)} before the data breaks off")


def test_noise_in_the_tail_neither_crashes_nor_hangs(tmp_path: Path, decoder: str) -> None:
    path = write_video(tmp_path / "clip.avi", 20, size_wh=(640, 480))
    data = bytearray(path.read_bytes())
    start = len(data) // 2
    data[start:] = np.random.default_rng(0).integers(0, 256, len(data) - start, np.uint8).tobytes()
    path.write_bytes(bytes(data))
    frames, error = frames_and_error(VideoFile(path))
    assert 1 <= len(frames) < 20
    assert error is not None


JPEG = b"\xff\xd8\xff"


def without_duration(mkv: bytes) -> bytes:
    """Take the length out of a Matroska header, as one has none that was written to a pipe."""
    at = mkv.index(b"\x44\x89\x88")  # Duration, 8 bytes: a Void of the same size takes its place
    return mkv[:at] + b"\xec\x89" + bytes(9) + mkv[at + 11 :]


def with_damage(data: bytes, frames: set[int]) -> bytes:
    """Overwrite the pictures of these numbers, and leave the container as it is."""
    for number, match in enumerate(re.finditer(re.escape(JPEG) + b".*?\xff\xd9", data, re.DOTALL)):
        if number in frames:
            data = data[: match.start()] + bytes(len(match[0])) + data[match.end() :]
    return data


@pytest.mark.parametrize("damaged", [{9}, {0}, {29}, {3, 4, 5, 17}], ids=str)
@pytest.mark.parametrize("change", [bytes, without_duration], ids=["stated length", "no length"])
def test_damaged_packets_do_not_end_a_video(
    tmp_path: Path, decoder: str, change: Callable[[bytes], bytes], damaged: set[int]
) -> None:
    path = write_video(tmp_path / "clip.mkv", 30)
    path.write_bytes(with_damage(change(path.read_bytes()), damaged))
    notes: list[str] = []
    source = VideoFile(path, note=notes.append)
    frames, error = frames_and_error(source)
    assert error is None
    sound = [number for number in range(30) if number not in damaged]
    assert [(frame.index, number_of(frame.image_bgr)) for frame in frames] == [(number, number) for number in sound]
    np.testing.assert_allclose([frame.time_s for frame in frames], np.array(sound) / 10, atol=0.002)
    assert source.skipped == len(damaged)
    (note,) = (note for note in notes if SIZE_UNSEEN not in note)
    assert f"frame {min(damaged)}: expected a picture, got damaged data" in note


@pytest.mark.parametrize("change", [bytes, without_duration], ids=["stated length", "no length"])
@pytest.mark.parametrize("share", [0.3, 0.8, 0.97])
def test_an_early_end_is_told_whether_or_not_the_header_knows_the_length(
    tmp_path: Path, decoder: str, change: Callable[[bytes], bytes], share: float
) -> None:
    path = write_video(tmp_path / "clip.mkv", 25)
    data = change(path.read_bytes())
    path.write_bytes(data[: round(share * data.rindex(b"\x1c\x53\xbb\x6b"))])  # of what comes before the index
    frames, error = frames_and_error(VideoFile(path))
    assert 1 <= len(frames) < 25
    assert error is not None and error.got == f"{len(frames)} before the data breaks off"


def test_times_are_the_containers_and_a_pause_is_no_loss(tmp_path: Path, decoder: str) -> None:
    pytest.importorskip("av")
    times = (0.0, 0.1, 0.2, 2.0, 2.1, 5.0)
    for suffix in (".mkv", ".mp4", ".ts"):
        writer = AvWriter(tmp_path / f"clip{suffix}", 10, (96, 64))
        for number, time_s in enumerate(times):
            writer.write(picture(number), time_s)
        writer.close()
        frames, error = frames_and_error(VideoFile(tmp_path / f"clip{suffix}"))
        assert error is None
        np.testing.assert_allclose([frame.time_s for frame in frames], times, atol=0.001)


def test_an_avi_that_counts_its_pauses_as_frames_is_whole(tmp_path: Path, decoder: str) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.avi"), "w") as file:
        stream = file.add_stream("mpeg4", rate=50)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(picture(number), format="bgr24")
            frame.pts = 10 * number
            for packet in stream.encode(frame):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    frames, error = frames_and_error(VideoFile(tmp_path / "clip.avi"))
    assert error is None
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(20) / 5, atol=0.021)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".avif"])
def test_an_animated_picture_is_a_video(tmp_path: Path, decoder: str, suffix: str) -> None:
    if not hasattr(cv2, "Animation") or not cv2.haveImageWriter(f"moving{suffix}"):
        pytest.skip(f"OpenCV {cv2.__version__} writes no such animations")
    path, moving = tmp_path / f"moving{suffix}", cv2.Animation()
    moving.frames, moving.durations = (
        [picture(n) for n in range(20)],
        np.array([100] * 9 + [400] + [100] * 10, np.int32),
    )
    cv2.imwriteanimation(str(path), moving)
    source = open_source(str(path))
    assert isinstance(source, VideoFile)
    frames, error = frames_and_error(source)
    assert error is None
    assert [number_of(frame.image_bgr) for frame in frames] == list(range(20))
    expected = [n / 10 + 0.3 * (n > 9) for n in range(20)]
    np.testing.assert_allclose([frame.time_s for frame in frames], expected, atol=0.011)
    with pytest.raises(InputError, match="expected a still image, got an animation; give the file alone"):
        read_image(path, orient=True)


def test_a_gif_whose_pictures_state_no_time_is_read_whole_whatever_its_name(tmp_path: Path, decoder: str) -> None:
    if not hasattr(cv2, "Animation"):
        pytest.skip(f"OpenCV {cv2.__version__} writes no animations")
    moving = cv2.Animation()
    moving.frames, moving.durations = [picture(n) for n in range(5)], np.full(5, 100, np.int32)
    cv2.imwriteanimation(str(tmp_path / "moving.gif"), moving)
    untimed = re.sub(rb"\x21\xf9\x04.{4}\0", b"", (tmp_path / "moving.gif").read_bytes(), flags=re.DOTALL)
    for name in ("untimed.gif", "untimed.jpg", "untimed"):
        (tmp_path / name).write_bytes(untimed)
        frames, error = frames_and_error(open_source(str(tmp_path / name)))
        assert error is None
        assert [number_of(frame.image_bgr) for frame in frames] == list(range(5))


def test_motion_jpeg_is_a_video_and_a_photo_with_previews_is_not(tmp_path: Path, decoder: str) -> None:
    jpegs = [cv2.imencode(".jpg", picture(n))[1].tobytes() for n in range(5)]
    (tmp_path / "camera").write_bytes(b"".join(jpegs))
    frames, error = frames_and_error(open_source(str(tmp_path / "camera")))
    assert error is None
    assert [number_of(frame.image_bgr) for frame in frames] == list(range(5))
    photo = jpegs[0][:2] + b"\xff\xe2\x00\x08MPF\0II" + jpegs[0][2:] + jpegs[1]
    for name, data in (("photo", photo), ("photo.jpg", b"".join(jpegs[:2])), ("one.mjpeg", jpegs[0])):
        (tmp_path / name).write_bytes(data)
        assert isinstance(open_source(str(tmp_path / name)), ImageSource), name


def test_a_gif_of_one_picture_is_a_picture(tmp_path: Path) -> None:
    if not cv2.haveImageWriter("a.gif"):
        pytest.skip(f"OpenCV {cv2.__version__} writes no GIF")
    cv2.imwrite(str(tmp_path / "still.gif"), picture(3))
    assert isinstance(open_source(str(tmp_path / "still.gif")), ImageSource)


def test_a_change_of_size_on_the_way_is_followed(tmp_path: Path) -> None:
    pytest.importorskip("av")
    parts = []
    for number, size_wh in enumerate(((96, 64), (64, 128))):
        writer = AvWriter(tmp_path / f"{number}.ts", 10, size_wh)
        for index in range(3):
            writer.write(picture(3 * number + index, size_wh), index / 10)
        writer.close()
        parts.append((tmp_path / f"{number}.ts").read_bytes())
    (tmp_path / "clip.ts").write_bytes(b"".join(parts))
    frames, error = frames_and_error(VideoFile(tmp_path / "clip.ts"))
    assert error is None
    assert [number_of(frame.image_bgr) for frame in frames] == list(range(6))
    assert [frame.image_bgr.shape[:2] for frame in frames] == [(64, 96)] * 3 + [(128, 64)] * 3


def test_a_phones_video_comes_upright(tmp_path: Path, decoder: str) -> None:
    turned = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    upright = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    path, half = write_video(tmp_path / "clip.mp4", 0), picture(0)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 10, (96, 64))
    half[:, 48:] = 200
    for _ in range(3):
        writer.write(half)
    writer.release()
    data = path.read_bytes()
    at = data.rindex(struct.pack(">9i", *upright))  # the track's
    path.write_bytes(data[:at] + struct.pack(">9i", *turned) + data[at + 36 :])
    frames, _ = frames_and_error(VideoFile(path))
    assert [frame.image_bgr.shape for frame in frames] == [(96, 64, 3)] * 3
    assert frames[0].image_bgr[:40].mean() < 30 and frames[0].image_bgr[56:].mean() > 170


def test_a_second_video_track_is_told(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    for suffix in (".mkv", ".mp4"):
        with av.open(str(tmp_path / f"two{suffix}"), "w") as file:
            streams = [file.add_stream("mpeg4", rate=10) for _ in range(2)]
            for stream in streams:
                stream.width, stream.height = 96, 64
            for number, stream in enumerate(streams):
                for packet in stream.encode(av.VideoFrame.from_ndarray(picture(9 * number), format="bgr24")):
                    file.mux(packet)
                for packet in stream.encode():
                    file.mux(packet)
        notes: list[str] = []
        frames, error = frames_and_error(VideoFile(tmp_path / f"two{suffix}", note=notes.append))
        assert error is None and [number_of(frame.image_bgr) for frame in frames] == [0]
        assert notes == [f"{tmp_path / f'two{suffix}'}: the first of its 2 video tracks is read."]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".avi", ".flv", ".wmv", ".ogg", ".ts", ".gif", ".webp"])
def test_a_container_tells_whether_it_is_whole(tmp_path: Path, suffix: str) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / f"clip{suffix}"
    if suffix == ".webp":
        path.write_bytes(cv2.imencode(suffix, np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8))[1])
    else:
        with av.open(str(path), "w") as file:
            stream = file.add_stream(
                {".flv": "flv1", ".gif": "gif", ".wmv": "wmv2", ".ogg": "libvpx"}.get(suffix, "mpeg4"), rate=10
            )
            stream.width, stream.height, stream.pix_fmt = 96, 64, "rgb8" if suffix == ".gif" else "yuv420p"
            noise = np.random.default_rng(0).integers(0, 256, (8, 64, 96, 3), np.uint8)
            for image in [*noise, None]:
                frame = None if image is None else av.VideoFrame.from_ndarray(image, format="bgr24")
                for packet in stream.encode(frame):
                    file.mux(packet)
    data = path.read_bytes()
    assert read_container(path).whole is True
    path.write_bytes(data[:-99])
    assert read_container(path).whole is False


@pytest.mark.parametrize("content", [b"", b"not a video", bytes(5000)])
def test_what_is_no_video_is_refused_at_once(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match="expected a video, got nothing that OpenCV can open"):
        VideoFile(path)


class Scripted:
    """A decoder that hands out these pictures; not derived from cv2.VideoCapture, which crashes when that is freed."""

    def __init__(self, pictures: list[np.ndarray | None]) -> None:
        self._pictures = list(pictures)

    def get(self, what: int) -> float:
        return 0.0

    def release(self) -> None:
        pass

    def read(self, image: object = None) -> tuple[bool, np.ndarray | None]:
        return (True, self._pictures.pop(0)) if self._pictures else (False, None)


def test_frames_without_pixels_are_skipped_and_counted(tmp_path: Path) -> None:
    nothing, tiny = np.zeros((0, 0, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)
    notes: list[str] = []
    script = [picture(0), nothing, None, tiny, picture(4), np.zeros((64, 0, 3), np.uint8)]
    source = VideoFile("scripted", capture=Capture(Scripted(script)), note=notes.append)
    frames, error = frames_and_error(source)
    assert error is None
    assert [(frame.index, number_of(frame.image_bgr)) for frame in frames] == [(0, 0), (4, 4)]
    assert source.skipped == 4
    assert len(notes) == 1
    assert "frame 1" in notes[0]


@pytest.mark.parametrize(("suffix", "told"), [(".mkv", True), (".avi", False)])
def test_that_a_change_of_size_would_not_be_seen_is_told(tmp_path: Path, decoder: str, suffix: str, told: bool) -> None:
    notes: list[str] = []
    VideoFile(write_video(tmp_path / f"clip{suffix}", 2), note=notes.append).close()
    assert any(SIZE_UNSEEN in note for note in notes) == (told and decoder == "OpenCV")


def test_a_frame_size_may_change(tmp_path: Path) -> None:
    script = [picture(0), picture(1, (64, 96)), picture(2)]
    frames, _ = frames_and_error(VideoFile("scripted", capture=Capture(Scripted(script))))
    assert [frame.image_bgr.shape[:2] for frame in frames] == [(64, 96), (96, 64), (64, 96)]


def test_a_video_without_frames_is_an_error() -> None:
    _, error = frames_and_error(VideoFile("scripted", capture=Capture(Scripted([]))))
    assert error is not None
    assert error.expected == "a video with frames"


def test_closing_ends_the_iteration(tmp_path: Path) -> None:
    source = VideoFile(write_video(tmp_path / "clip.avi", 12))
    seen = 0
    for _ in source:
        seen += 1
        source.close()
    assert seen == 1


def test_a_bad_image_among_images_is_skipped_and_told_or_an_error_by_name(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), picture(number))
    paths[1].write_bytes(paths[1].read_bytes()[:-20])
    frames, error = frames_and_error(ImageSource(paths, fps=30, strict=True))
    assert len(frames) == 1
    assert error is not None
    assert error.where == str(paths[1])
    notes: list[str] = []
    source = ImageSource(paths, fps=30, note=notes.append)
    frames, error = frames_and_error(source)
    assert ([frame.index for frame in frames], error, source.skipped) == ([0, 2], None, 1)
    assert len(notes) == 1 and notes[0].startswith(f"skipped: {paths[1]}: expected a whole image")
    frames, error = frames_and_error(ImageSource(paths[1:2], fps=30))
    assert not frames and error is not None


@pytest.mark.parametrize("extra, frames", [(b"", 0), (b"x" * 10, 0), (picture(1).tobytes() + b"xyz", 1)])
def test_raw_frames_must_be_whole(extra: bytes, frames: int) -> None:
    found, error = frames_and_error(RawSource(io.BytesIO(extra), (96, 64), fps=30))
    assert len(found) == frames
    assert error is not None
    assert "whole frames of 96x64, 18432 bytes each" in error.expected


def corrupted(seeds: list[bytes], count: int) -> Iterator[bytes]:
    """Damage files as disks, networks and bad luck do: bytes changed, lost, doubled, or cut off."""
    rng = np.random.default_rng(0)
    for number in range(count):
        data = bytearray(seeds[number % len(seeds)])
        for _ in range(int(rng.integers(1, 6))):
            place, length = int(rng.integers(len(data))), int(rng.integers(1, 40))
            kind = rng.integers(4)
            if kind == 0:
                data[place] ^= int(rng.integers(1, 256))
            elif kind == 1:
                del data[place : place + length]
            elif kind == 2:
                data[place:place] = rng.integers(0, 256, length, np.uint8).tobytes()
            else:
                del data[max(10, place) :]
        yield bytes(data)


def test_a_thousand_corrupt_images_neither_crash_nor_hang() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
    seeds = [cv2.imencode(suffix, noise)[1].tobytes() for suffix in (".jpg", ".png", ".webp", ".bmp", ".tiff")]
    refused = 0
    for number, data in enumerate(corrupted(seeds, 1000)):
        try:
            frame = decode_image(data, f"image {number}", orient=bool(number % 2))
        except InputError as error:
            refused += 1
            assert error.where == f"image {number}"
        else:
            assert frame.dtype == np.uint8
            assert frame.ndim == 3
    assert 500 < refused < 1000
