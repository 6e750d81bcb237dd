from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mdpose_edge.bundle import SPEC_FILE, open_bundle, write_bundle
from mdpose_edge.common.files import file_sha256, visible_files
from mdpose_edge.errors import BundleError, MdposeError, SpecError
from mdpose_edge.families.mdpose.heads import mdpose_spec
from mdpose_edge.spec import InputSpec

SPEC = replace(mdpose_spec(InputSpec(64, 64)), target="openvino", graph="model.xml")
FILES = {"model.xml": b"<net/>", "model.bin": bytes(range(256))}


def write(out: Path, files: dict[str, bytes] = FILES) -> Path:
    with write_bundle(out, SPEC) as directory:
        for name, data in files.items():
            (directory / name).write_bytes(data)
    return out


def change_spec(bundle: Path, change: Callable[[dict[str, object]], object]) -> None:
    data = json.loads((bundle / SPEC_FILE).read_text())
    change(data)
    (bundle / SPEC_FILE).write_text(json.dumps(data))


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_what_was_written_opens(tmp_path: Path) -> None:
    bundle = open_bundle(write(tmp_path / "deep" / "bundle"))
    assert bundle.graph.read_bytes() == FILES["model.xml"]
    assert bundle.spec.files == {name: file_sha256(bundle.path / name) for name in FILES}
    assert bundle.spec.outputs == SPEC.outputs
    assert sorted(os.listdir(bundle.path)) == sorted([*FILES, SPEC_FILE])
    assert os.listdir(tmp_path / "deep") == ["bundle"]


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        pytest.param(lambda b: flip_a_byte(b / "model.bin"), BundleError, "model.bin: .*was altered", id="byte"),
        pytest.param(lambda b: (b / "model.bin").unlink(), BundleError, "the file model.bin, got none", id="missing"),
        pytest.param(lambda b: (b / "x.onnx").touch(), BundleError, "only the files listed.*x.onnx", id="extra file"),
        pytest.param(lambda b: (b / SPEC_FILE).unlink(), BundleError, "expected a spec.json, got none", id="no spec"),
        pytest.param(
            lambda b: (b / SPEC_FILE).write_bytes(b"\xff\xfe{"), BundleError, "expected UTF-8 text", id="spec bytes"
        ),
        pytest.param(
            lambda b: (b / SPEC_FILE).write_text('{"family": '),
            SpecError,
            "expected JSON, got none that can be read",
            id="half a spec",
        ),
        pytest.param(
            lambda b: change_spec(b, lambda s: s.update(colour="BGR")),
            SpecError,
            "unknown key colour",
            id="unknown key",
        ),
        pytest.param(lambda b: change_spec(b, lambda s: s.pop("heads")), SpecError, "the key heads", id="no key"),
        pytest.param(
            lambda b: change_spec(b, lambda s: s.update(spec_version=4)),
            SpecError,
            "expected spec_version 3, got 4; update mdpose-edge",
            id="newer version",
        ),
        pytest.param(
            lambda b: change_spec(b, lambda s: s.update(graph="other.xml")),
            BundleError,
            "a graph among the files listed, got other.xml",
            id="unlisted graph",
        ),
        pytest.param(lambda b: change_spec(b, lambda s: s.update(graph=None)), BundleError, "got None", id="no graph"),
        pytest.param(
            lambda b: change_spec(b, lambda s: s["files"].update({"../out": "0"})),
            BundleError,
            "files inside the bundle, got ../out",
            id="name that leads out",
        ),
    ],
)
def test_a_spoiled_bundle_is_one_sentence(
    tmp_path: Path, spoil: Callable[[Path], object], error: type[MdposeError], message: str
) -> None:
    bundle = write(tmp_path / "bundle")
    spoil(bundle)
    with pytest.raises(error, match=message) as caught:
        open_bundle(bundle)
    assert str(bundle) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_directory_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="a bundle directory, got no such directory"):
        open_bundle(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="a bundle directory, got a file"):
        open_bundle(tmp_path / "file")


def test_hidden_files_are_ignored(tmp_path: Path) -> None:
    bundle = write(tmp_path / "bundle")
    (bundle / ".DS_Store").touch()
    open_bundle(bundle)


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), write_bundle(tmp_path / "bundle", SPEC) as directory:
        (directory / "model.xml").write_bytes(b"half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_an_error_while_writing_leaves_the_earlier_bundle(tmp_path: Path) -> None:
    bundle = write(tmp_path / "bundle")
    with pytest.raises(ZeroDivisionError), write_bundle(bundle, SPEC):
        raise ZeroDivisionError
    assert open_bundle(bundle).graph.read_bytes() == FILES["model.xml"]
    assert os.listdir(tmp_path) == ["bundle"]


def test_an_earlier_bundle_is_replaced_whatever_its_state(tmp_path: Path) -> None:
    bundle = write(tmp_path / "bundle")
    flip_a_byte(bundle / "model.bin")
    change_spec(bundle, lambda spec: spec.update(spec_version=4))
    write(bundle, {"model.xml": b"new"})
    assert open_bundle(bundle).graph.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["bundle"]


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    open_bundle(write(tmp_path / "bundle"))


@pytest.mark.parametrize(
    ("occupy", "got"),
    [
        pytest.param(lambda out: out.write_text("thesis"), "a file", id="file"),
        pytest.param(lambda out: (out.mkdir(), (out / "thesis").touch()), "a directory that is no bundle", id="folder"),
        pytest.param(
            lambda out: (write(out), (out / "thesis").touch()), "a directory that is no bundle", id="bundle with more"
        ),
        pytest.param(
            lambda out: (out.mkdir(), (out / SPEC_FILE).write_text("{}")),
            "a directory that is no bundle",
            id="another spec.json",
        ),
    ],
)
def test_anything_else_is_refused_and_kept(tmp_path: Path, occupy: Callable[[Path], object], got: str) -> None:
    out = tmp_path / "out"
    occupy(out)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    with pytest.raises(BundleError, match=f"got {got}"):
        write(out)
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


def test_what_appears_in_the_meantime_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(BundleError, match="no bundle"), write_bundle(out, SPEC) as directory:
        (directory / "model.xml").touch()
        out.mkdir()
        (out / "thesis").touch()
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(out) == ["thesis"]


def test_a_path_under_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="expected a place to write"):
        write(tmp_path / "file" / "bundle")


def test_a_killed_writer_leaves_no_bundle_and_is_in_nobodys_way(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    code = (
        "import os, signal, sys; from tests.unit.test_bundle import SPEC; from mdpose_edge.bundle import write_bundle\n"
        "with write_bundle(sys.argv[1], SPEC) as directory:\n"
        "    (directory / 'model.xml').touch(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(out)], cwd=Path(__file__).parents[2], timeout=60)
    assert killed.returncode == -9
    assert not out.exists()
    (leftover,) = os.listdir(tmp_path)
    assert leftover.startswith(".")
    open_bundle(write(out))


def test_what_vanishes_while_a_folder_is_listed_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("kept/file", "gone/file", ".hidden/file", ".file"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("nowhere")
    assert visible_files(tmp_path) == {"kept/file", "gone/file"}
    scan = os.scandir

    def late(path: str | Path) -> object:
        if Path(path).name == "gone":
            raise FileNotFoundError(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", late)
    assert visible_files(tmp_path) == {"kept/file"}
