from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from mdpose_edge.datasets.images import decode_image
from mdpose_edge.errors import InputError
from mdpose_edge.stream.capture import Capture
from mdpose_edge.stream.files import ImageSource, RawSource, VideoFile
from mdpose_edge.stream.frames import CapturedFrame, FrameSource
from tests.unit.stream.media import number_of, picture, write_video


def frames_and_error(source: FrameSource) -> tuple[list[CapturedFrame], InputError | None]:
    frames: list[CapturedFrame] = []
    try:
        for frame in source:
            frames.append(frame)
    except InputError as error:
        return frames, error
    return frames, None


def test_a_video_gives_every_frame_with_its_time(tmp_path: Path) -> None:
    source = VideoFile(write_video(tmp_path / "clip.avi", 12))
    frames, error = frames_and_error(source)
    assert error is None
    assert [number_of(frame.image_bgr) for frame in frames] == list(range(12))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(12) / 10, atol=0.051)
    assert (np.diff([frame.time_s for frame in frames]) > 0).all()
    assert (source.dropped, source.skipped) == (0, 0)


def test_a_corrupt_tail_gives_the_frames_before_it_and_then_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 20, size_wh=(640, 480))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    frames, error = frames_and_error(VideoFile(path))
    assert 1 <= len(frames) <= 16
    assert [number_of(frame.image_bgr) for frame in frames] == list(range(len(frames)))
    assert error is not None
    assert error.expected == "20 frames, as its header says"
    assert error.got.startswith(f"{len(frames)} before the data breaks off")


def test_noise_in_the_tail_neither_crashes_nor_hangs(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 20, size_wh=(640, 480))
    data = bytearray(path.read_bytes())
    start = len(data) // 2
    data[start:] = np.random.default_rng(0).integers(0, 256, len(data) - start, np.uint8).tobytes()
    path.write_bytes(bytes(data))
    frames, error = frames_and_error(VideoFile(path))
    assert 1 <= len(frames) < 20
    assert error is not None


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


def test_a_bad_image_among_images_is_an_error_by_name(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), picture(number))
    paths[1].write_bytes(paths[1].read_bytes()[:-20])
    frames, error = frames_and_error(ImageSource(paths, fps=30))
    assert len(frames) == 1
    assert error is not None
    assert error.where == str(paths[1])


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
