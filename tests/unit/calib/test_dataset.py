from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdpose_edge.calib.dataset import (
    INPUTS_FILE,
    RECORD_FILE,
    InputFormat,
    inputs_digest,
    is_calibration_set,
    open_calibration_set,
)
from mdpose_edge.datasets.images import read_image
from mdpose_edge.errors import CalibrationError
from mdpose_edge.preprocess import preprocess
from mdpose_edge.spec import InputSpec
from tests.unit.calib.frames import SPEC, make_small_set


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_set(tmp_path_factory.mktemp("whole")).path


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        data = json.loads((folder / RECORD_FILE).read_text())
        change(data)
        (folder / RECORD_FILE).write_text(json.dumps(data))

    return apply


def flip_a_byte(folder: Path) -> None:
    data = bytearray((folder / INPUTS_FILE).read_bytes())
    data[-1] ^= 1
    (folder / INPUTS_FILE).write_bytes(data)


def break_the_header(folder: Path) -> None:
    """Break it where Python's tokenizer, which numpy reads it by, gives up in a way of its own."""
    data = bytearray((folder / INPUTS_FILE).read_bytes())
    data[data.index(b"}")] = ord(" ")
    (folder / INPUTS_FILE).write_bytes(data)


def cut(folder: Path) -> None:
    data = (folder / INPUTS_FILE).read_bytes()
    (folder / INPUTS_FILE).write_bytes(data[:-1])


def save_zipped(folder: Path) -> None:
    with (folder / INPUTS_FILE).open("wb") as file:
        np.savez(file, np.zeros((4, 32, 64, 3), np.uint8))


def empty(data: dict[str, Any]) -> None:
    data["images"] = []
    data["digest"] = inputs_digest(InputFormat.of(SPEC), [])


def test_the_inputs_are_what_preprocess_gives(whole: Path) -> None:
    opened = open_calibration_set(whole)
    rows = list(opened)
    assert len(opened) == len(rows) == 4
    for image, row in zip(opened.record.images, rows, strict=True):
        frame = read_image(whole.parent / "frames" / image.name, orient=True)
        assert np.array_equal(row, preprocess(frame, SPEC)[0])
        assert row.flags.writeable and type(row) is np.ndarray
    assert not opened.inputs.flags.writeable


SPOILED = {
    "a byte changed": (flip_a_byte, r"inputs\.npy: expected the input of \d+\.png as it was written, got altered"),
    "cut short": (
        cut,
        r"inputs\.npy: expected uint8 \(4, 32, 64, 3\) in C order, got .*cut short",
    ),
    "a pickle": (lambda c: np.save(c / INPUTS_FILE, np.array([{}], object), allow_pickle=True), r"npy: .*damaged"),
    "a bare pickle": (lambda c: (c / INPUTS_FILE).write_bytes(pickle.dumps(np.zeros(1))), r"npy: .*damaged"),
    "an npz": (save_zipped, r"npy: .*damaged"),
    "an empty file": (lambda c: (c / INPUTS_FILE).write_bytes(b""), r"npy: .*damaged"),
    "a broken header": (break_the_header, r"npy: .*damaged"),
    "another type": (lambda c: np.save(c / INPUTS_FILE, np.zeros((4, 32, 64, 3), np.int8)), "got int8"),
    "another shape": (lambda c: np.save(c / INPUTS_FILE, np.zeros((4, 64, 32, 3), np.uint8)), r"\(4, 64, 32, 3\)"),
    "other order in memory": (
        lambda c: np.save(c / INPUTS_FILE, np.asfortranarray(np.load(c / INPUTS_FILE))),
        "in another order",
    ),
    "no inputs": (lambda c: (c / INPUTS_FILE).unlink(), r"inputs\.npy: .*got no such file"),
    "no record": (lambda c: (c / RECORD_FILE).unlink(), r"a calibration set with its calib\.json, got none"),
    "no folder": (shutil.rmtree, "got no such folder"),
    "no JSON": (lambda c: (c / RECORD_FILE).write_text("{"), r"calib\.json: expected JSON"),
    "no text": (lambda c: (c / RECORD_FILE).write_bytes(b"\xff\xfe"), r"calib\.json: expected JSON"),
    "a list": (lambda c: (c / RECORD_FILE).write_text("[]"), "expected version 1, got None"),
    "a newer version": (edit(lambda d: d.update(version=2)), "expected version 1, got 2; update mdpose-edge"),
    "an unknown key": (edit(lambda d: d.update(colour="BGR")), "unknown key colour"),
    "a missing key": (edit(lambda d: d.pop("seed")), "the key seed"),
    "a wrong value": (edit(lambda d: d["input"].update(resize="crop")), r"stretch, letterbox at input\.resize"),
    "no images": (edit(empty), "at least one image, got an empty set"),
    "images in another order": (edit(lambda d: d["images"].reverse()), "the list was altered"),
    "another input format": (edit(lambda d: d["input"].update(height=64)), "the list was altered"),
    "a file of somebody's": (lambda c: (c / "notes.txt").touch(), r"only calib\.json and inputs\.npy, got notes\.txt"),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILED.values(), ids=SPOILED)
