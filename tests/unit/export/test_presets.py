"""Presets: what is counted is what the network has, and times are only ever measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mdpose_edge.cli import app
from mdpose_edge.errors import ConfigError, ExportError
from mdpose_edge.export.presets import describe, measure_ms, preset_files
from mdpose_edge.families.mdpose.network import DeployedNetwork, MDPoseNetwork, NetworkConfig, make_spec
from mdpose_edge.spec import InputSpec
from tests.artifacts import single_threaded

EDGE = ("mobilenetv4_small_384", "mobilenetv4_medium_512", "resnet18_512")
TINY = """
input: {height: 64, width: 64}
network: {backbone: test_resnet, channels: 16, head_convs: 2}
"""


def tiny(folder: Path) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(TINY)
    return path


def test_counts_are_those_of_the_network(tmp_path: Path) -> None:
    found = describe(tiny(tmp_path))
    config = NetworkConfig(backbone="test_resnet", channels=16, head_convs=2)
    spec = make_spec(config, InputSpec(64, 64))
    network = DeployedNetwork(MDPoseNetwork(spec, auxiliary_center=True), spec)
    assert found.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert (found.name, found.family, found.input_wh) == ("tiny", "mdpose", (64, 64))
    assert found.summary == {"head": "16 x 2", "cells": "84"}
    # Two more 3x3 convolutions of 16 channels in the head: multiplications and additions, over all cells.
    (tmp_path / "deeper.yaml").write_text(TINY.replace("head_convs: 2", "head_convs: 4"))
    deeper = describe(tmp_path / "deeper.yaml")
    assert deeper.gflop - found.gflop == pytest.approx(2 * 84 * 9 * 16 * 16 * 2 / 1e9)
    assert deeper.parameters - found.parameters == 2 * (9 * 16 * 16 + 16)


def test_the_papers_model_has_the_papers_size() -> None:
    (path,) = [path for path in preset_files() if path.stem == "dla34_736"]
    found = describe(path)
    assert (found.summary["cells"], found.input_wh) == ("11,109", (736, 736))
    assert found.parameters / 1e6 == pytest.approx(21.5, abs=0.1)
    assert found.gflop == pytest.approx(175.5, abs=0.5)


def test_the_lite_preset_has_half_the_arithmetic_of_the_papers() -> None:
    paper, lite = (describe(path) for path in preset_files() if path.stem in ("dla34_736", "dla34_lite_736"))
    assert (lite.backbone, lite.input_wh) == (paper.backbone, paper.input_wh)
    assert lite.gflop / paper.gflop == pytest.approx(0.5, abs=0.01)


def test_edge_presets_are_there_and_light() -> None:
    found = {path.stem: describe(path) for path in preset_files() if path.stem in EDGE}
    assert set(found) == set(EDGE)
    assert all(preset.gflop < 30 and preset.parameters < 13e6 for preset in found.values())


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_each_precision_that_export_offers_is_measured(precision: str, tmp_path: Path) -> None:
    with single_threaded():
        assert measure_ms(tiny(tmp_path), "openvino", precision, threads=1, repeats=2).min() > 0


def test_int8_is_calibrated_on_drawn_scenes_and_measured(tmp_path: Path) -> None:
    with single_threaded():
        assert measure_ms(tiny(tmp_path), "openvino", "int8", threads=1, repeats=2).min() > 0


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="int4"):
        measure_ms(tiny(tmp_path), "openvino", "int4", threads=1, repeats=1)


def test_the_command_prints_times_only_where_they_were_measured(tmp_path: Path) -> None:
    report, run = tmp_path / "models.json", CliRunner()
    plain = run.invoke(app, ["models", str(tiny(tmp_path)), "--json", str(report)])
    assert plain.exit_code == 0 and "tiny" in plain.stdout and "median" not in plain.stdout
    written = json.loads(report.read_text())
    assert "measured" not in written and written["presets"][0]["ms"] == {}
    with single_threaded():
        options = ["--measure", "fp32", "--repeats", "1", "--json", str(report)]
        timed = run.invoke(app, ["models", str(tiny(tmp_path)), *options])
    assert timed.exit_code == 0 and "fp32," in timed.stdout and "median" in timed.stdout
    written = json.loads(report.read_text())
    assert written["presets"][0]["ms"]["fp32"]["fastest_tenth"] > 0
    assert {"machine", "date", "target", "threads", "repeats"} == set(written["measured"])
    refused = run.invoke(app, ["models", str(tiny(tmp_path)), "--measure", "int4"])
    assert isinstance(refused.exception, ExportError)


def test_a_configuration_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        describe(tmp_path / "none.yaml")
