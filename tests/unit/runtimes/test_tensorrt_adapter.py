"""The TensorRT adapter on a device that is none, and without one; the conformance suite runs it on a real GPU."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdpose_edge.bundle import open_bundle
from mdpose_edge.errors import EngineError, MdposeError
from mdpose_edge.runtimes.registry import open_engine
from mdpose_edge.runtimes.tensorrt_adapter import TensorRtAdapter
from mdpose_edge.trt import graph
from mdpose_edge.trt.build import build_engine
from tests.unit.trt.conftest import FakeDevice, bundle, device, exported
from tests.unit.trt.fake_pycuda import RecordingLibrary

__all__ = ["bundle", "device", "exported"]
pytest.importorskip("torch", reason="bundles are exported from it")
Install = Callable[..., FakeDevice]
Make = Callable[..., Path]
SHAPE = (1, 64, 64, 3)
NO_LIBRARY = "libcuda-that-is-not-there.so"


def images(seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, SHAPE, np.uint8)


def opened(path: Path) -> TensorRtAdapter:
    build_engine(path)
    _, adapter = open_engine(path)
    assert isinstance(adapter, TensorRtAdapter)
    return adapter


@pytest.mark.parametrize("jetpack", [None, "6.0"])
def test_a_frame_allocates_nothing_and_closing_frees_all(device: Install, bundle: Make, jetpack: str | None) -> None:
    found = device("8.6.1", jetpack=jetpack)
    adapter = opened(bundle("jetson", jetpack="6.0") if jetpack else bundle("tensorrt", trt="8.5"))
    before = found.machine.allocations
    first = {name: head.copy() for name, head in adapter.infer(images(0)).items()}
    adapter.infer(images(1))
    again = adapter.infer(images(0))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert found.machine.allocations == before
    held = again["o_p3"]
    adapter.close()
    adapter.close()
    assert held.shape == first["o_p3"].shape  # a caller's array outlives the engine
    assert np.array_equal(held, first["o_p3"])
    del held, again
    assert found.machine.memory == {}
    assert found.machine.contexts == 0
    with pytest.raises(EngineError, match="an open engine"):
        adapter.infer(images(0))


def test_the_context_is_current_only_inside_a_call(device: Install, bundle: Make) -> None:
    found = device("8.6.1")
    with opened(bundle("tensorrt", trt="8.5")) as adapter:
        assert found.machine.stack == []
        adapter.infer(images(0))
        assert found.machine.stack == []
    assert found.machine.stack == []


def test_worker_threads_may_take_turns(device: Install, bundle: Make) -> None:
    device("10.12.0")
    with opened(bundle("tensorrt", trt="11")) as adapter:
        wanted = [{name: head.copy() for name, head in adapter.infer(images(seed)).items()} for seed in range(3)]
        right: list[int] = []
        turn = threading.Lock()

        def work(seed: int) -> None:
            for _ in range(4):
                with turn:
                    heads = adapter.infer(images(seed))
                    if all(np.array_equal(heads[name], wanted[seed][name]) for name in heads):
                        right.append(seed)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(right) == [0] * 4 + [1] * 4 + [2] * 4


def test_an_adapter_may_be_opened_used_and_closed_in_a_worker(device: Install, bundle: Make) -> None:
    found = device("8.6.1")
    path = bundle("tensorrt", trt="8.5")
    build_engine(path)
    seen: list[object] = []

    def work() -> None:
        with open_engine(path)[1] as adapter:
            seen.append(adapter.infer(images(0))["o_p3"].shape)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(1, 1, 8, 8)]
    assert found.machine.memory == {}
    assert found.machine.contexts == 0


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeDevice], RecordingLibrary]:
    def install(found: FakeDevice) -> RecordingLibrary:
        made = RecordingLibrary(found.machine)
        monkeypatch.setattr(graph, "load_library", lambda: made)
        return made

    return install


def test_a_frame_is_recorded_once_and_launched(
    device: Install, bundle: Make, library: Callable[[FakeDevice], RecordingLibrary]
) -> None:
    found = device("8.6.1")
    path = bundle("tensorrt", trt="8.5")
    with opened(path) as plain:
        expected = {name: head.copy() for name, head in plain.infer(images(3)).items()}
        assert not plain.uses_cuda_graph
    made = library(found)
    with open_engine(path)[1] as adapter:
        assert isinstance(adapter, TensorRtAdapter)
        assert adapter.uses_cuda_graph
        adapter.infer(images(1))
        heads = adapter.infer(images(3))
        assert made.launches == 2
        assert all(np.array_equal(heads[name], expected[name]) for name in expected)
        made.fail = "cuGraphLaunch"
        with pytest.raises(EngineError, match="a frame that runs, got a refusal of the driver"):
            adapter.infer(images(3))
    assert made.alive == 0


@pytest.mark.parametrize("fails", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"])
def test_where_a_frame_cannot_be_recorded_it_is_queued(
    device: Install, bundle: Make, library: Callable[[FakeDevice], RecordingLibrary], fails: str
) -> None:
    found = device("8.6.1")
    path = bundle("tensorrt", trt="8.5")
    made = library(found)
    made.fail = fails
    with opened(path) as adapter:
        assert not adapter.uses_cuda_graph
        assert adapter.infer(images(0)).keys() == set(adapter.spec.outputs)
    assert made.alive == 0


def test_a_missing_driver_library_means_no_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "LIBRARY", NO_LIBRARY)
    assert graph.load_library() is None


def test_a_library_without_the_calls_means_no_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "LIBRARY", "libc.so.6")
    assert graph.load_library() is None


@pytest.mark.parametrize(
    ("error", "library", "message"),
    [
        (
            "libcuda.so.1: cannot open shared object file: No such file or directory",
            NO_LIBRARY,
            "expected an NVIDIA driver, got none",
        ),
        # Of a pycuda that was not linked with the driver's library.
        ("_driver.so: undefined symbol: cuArrayCreate_v2", NO_LIBRARY, "expected an NVIDIA driver, got none"),
        ("undefined symbol: _ZN5boost", "libc.so.6", "pycuda: expected a build that loads, got undefined symbol"),
    ],
)
def test_pycuda_without_a_driver_is_a_sentence(
    device: Install,
    bundle: Make,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    error: str,
    library: str,
    message: str,
) -> None:
    """Import a real package that fails as pycuda does where libcuda is absent."""
    device("8.5.1")
    monkeypatch.setattr(graph, "LIBRARY", library)
    path = bundle("tensorrt", trt="8.5")
    package = tmp_path / "site" / "pycuda"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "driver.py").write_text(f"import warnings\nwarnings.warn('no driver')\nraise ImportError({error!r})")
    for name in ("pycuda", "pycuda.driver"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(EngineError, match=message):
        open_engine(path)


def test_a_tensorrt_whose_libraries_are_missing_is_a_sentence(
    device: Install, bundle: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    device("8.5.1")
    path = bundle("tensorrt", trt="8.5")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "tensorrt.py").write_text(
        "raise ImportError('libnvinfer.so.8: cannot open shared object file')"
    )
    monkeypatch.delitem(sys.modules, "tensorrt")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(EngineError, match=r"TensorRT's libraries, got libnvinfer\.so\.8: cannot open"):
        open_engine(path)


def test_a_tensorrt_before_8_5_is_refused(
    device: Install, bundle: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = device("8.5.1")
    path = bundle("tensorrt", trt="8.5")
    monkeypatch.setattr(found.trt, "__version__", "8.2.1.9")
    with pytest.raises(EngineError, match=r"expected TensorRT 8\.5 or newer, got 8\.2\.1\.9"):
        open_engine(path)


def test_on_this_machine_without_tensorrt_the_command_is_one_sentence(exported: Make) -> None:
    """The whole way through a fresh interpreter, as a user without the extra meets it."""
    path = exported("tensorrt", trt="8.5")
    code = (
        "import sys; sys.modules['tensorrt'] = None\n"
        "sys.argv = ['mdpose-edge', 'build', sys.argv[1]]; from mdpose_edge.cli import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith("mdpose-edge: expected the package tensorrt for the tensorrt engine, got none installed")


def test_an_engine_that_is_not_what_the_spec_says_is_refused(device: Install, exported: Make, tmp_path: Path) -> None:
    from dataclasses import replace

    from mdpose_edge.bundle import write_bundle

    device("8.6.1")
    source = exported("tensorrt", trt="8.5")
    spec = open_bundle(source).spec
    other = replace(spec, heads=spec.heads[:1])
    with write_bundle(tmp_path / "other", other) as directory:
        for name in spec.files:
            (directory / name).write_bytes((source / name).read_bytes())
    with pytest.raises(MdposeError, match="graph and spec disagree"):
        build_engine(tmp_path / "other")
    assert not list((tmp_path / "other" / ".engines").glob("[0-9a-f]*"))