def test_a_spoiled_set_is_refused_in_one_sentence(
    whole: Path, tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "calib"
    shutil.copytree(whole, path)
    spoil(path)
    with pytest.raises(CalibrationError, match=message) as caught:
        open_calibration_set(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hidden_files_are_ignored(whole: Path, tmp_path: Path) -> None:
    path = shutil.copytree(whole, tmp_path / "calib")
    (path / ".DS_Store").touch()
    assert open_calibration_set(path).digest == open_calibration_set(whole).digest


@pytest.mark.parametrize(
    "spec", [SPEC, replace(SPEC, batch=8), replace(SPEC, name="x"), replace(SPEC, mean=(0.0, 0.0, 0.0), std=(1, 1, 1))]
)
def test_a_set_fits_whatever_takes_the_same_pixels(whole: Path, spec: InputSpec) -> None:
    open_calibration_set(whole).check_fits(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (InputSpec(64, 64), "inputs of height 64, as the model takes, got height 32"),
        (InputSpec(32, 32), "inputs of width 32, as the model takes, got width 64"),
        (InputSpec(32, 64, resize="letterbox"), "resize letterbox, as the model takes, got resize stretch"),
    ],
)
def test_a_set_for_other_inputs_is_refused(whole: Path, spec: InputSpec, message: str) -> None:
    with pytest.raises(CalibrationError, match=f"{message}; make a set .*calib make --like MODEL"):
        open_calibration_set(whole).check_fits(spec)


def test_other_padding_is_refused(tmp_path: Path) -> None:
    spec = replace(SPEC, resize="letterbox")
    opened = make_small_set(tmp_path, 2, spec)
    assert (opened.inputs[:, :, 0] == np.round(spec.mean)).all()
    opened.check_fits(replace(spec, mean=(103.6, 116.1, 123.9)))
    with pytest.raises(CalibrationError, match=r"fill \(0, 116, 124\), as the model takes, got fill \(104, 116, 124\)"):
        opened.check_fits(replace(spec, mean=(0.0, 116.28, 123.675)))


def test_the_digest_names_the_inputs_and_their_format() -> None:
    stretch, letterbox = InputFormat.of(SPEC), InputFormat.of(replace(SPEC, resize="letterbox"))
    digests = [inputs_digest(*args) for args in ((stretch, ["a", "b"]), (stretch, ["b", "a"]), (letterbox, ["a", "b"]))]
    assert len(set(digests)) == 3
    # Sets out there carry these names: another digest of the same content needs another CALIBRATION_VERSION.
    assert digests[0] == "e11ff587a59fc975f2cf260e18ba0d3d6642bbf655f6c13da3616645628a15e8"


@pytest.mark.parametrize(
    ("prepare", "own"),
    [
        pytest.param(lambda c: None, True, id="a set"),
        pytest.param(flip_a_byte, True, id="a damaged set"),
        pytest.param(edit(lambda d: d.update(version=2)), True, id="a newer set"),
        pytest.param(lambda c: (c / "thesis").touch(), False, id="a set with more"),
        pytest.param(lambda c: (c / RECORD_FILE).write_text("{}"), False, id="another calib.json"),
        pytest.param(lambda c: (c / RECORD_FILE).write_text("{"), False, id="half a calib.json"),
        pytest.param(lambda c: (c / RECORD_FILE).unlink(), False, id="inputs alone"),
    ],
)
def test_what_may_be_replaced(whole: Path, tmp_path: Path, prepare: Callable[[Path], object], own: bool) -> None:
    path = shutil.copytree(whole, tmp_path / "calib")
    prepare(path)
    assert is_calibration_set(path) is own
