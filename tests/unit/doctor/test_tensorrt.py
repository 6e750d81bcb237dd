"""The TensorRT engine is started as on a device, with stand-ins that have exactly the names of one version."""

from __future__ import annotations

import json
import sys

import pytest

from mdpose_edge.doctor import engines
from mdpose_edge.trt import graph

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "11.1.0"])
def test_the_tiny_graph_is_built_and_run(
    version: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.unit.trt.fake_pycuda import Machine, RecordingLibrary, fake_pycuda
    from tests.unit.trt.fake_tensorrt import Knobs, fake_tensorrt

    machine = Machine()
    package, driver = fake_pycuda(machine)
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(version, machine, Knobs()))
    monkeypatch.setattr(graph, "load_library", lambda: RecordingLibrary(machine))
    assert engines.main("tensorrt") == 0
    assert "largest error" in json.loads(capsys.readouterr().out.splitlines()[-1])["found"]
    assert machine.contexts == 0
