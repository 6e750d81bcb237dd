from __future__ import annotations

import errno
import json
import os
import struct
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge.common.files import files_together
from mdpose_edge.datasets.images import read_image
from mdpose_edge.draw import LEFT_BGR
from mdpose_edge.errors import BundleError, InputError, OutputError
from mdpose_edge.poses import Poses
from mdpose_edge.spec import COCO_KEYPOINTS
from mdpose_edge.stream.folder import infer_images, paint_images
from mdpose_edge.stream.painted import plan_copies
from tests.artifacts import Artifacts


def corner_to_corner(frame: NDArray[np.uint8]) -> Poses:
    """An estimator that lays one person along the diagonal."""
    steps = np.linspace(0.1, 0.9, 17, dtype=np.float32)
    xy = np.array([steps * frame.shape[1], steps * frame.shape[0]], np.float32).T[None]
    return Poses(xy, np.array([0.7], np.float32), np.full_like(xy, 2.5))


def write_picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((120, 200, 3), 90, np.uint8))
    return path


def test_each_image_gets_a_painted_copy_and_a_record(tmp_path: Path) -> None:
    sources = [write_picture(tmp_path / name) for name in ("a.jpg", "b.PNG", "c.bmp")]
    seen: list[tuple[int, int]] = []
    copies = plan_copies(sources, tmp_path / "out")
    with files_together(tmp_path / "out") as staging:
        records = paint_images(
            corner_to_corner,
            copies,
            staging,
            COCO_KEYPOINTS,
            sigma=True,
            progress=lambda done, total: seen.append((done, total)),
        )
        assert not (tmp_path / "out").exists()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.jpg", "b.PNG", "c.png"]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert json.loads(json.dumps(records)) == records
    assert [record["file"] for record in records] == [str(source) for source in sources]
    assert [record["painted"] for record in records] == [str(tmp_path / "out" / n) for n in ("a.jpg", "b.PNG", "c.png")]
    assert {(record["width"], record["height"]) for record in records} == {(200, 120)}
    (pose,) = records[0]["poses"]
    assert pose["score"] == 0.7
    assert pose["keypoints_xy"][0] == [20.0, 12.0]
    assert pose["sigma_xy"] == [[2.5, 2.5]] * 17
    painted = read_image(tmp_path / "out" / "c.png", orient=False)
    assert (painted == LEFT_BGR).all(axis=2).sum() > 10


@pytest.mark.parametrize("earlier", [True, False], ids=["into a folder that is there", "into a new one"])
def test_a_strict_run_ends_at_a_bad_image_by_name_and_leaves_no_copy(
    artifacts: Artifacts, tmp_path: Path, earlier: bool
) -> None:
    sources = [write_picture(tmp_path / "in" / f"{name}.jpg") for name in "abc"]
    sources[1].write_bytes(sources[1].read_bytes()[:-10])
    out = tmp_path / "new" / "out"
    if earlier:
        write_picture(out / "mine.jpg")
    with pytest.raises(InputError, match="breaks off") as caught:
        infer_images(artifacts.checkpoint(), sources, out, threads=1, strict=True)
    assert caught.value.where == str(sources[1])
    left = [path.name for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "in"]
    assert left == (["mine.jpg"] if earlier else [])
    assert out.exists() == earlier
    assert (tmp_path / "new").exists() == earlier


