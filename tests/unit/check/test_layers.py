"""Errors by layer: found on every engine that can show them, and a leap where the fault is."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from mdpose_edge.bundle import open_bundle
from mdpose_edge.check.gate import check
from mdpose_edge.check.images import CheckImages, images_of
from mdpose_edge.check.layers import layer_errors, layer_name
from mdpose_edge.check.measures.outputs import OutputSums
from mdpose_edge.check.report import render
from mdpose_edge.preprocess import preprocess
from tests.artifacts import Artifacts
from tests.unit.check.faults import edited_bundle, scale_one_layer


@pytest.fixture(scope="module")
def frames(data: Path) -> CheckImages:
    return images_of(data, "val", None)


def convolutions(bundle: Path) -> list[str]:
    onnx = pytest.importorskip("onnx")
    return [node.output[0] for node in onnx.load(str(bundle / "model.onnx")).graph.node if node.op_type == "Conv"]


@pytest.mark.parametrize(
    ("target", "precision", "largest"),
    [("onnx", "fp32", 0.0), ("openvino", "fp32", 1e-4), ("onnx", "fp16", 0.01), ("openvino", "fp16", 0.01)],
)
def test_each_engine_shows_its_layers(
    target: str, precision: str, largest: float, artifacts: Artifacts, bundle: Path, frames: CheckImages
) -> None:
    found = layer_errors(artifacts.bundle(target, precision), bundle, frames)
    names = [error.name for error in found.errors]
    # In an fp16 ONNX graph the names of the outputs are those of the casts behind the last convolutions.
    hidden = (
        {name for name in convolutions(bundle) if "_p" in name} if (target, precision) == ("onnx", "fp16") else set()
    )
    assert names == [name for name in convolutions(bundle) if name not in hidden]
    assert max(error.relative for error in found.errors) <= largest
    assert min(error.spread for error in found.errors) > 0
    assert (found.images, found.note) == (3, "")


def test_one_onnx_graph_on_two_engines_agrees(bundle: Path, frames: CheckImages) -> None:
    found = layer_errors(bundle, bundle, frames, runtime="openvino")
    assert [error.name for error in found.errors] == convolutions(bundle)
    assert max(error.relative for error in found.errors) < 1e-4


def test_a_graph_for_tensorrt_is_explained_as_the_adapter_runs_it(
    artifacts: Artifacts, bundle: Path, frames: CheckImages
) -> None:
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    typed = artifacts.bundle("tensorrt", "int8")
    found = layer_errors(typed, bundle, frames, runtime="onnxruntime").errors
    sides = []
    for path in (typed, bundle):
        model = onnx.load(path / "model.onnx")
        model.graph.output.extend(onnx.ValueInfoProto(name=error.name) for error in found)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        sides.append(ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]))
    sums = {error.name: OutputSums() for error in found}
    spec = open_bundle(bundle).spec
    for index in range(len(frames)):
        feed = {spec.input.name: preprocess(frames[index].pixels, spec.input)[0][None]}
        for name, *values in zip(sums, *(side.run(list(sums), feed) for side in sides), strict=True):
            sums[name].add(*values)
    assert [error.rms for error in found] == pytest.approx([sums[name].error(name).rms for name in sums], rel=1e-3)
    assert len(found) > 10


def test_the_error_leaps_at_the_layer_that_is_wrong(bundle: Path, frames: CheckImages, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    weights = [
        tensor.name for tensor in onnx.load(str(bundle / "model.onnx")).graph.initializer if len(tensor.dims) == 4
    ]
    wrong = weights[len(weights) // 2]
    reader = next(node for node in onnx.load(str(bundle / "model.onnx")).graph.node if wrong in node.input)
    found = layer_errors(edited_bundle(bundle, tmp_path / "bundle", scale_one_layer(4.0)), bundle, frames)
    first = next(error for error in found.errors if error.relative > 0.01)
    assert first.name == reader.output[0]


def test_a_batch_is_compared_by_its_first_image(artifacts: Artifacts, bundle: Path, frames: CheckImages) -> None:
    found = layer_errors(artifacts.bundle("onnx", batch=2), bundle, frames)
    assert max(error.relative for error in found.errors) < 1e-4


def test_where_nothing_is_known_the_page_says_why(artifacts: Artifacts, bundle: Path, data: Path) -> None:
    found = check(bundle, artifacts.checkpoint(), data, threads=1, layers=True)
    assert found.layers is not None
    assert (found.layers.errors, found.layers.note) == (
        (),
        "batch1.safetensors is no bundle, and shows its outputs alone",
    )
    assert "Not known: batch1.safetensors is no bundle" in render(found)


def test_other_cells_or_a_missing_package_are_no_error(
    bundle: Path, frames: CheckImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = tuple(dataclasses.replace(head, stride=2 * head.stride) for head in open_bundle(bundle).spec.heads)
    other = edited_bundle(bundle, tmp_path / "bundle", heads=heads)
    assert "other levels" in layer_errors(other, bundle, frames).note
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "the package onnx" in layer_errors(bundle, bundle, frames).note


def test_page_and_json_list_them_where_they_are_asked_for(bundle: Path, data: Path) -> None:
    found = check(bundle, bundle, data, threads=1, layers=True)
    html = render(found)
    for name in convolutions(bundle):
        assert f"<td>{layer_name(name)}</td>" in html
    assert json.dumps(found.to_json_dict(), allow_nan=False)
    assert list(found.to_json_dict()["layers"]) == convolutions(bundle)
    without = check(bundle, bundle, data, threads=1)
    assert without.layers is None and "Error by layer" not in render(without)
    assert np.isfinite([error.rms for error in found.layers.errors]).all()
