from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

from mdpose_edge import __version__
from mdpose_edge.bundle import REPORT_FILE, open_bundle
from mdpose_edge.calib.dataset import open_calibration_set
from mdpose_edge.calib.thresholds import METHODS
from mdpose_edge.checkpoint import read_checkpoint
from mdpose_edge.cli import main
from mdpose_edge.common.files import file_sha256
from mdpose_edge.errors import BundleError, CalibrationError, CheckpointError, ExportError, MdposeError, SpecError
from mdpose_edge.export.bundle import export_checkpoint
from mdpose_edge.export.options import ExportOptions
from mdpose_edge.export.parity import INT8_TOLERANCE
from mdpose_edge.spec import InputSpec
from tests.artifacts import SIZE, Artifacts, single_threaded, write_random_checkpoint
from tests.unit.calib.frames import make_small_set

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
    for kept in ("family", "network", "input", "heads", "constants", "keypoints", "classes", "decode"):
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
                artifacts.checkpoint(), out, ExportOptions("onnx"), progress=lambda *step: seen.append(step)
            )
    assert result.path == out
    assert result.report == json.loads((out / REPORT_FILE).read_text())
    open_bundle(out)
    assert os.listdir(tmp_path) == ["bundle"]
    first, second = seen[:5], seen[5:]
    assert first == second
    assert [done for done, _, _ in first] == [0, 1, 2, 3, 4]
    assert {total for _, total, _ in first} == {4}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"target": "abacus"},
            ExportError,
            "--target: expected one of onnx, .*, triton, got abacus",
        ),
        ({"target": "onnx", "precision": "fp8"}, ExportError, "--precision: expected one of fp32, fp16, int8, got fp8"),
        ({"target": "onnx", "batch": 0}, SpecError, "input.batch: expected a whole number of at least 1, got 0"),
    ],
)
def test_bad_options_are_one_sentence(
    artifacts: Artifacts, tmp_path: Path, options: dict[str, object], error: type[MdposeError], message: str
) -> None:
    with pytest.raises(error, match=message):
        export_checkpoint(artifacts.checkpoint(), tmp_path / "bundle", ExportOptions(**options))  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_a_checkpoint_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError, match="got no such file"):
        export_checkpoint(checkpoint, tmp_path / "bundle", ExportOptions("onnx"))
    checkpoint.write_bytes(b"\x80\x04N.")
    with pytest.raises(CheckpointError, match="got a pickle, which could run code and is never loaded"):
        export_checkpoint(checkpoint, tmp_path / "bundle", ExportOptions("onnx"))
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_a_network_that_fp16_cannot_hold_leaves_no_bundle(tmp_path: Path) -> None:
    checkpoint = write_random_checkpoint(tmp_path / "model.safetensors", weight_factor=1e4)
    with single_threaded(), pytest.raises(ExportError, match="fp16"):
        export_checkpoint(checkpoint, tmp_path / "bundle", ExportOptions("onnx", "fp16"))
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_a_folder_that_is_no_bundle_is_kept(artifacts: Artifacts, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    for checkpoint in (artifacts.checkpoint(), tmp_path / "absent.safetensors"):  # it is told before that is read
        with pytest.raises(BundleError, match="a new path or an earlier bundle"):
            export_checkpoint(checkpoint, tmp_path, ExportOptions("onnx"))
    assert os.listdir(tmp_path) == ["thesis.txt"]


INT8_TARGETS = {"onnx": "onnxruntime", "openvino": "nncf"}
"""By target, the package that quantizes."""


@pytest.mark.parametrize("target", INT8_TARGETS)
def test_an_int8_bundle_says_how_it_was_made(artifacts: Artifacts, target: str) -> None:
    pytest.importorskip(INT8_TARGETS[target])
    spec = open_bundle(artifacts.bundle(target, "int8")).spec
    assert (spec.target, spec.precision) == (target, "int8")
    assert spec.files.keys() == GRAPH_FILES[target] | {REPORT_FILE}
    assert spec.provenance.calibration_digest == open_calibration_set(artifacts.calibration()).digest
    assert spec.quantization is not None
    assert spec.quantization.keys() == {"scheme", "method", "tool", "calibration_images", "kept_float"}
    assert spec.quantization["tool"] == f"{INT8_TARGETS[target]} {version(INT8_TARGETS[target])}"
    assert spec.quantization["calibration_images"] == 4
    assert spec.quantization["method"] in METHODS
    assert spec.quantization["kept_float"] == [f"/network/head/o{level}/Conv" for level in ("", "_1", "_2")]
    parity = json.loads((artifacts.bundle(target, "int8") / REPORT_FILE).read_text())["parity"]
    assert all(
        0 < found["relative_error"] < INT8_TOLERANCE == parity["tolerance"] for found in parity["outputs"].values()
    )


def test_int8_weights_are_a_quarter(artifacts: Artifacts) -> None:
    pytest.importorskip("nncf")
    full, small = ((artifacts.bundle("openvino", kind) / "model.bin").stat().st_size for kind in ("fp32", "int8"))
    assert small < 0.35 * full


def test_int8_options_are_obeyed(artifacts: Artifacts, tmp_path: Path) -> None:
    name, seen = "/network/pyramid/output.0/Conv", []
    options = ExportOptions(
        "onnx", "int8", calib=artifacts.calibration(), calib_method="percentile", keep_float=[name], allow_few=True
    )
    with single_threaded():
        out = export_checkpoint(
            artifacts.checkpoint(), tmp_path / "bundle", options, progress=lambda *step: seen.append(step)
        ).path
    quantization = open_bundle(out).spec.quantization
    assert quantization is not None
    assert (quantization["method"], name in quantization["kept_float"]) == ("percentile", True)
    assert [step for step in seen if "images" in step[2]][-1] == (2, 4, "writing the graph: 4/4 calibration images")


def few(artifacts: Artifacts, folder: Path) -> Path:
    return artifacts.calibration()


def none(artifacts: Artifacts, folder: Path) -> Path:
    return folder / "nowhere"


def empty(artifacts: Artifacts, folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def of_another_size(artifacts: Artifacts, folder: Path) -> Path:
    return make_small_set(folder).path


def of_another_policy(artifacts: Artifacts, folder: Path) -> Path:
    return make_small_set(folder, spec=InputSpec(SIZE, SIZE, resize="letterbox")).path


@pytest.mark.parametrize(
    ("make", "allow_few", "message"),
    [
        (few, False, r"calibration: expected at least 100 images, got 4; make a larger one, or pass --allow-few"),
        (none, True, "nowhere: expected a calibration set with its calib.json, got no such folder"),
        (empty, True, "empty: expected a calibration set with its calib.json, got none"),
        (of_another_size, True, "inputs of height 64, as the model takes, got height 32"),
        (of_another_policy, True, "inputs of resize stretch, as the model takes, got resize letterbox"),
    ],
)
def test_a_calibration_set_that_will_not_do_is_one_sentence(
    artifacts: Artifacts, tmp_path: Path, make: Callable[[Artifacts, Path], Path], allow_few: bool, message: str
) -> None:
    options = ExportOptions("onnx", "int8", calib=make(artifacts, tmp_path), allow_few=allow_few)
    before_the_checkpoint = make in (few, none, empty)
    checkpoint = tmp_path / "absent.safetensors" if before_the_checkpoint else artifacts.checkpoint()
    with pytest.raises(CalibrationError, match=message):
        export_checkpoint(checkpoint, tmp_path / "bundle", options)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--precision", "int8"), "--precision int8: expected a calibration set, got none; make one with"),
        (("--calib", "CALIB"), "--calib: expected --precision int8 with a calibration set, got --precision fp32"),
        (("--precision", "int8", "--allow-few"), "--allow-few: expected a calibration set, got none; pass --calib"),
        (
            ("--precision", "int8", "--calib", "CALIB", "--allow-few", "--keep-float", "stem"),
            "--keep-float: expected one of the graph's 33 convolutions, got stem",
        ),
    ],
)
def test_int8_options_that_do_not_fit_exit_with_2(
    artifacts: Artifacts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    given = [str(artifacts.calibration()) if argument == "CALIB" else argument for argument in arguments]
    command = ["mdpose-edge", "export", str(artifacts.checkpoint()), "--target", "onnx", "--out", str(tmp_path / "b")]
    monkeypatch.setattr(sys, "argv", [*command, *given])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_a_bundle_is_no_float_source(artifacts: Artifacts, tmp_path: Path) -> None:
    source = artifacts.bundle("onnx", "int8")
    options = ExportOptions("openvino", "int8", calib=artifacts.calibration(), allow_few=True)
    with pytest.raises(ExportError, match=r"expected a float checkpoint .*, got a folder, as of a bundle"):
        export_checkpoint(source, tmp_path / "bundle", options)
    with pytest.raises(ExportError, match=r"got a \.onnx graph; give the checkpoint that it was made from"):
        export_checkpoint(source / "model.onnx", tmp_path / "bundle", options)
    with pytest.raises(ExportError, match="got another file; give what mdpose-edge train wrote"):
        export_checkpoint(Path(__file__), tmp_path / "bundle", ExportOptions("openvino"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("package", ["torch", "onnx", "openvino"])
def test_a_missing_package_names_the_extra(tmp_path: Path, package: str) -> None:
    code = (
        "import sys; sys.modules[sys.argv[1]] = None\n"
        "from mdpose_edge.errors import MissingPackageError; from mdpose_edge.export.bundle import export_checkpoint\n"
        "from mdpose_edge.export.options import ExportOptions\n"
        "try: export_checkpoint('model.safetensors', 'bundle', ExportOptions('onnx'))\n"
        "except MissingPackageError as error: print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, package], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert f"the package {package} for exporting a checkpoint" in result.stdout, result.stderr
    assert 'pip install "mdpose-edge[export]"' in result.stdout
