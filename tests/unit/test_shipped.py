"""Shipped models by name: exported once, verified each time, and never in the way of a file of that name."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mdpose_edge import shipped
from mdpose_edge.bundle import open_bundle
from mdpose_edge.common.files import file_sha256
from mdpose_edge.common.sole import sole_writer
from mdpose_edge.errors import BundleError, CheckpointError, EngineError, GateError, OutputError, SpecError
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.runtimes.registry import open_engine, read_model_spec

pytest.importorskip("torch", reason="exports the model")
pytest.importorskip("onnxruntime")

FRAME = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the model exported for ONNX Runtime."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        shipped.model_path("people", "onnxruntime")
    return cache


@pytest.fixture
def cache(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the user's cache."""
    shutil.copytree(exported, tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.mark.parametrize("name", shipped.SHIPPED)
def test_every_shipped_file_is_the_one_named_small_and_described(name: str) -> None:
    path = shipped.checkpoint_path(name)
    assert path.stat().st_size <= 12e6
    assert read_model_spec(name) == read_model_spec(path)
    assert (Path(__file__).parents[2] / "docs" / f"model-card-{name}.md").is_file()


def test_name_opens_the_bundle_that_was_exported_once(cache: Path) -> None:
    (bundle,) = (cache / "mdpose-edge").iterdir()
    before = (bundle / "spec.json").stat().st_mtime_ns
    with PoseEstimator("people", runtime="onnxruntime", threshold=0.0) as named:
        assert named.engine == "onnxruntime"
        found = named(FRAME)
    assert (bundle / "spec.json").stat().st_mtime_ns == before
    assert open_bundle(bundle).spec.provenance.checkpoint_sha256 == file_sha256(shipped.checkpoint_path("people"))
    with PoseEstimator("people", runtime="torch", threshold=0.0) as reference:
        expected = reference(FRAME)
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.keypoints_xy, expected.keypoints_xy, atol=0.05)


def test_damaged_bundle_is_exported_again(cache: Path) -> None:
    (bundle,) = (cache / "mdpose-edge").iterdir()
    graph = open_bundle(bundle).graph
    whole = file_sha256(graph)
    graph.write_bytes(graph.read_bytes()[:-100])
    (bundle / "spec.json").write_text("{")
    (bundle / "notes.txt").write_text("mine")
    with pytest.raises(SpecError):
        open_bundle(bundle)
    assert shipped.model_path("people", "onnxruntime") == bundle
    assert file_sha256(open_bundle(bundle).graph) == whole


def test_file_of_that_name_comes_first(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "people").mkdir()
    assert shipped.model_path("people") == shipped.checkpoint_path("people") == Path("people")
    with pytest.raises(BundleError, match="people"):
        open_engine("people")


def test_altered_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / shipped.SHIPPED["people"].file).write_bytes(b"other")
    monkeypatch.setattr(shipped, "ASSETS", tmp_path)
    with pytest.raises(CheckpointError, match=r"expected sha256 .*; install mdpose-edge again"):
        shipped.model_path("people")


def test_engine_that_needs_an_export_of_ones_own_is_refused() -> None:
    with pytest.raises(EngineError, match="mdpose-edge export people"):
        shipped.model_path("people", "tensorrt")


def test_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(OutputError, match=r"cache/mdpose-edge: expected a cache .* set XDG_CACHE_HOME to a folder"):
        shipped.model_path("people", "onnxruntime")


