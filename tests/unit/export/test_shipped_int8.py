"""A shipped model in INT8: it brings its pictures, and the gate decides."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("openvino")
pytest.importorskip("nncf")

from mdpose_edge.bundle import open_bundle
from mdpose_edge.cli import app
from mdpose_edge.errors import ConfigError, GateError
from mdpose_edge.export import shipped_int8


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped_int8, "CALIBRATION_IMAGES", 100)
    monkeypatch.setattr(shipped_int8, "GATE_IMAGES", 4)


def test_what_the_gate_says_decides_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        done = shipped_int8.export_shipped_int8("people-int8", "bundle", "openvino", report="page")
    except GateError:
        assert [path.name for path in tmp_path.iterdir()] == ["page"]
        return
    spec = open_bundle(done.path).spec
    assert (spec.precision, spec.target) == ("int8", "openvino")
    assert spec.provenance.accuracy is not None
    assert (spec.provenance.accuracy["data"], spec.provenance.accuracy["images"]) == ("drawn people, val", 4)
    assert (tmp_path / "page" / "index.html").is_file()


def test_no_option_that_it_brings_itself_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["export", "people-int8", "--target", "openvino", "--out", "bundle"]
    for option in (["--batch", "2"], ["--calib", "set"], ["--allow-few"], ["--precision", "int8"]):
        with pytest.raises(ConfigError, match=rf"{option[0]}: expected nothing more on people-int8"):
            CliRunner().invoke(app, [*words, *option], catch_exceptions=False)
    assert not list(tmp_path.iterdir())
