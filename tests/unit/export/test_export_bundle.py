from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

from mdpose_edge import __version__
from mdpose_edge.bundle import REPORT_FILE, open_bundle
from mdpose_edge.errors import BundleError, CheckpointError, ExportError, MdposeError, SpecError
from mdpose_edge.export.bundle import export_checkpoint
from mdpose_edge.files import file_sha256
from mdpose_edge.train.checkpoint import read_checkpoint
from tests.artifacts import Artifacts, single_threaded, write_random_checkpoint

GRAPH_FILES = {"onnx": {"model.onnx"}, "openvino": {"model.xml", "model.bin"}}


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_bundle_says_what_it_is(artifacts: Artifacts, target: str, precision: str) -> None:
    spec = open_bundle(artifacts.bundle(target, precision)).spec
    trained = read_checkpoint(artifacts.checkpoint()).spec
    assert (spec.target, spec.precision, spec.quantization) == (target, precision, None)
    assert spec.opset == (17 if target == "onnx" else None)
    assert spec.files.keys() == GRAPH_FILES[target] | {REPORT_FILE}
    assert spec.provenance.toolkit_version == __version__
    assert spec.provenance.checkpoint_sha256 == file_sha256(artifacts.checkpoint())
    assert spec.provenance.accuracy is None
    for kept in ("family", "network", "input", "levels", "keypoints", "outputs", "decode", "coordinate_extent"):
        assert getattr(spec, kept) == getattr(trained, kept)


def test_the_batch_is_in_the_spec(artifacts: Artifacts) -> None:
    assert open_bundle(artifacts.bundle("onnx", batch=3)).spec.input.batch == 3


def test_the_report_holds_the_comparison(artifacts: Artifacts) -> None:
    report = json.loads((artifacts.bundle("openvino", "fp16") / REPORT_FILE).read_text())
    assert report["parity"]["engine"] == "openvino"
    assert report["largest_activation"] > 1


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_fp16_halves_the_weights(artifacts: Artifacts, target: str) -> None:
    weights = {"onnx": "model.onnx", "openvino": "model.bin"}[target]
    full, half = ((artifacts.bundle(target, precision) / weights).stat().st_size for precision in ("fp32", "fp16"))
    assert half < 0.6 * full


def test_steps_are_reported_in_order_and_an_earlier_bundle_is_replaced(artifacts: Artifacts, tmp_path: Path) -> None:
    out, seen = tmp_path / "bundle", []
    with single_threaded():
        for _ in range(2):
            result = export_checkpoint(
                artifacts.checkpoint(), out, target="onnx", progress=lambda *step: seen.append(step)
            )
    assert result == out
    open_bundle(out)
    assert os.listdir(tmp_path) == ["bundle"]
    first, second = seen[:5], seen[5:]
    assert first == second
    assert [done for done, _, _ in first] == [0, 1, 2, 3, 4]
    assert {total for _, total, _ in first} == {4}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": "tensorrt"}, ExportError, "--target: expected one of onnx, openvino, got tensorrt"),
        ({"target": "onnx", "precision": "fp8"}, ExportError, "--precision: expected one of fp32, fp16, got fp8"),
        ({"target": "onnx", "batch": 0}, SpecError, "input.batch: expected a whole number of at least 1, got 0"),
    ],
)
def test_bad_options_are_one_sentence(
    artifacts: Artifacts, tmp_path: Path, options: dict[str, object], error: type[MdposeError], message: str
) -> None:
    with pytest.raises(error, match=message):
        export_checkpoint(artifacts.checkpoint(), tmp_path / "bundle", **options)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_a_checkpoint_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError, match="got no such file"):
        export_checkpoint(checkpoint, tmp_path / "bundle", target="onnx")
    checkpoint.write_bytes(b"\x80\x04N.")
    with pytest.raises(CheckpointError, match="got a pickle, which could run code and is never loaded"):
        export_checkpoint(checkpoint, tmp_path / "bundle", target="onnx")
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_a_network_that_fp16_cannot_hold_leaves_no_bundle(tmp_path: Path) -> None:
    checkpoint = write_random_checkpoint(tmp_path / "model.safetensors", weight_factor=1e4)
    with single_threaded(), pytest.raises(ExportError, match="fp16"):
        export_checkpoint(checkpoint, tmp_path / "bundle", target="onnx", precision="fp16")
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_a_folder_that_is_no_bundle_is_kept(artifacts: Artifacts, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(BundleError, match="a new path or an earlier bundle"):
        export_checkpoint(artifacts.checkpoint(), tmp_path, target="onnx")
    assert os.listdir(tmp_path) == ["thesis.txt"]


@pytest.mark.parametrize("package", ["torch", "onnx", "openvino"])
def test_a_missing_package_names_the_extra(tmp_path: Path, package: str) -> None:
    code = (
        "import sys; sys.modules[sys.argv[1]] = None\n"
        "from mdpose_edge.errors import MissingPackageError; from mdpose_edge.export.bundle import export_checkpoint\n"
        "try: export_checkpoint('model.safetensors', 'bundle', target='onnx')\n"
        "except MissingPackageError as error: print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, package], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert f"the package {package} for exporting a checkpoint" in result.stdout, result.stderr
    assert 'pip install "mdpose-edge[export]"' in result.stdout