def test_one_bad_image_of_several_is_skipped_and_told(artifacts: Artifacts, tmp_path: Path) -> None:
    sources = [write_picture(tmp_path / "in" / f"{name}.jpg") for name in "abc"]
    sources[1].write_bytes(sources[1].read_bytes()[:-10])
    notes: list[str] = []
    seen: list[tuple[int, int]] = []
    document = infer_images(
        artifacts.checkpoint(),
        [tmp_path / "in"],
        tmp_path / "out",
        threads=1,
        note=notes.append,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert sorted(os.listdir(tmp_path / "out")) == ["a.jpg", "c.jpg"]
    assert [Path(image["file"]).name for image in document["images"]] == ["a.jpg", "c.jpg"]
    reason = "expected a whole image, got one that breaks off or is damaged"
    assert document["skipped"] == [{"file": str(sources[1]), "reason": reason}]
    assert not document["stopped"] and seen[-1] == (3, 3)
    assert [note.startswith(f"skipped: {sources[1]}") for note in notes] == [True]
    sources[0].write_bytes(b"")
    sources[2].write_bytes(b"")
    with pytest.raises(InputError, match=r"c\.jpg: expected an image, got an empty file"):
        infer_images(artifacts.checkpoint(), [tmp_path / "in"], tmp_path / "none", threads=1)
    assert not (tmp_path / "none").exists()


def test_hidden_files_and_other_pictures_in_a_folder_are_told(artifacts: Artifacts, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.jpg")
    for name in ("._a.jpg", ".DS_Store", "Thumbs.db", "b.heic", "c.GIF", "d.avif", "notes.txt"):
        (tmp_path / "in" / name).write_bytes(b"\0\5\26\7")
    notes: list[str] = []
    infer_images(artifacts.checkpoint(), [tmp_path / "in"], tmp_path / "out", threads=1, note=notes.append)
    assert os.listdir(tmp_path / "out") == ["a.jpg"]
    (note,) = notes
    assert "1 hidden file (._a.jpg) and 3 pictures (b.heic, c.GIF, d.avif) of other kinds" in note


def test_a_disk_that_fills_up_keeps_no_copy(
    artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, image: NDArray[np.uint8]) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("mdpose_edge.stream.folder.write_image", full)
    source = write_picture(tmp_path / "a.jpg")
    with pytest.raises(OutputError, match="No space left on device; free some space there; no painted copy was kept"):
        infer_images(artifacts.checkpoint(), [source], tmp_path / "out", threads=1)
    assert os.listdir(tmp_path) == ["a.jpg"]


def test_a_stop_keeps_the_images_that_are_done(artifacts: Artifacts, tmp_path: Path) -> None:
    sources = [write_picture(tmp_path / "in" / f"{name}.jpg") for name in "abc"]
    stop = threading.Event()
    document = infer_images(
        artifacts.checkpoint(), sources, tmp_path / "out", threads=1, stop=stop, progress=lambda *_: stop.set()
    )
    assert document["stopped"]
    assert [Path(image["file"]).name for image in document["images"]] == ["a.jpg"]
    assert os.listdir(tmp_path / "out") == ["a.jpg"]


def test_sources_of_the_same_name_are_refused(tmp_path: Path) -> None:
    for pair in (("x/a.jpg", "y/a.jpg"), ("x/a.png", "x/a.bmp")):
        with pytest.raises(InputError, match="both painted to"):
            plan_copies([tmp_path / name for name in pair], tmp_path / "out")


def test_painting_over_a_source_is_refused(tmp_path: Path) -> None:
    source = write_picture(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="apart from the sources"):
        plan_copies([source], tmp_path / "nowhere" / "..")
    other = write_picture(tmp_path / "out" / "b.jpg")
    with pytest.raises(InputError, match="apart from the sources"):
        plan_copies([tmp_path / "b.jpg", other], tmp_path / "out")


def test_sources_are_checked_before_the_model_is_opened(tmp_path: Path) -> None:
    model, out = tmp_path / "no-such-model", tmp_path / "out"
    source = write_picture(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"missing\.jpg"):
        infer_images(model, [source, tmp_path / "missing.jpg"], out)
    with pytest.raises(BundleError):
        infer_images(model, [source], out)
    assert not out.exists()


def test_an_output_folder_that_cannot_be_made_is_refused(artifacts: Artifacts, tmp_path: Path) -> None:
    model = artifacts.checkpoint()
    source = write_picture(tmp_path / "a.jpg")
    for out in (model, model / "out"):
        with pytest.raises(OutputError, match="expected a place to write"):
            infer_images(model, [source], out, threads=1)


def test_images_are_inferred_end_to_end(artifacts: Artifacts, tmp_path: Path) -> None:
    model = artifacts.checkpoint()
    for name in ("b.jpg", "a.jpg"):
        write_picture(tmp_path / "in" / name)
    document = infer_images(model, [tmp_path / "in"], tmp_path / "out", threads=1, threshold=0.0, sigma=True)
    assert json.loads(json.dumps(document)) == document
    assert (document["model"], document["engine"]) == (str(model), "torch")
    assert [Path(image["file"]).name for image in document["images"]] == ["a.jpg", "b.jpg"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.jpg", "b.jpg"]
    assert all(len(pose["keypoints_xy"]) == 17 for image in document["images"] for pose in image["poses"])
    assert document["images"][0]["poses"]
    nobody = infer_images(model, [tmp_path / "in"], tmp_path / "out", threads=1, threshold=1.0)
    assert [image["poses"] for image in nobody["images"]] == [[], []]


def test_a_phone_picture_is_painted_upright(tmp_path: Path) -> None:
    source = write_picture(tmp_path / "phone.jpg")
    jpeg = source.read_bytes()
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)  # Orientation 6: turn right
    source.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff + jpeg[2:])
    (record,) = paint_images(corner_to_corner, {source: tmp_path / "out.jpg"}, tmp_path, COCO_KEYPOINTS)
    assert (record["width"], record["height"]) == (120, 200)
    assert read_image(tmp_path / "out.jpg", orient=False).shape == (200, 120, 3)
