"""Shipped models by name: exported once, verified each time, and never in the way of a file of that name."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mdpose_edge import shipped
from mdpose_edge.bundle import open_bundle
from mdpose_edge.common.files import file_sha256
from mdpose_edge.errors import BundleError, CheckpointError, EngineError, ExportError
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


def test_altered_bundle_is_exported_again(cache: Path) -> None:
    (bundle,) = (cache / "mdpose-edge").iterdir()
    graph = open_bundle(bundle).graph
    whole = file_sha256(graph)
    graph.write_bytes(graph.read_bytes()[:-100])
    with pytest.raises(BundleError):
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
    with pytest.raises(ExportError, match=r"people: expected an export into .*cache"):
        shipped.model_path("people", "onnxruntime")


def test_device_process_opens_it_without_torch(cache: Path) -> None:
    script = (
        "import sys\n"
        "from mdpose_edge.estimator import PoseEstimator\n"
        "PoseEstimator('people', runtime='onnxruntime').close()\n"
        "assert 'torch' not in sys.modules and 'timm' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