def test_home_that_may_only_be_read_is_one_sentence_and_opens_what_is_there(cache: Path, powerless: list[str]) -> None:
    script = (
        "from mdpose_edge import shipped\n"
        "print(shipped.model_path('people', 'onnxruntime').is_dir())\n"
        "shipped.model_path('people', 'openvino')\n"
    )
    (cache / "mdpose-edge").chmod(0o555)
    done = subprocess.run([*powerless, sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "True\n"
    expected = "expected a cache for exported models that can be written, got one that may only be read"
    assert expected in done.stderr.splitlines()[-1]


def test_without_a_home_it_asks_for_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", classmethod(_no_home))
    with pytest.raises(OutputError, match="set XDG_CACHE_HOME"):
        shipped.model_path("people", "onnxruntime")


def _no_home(cls: type[Path]) -> Path:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize("what", ["spec", "foreign file", "a file in its place", "nothing"])
def test_whatever_is_no_whole_bundle_makes_room_for_one(tmp_path: Path, what: str) -> None:
    bundle = tmp_path / "bundle"
    if what == "a file in its place":
        bundle.write_text("")
    elif what != "nothing":
        bundle.mkdir()
        (bundle / ("spec.json" if what == "spec" else "notes.txt")).write_text("{")
    assert shipped._whole(bundle) is None
    shipped._remove(bundle)
    assert not bundle.exists()


def test_two_processes_export_once(cache: Path) -> None:
    (bundle,) = (cache / "mdpose-edge").iterdir()
    whole = bundle.rename(cache / "whole")
    script = "from mdpose_edge import shipped; shipped.model_path('people', 'onnxruntime')"
    with sole_writer(bundle.parent):  # as another process that is just exporting
        waiting = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(3)
        whole.rename(bundle)
    assert waiting.communicate(timeout=60)[1] == ""
    assert waiting.returncode == 0


def test_another_version_of_package_or_engine_has_a_bundle_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {shipped._key("people-int8", "onnxruntime"), shipped._key("people", "onnxruntime")}
    monkeypatch.setattr(shipped, "__version__", "99.0")
    names.add(shipped._key("people", "onnxruntime"))
    monkeypatch.setattr(shipped, "_engine_version", lambda engine: "0.0")
    names.add(shipped._key("people-int8", "onnxruntime"))
    assert len(names) == 4


@pytest.mark.long
@pytest.mark.timeout(900)
def test_int8_is_kept_with_the_verdict_of_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        bundle = open_bundle(shipped.model_path("people-int8", "openvino"))
    assert bundle.spec.precision == "int8"
    accuracy = bundle.spec.provenance.accuracy
    assert accuracy is not None and accuracy["held"]
    exporting, verdict = caplog.messages
    assert "exporting people-int8 for openvino, once, into" in exporting
    assert verdict == f"mdpose-edge: people-int8: the gate {accuracy['verdict']}, on 128 images (drawn people, val)"
    with PoseEstimator("people-int8", runtime="openvino") as estimator:
        assert estimator.spec.provenance.accuracy == accuracy


def test_refusal_of_the_gate_is_said_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = tmp_path / "python"  # in the place of an export of a minute
    said = "x: expected a graph that holds, got one that fell short in 2 of 24 figures: AP by -9; calibrate."
    child.write_text(f"#!/bin/sh\necho called >> {tmp_path}/calls\necho 'mdpose-edge: {said}' >&2\nexit 1\n")
    child.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(child))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for _ in range(2):
        with pytest.raises(GateError, match=r"got one that fell short in 2 of 24 figures: AP by -9; use people or"):
            shipped.model_path("people-int8", "onnxruntime")
    assert (tmp_path / "calls").read_text() == "called\n"


def test_int8_has_no_checkpoint_of_its_own() -> None:
    with pytest.raises(CheckpointError, match="expected a float checkpoint, got an INT8 form; give people"):
        shipped.checkpoint_path("people-int8")
    with pytest.raises(EngineError, match="expected one of openvino, onnxruntime, got torch"):
        shipped.model_path("people-int8", "torch")
    assert read_model_spec("people-int8") == read_model_spec("people")


def test_device_process_opens_it_without_torch(cache: Path) -> None:
    script = (
        "import sys\n"
        "from mdpose_edge.estimator import PoseEstimator\n"
        "PoseEstimator('people', runtime='onnxruntime').close()\n"
        "assert 'torch' not in sys.modules and 'timm' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
