"""The gate within an export, on tiny networks: its verdict decides whether there is a bundle."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest

pytest.importorskip("torch")
pytest.importorskip("openvino")
pytest.importorskip("faster_coco_eval")

from mdpose_edge.bundle import REPORT_FILE, open_bundle
from mdpose_edge.calib.make import make_calibration_set
from mdpose_edge.check.limits import Limits
from mdpose_edge.checkpoint import load_network, save_checkpoint
from mdpose_edge.datasets.keypoints import CROWDPOSE_KEYPOINTS
from mdpose_edge.errors import ConfigError, DataError, GateError, InputError, MdposeError
from mdpose_edge.export.bundle import export_checkpoint
from mdpose_edge.export.options import ExportOptions
from mdpose_edge.families import mixture_measures
from mdpose_edge.families.mixture_measures import MixtureLimits
from tests.artifacts import Artifacts, single_threaded, write_random_checkpoint
from tests.unit.check.faults import write_data
from tests.unit.datasets.public_formats import CROWD_INDICES, write_crowdpose

FAULTY = "/network/head/tower/tower.0/Conv"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def hard_to_quantize(artifacts: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One channel that enters the head is 100 times larger than the others, so that its scale drowns them.

    The head's first weights make up for it, so that the float network is a harmless one. Small logits keep the scores
    of a random network from hanging on single roundings.
    """
    network, spec = load_network(artifacts.checkpoint())
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for name in ("weight", "bias"):
        for level in range(3):
            state[f"pyramid.output.{level}.{name}"][0] *= 100
        state[f"head.o.{name}"] *= 0.1
    state["head.tower.0.weight"][:, 0] /= 100
    path = tmp_path_factory.mktemp("hard") / "hard.safetensors"
    save_checkpoint(path, spec, state)
    return path


@pytest.fixture(scope="module")
def calibration(artifacts: Artifacts, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The validation pictures, brighter and darker: 102 that differ."""
    folder = tmp_path_factory.mktemp("calib")
    (folder / "images").mkdir()
    for path in sorted((data / "val2017").iterdir()):
        small = cv2.resize(cv2.imread(str(path)), (64, 64))
        for step in range(34):
            picture = cv2.convertScaleAbs(small, alpha=0.5 + step / 60)
            assert cv2.imwrite(str(folder / "images" / f"{path.stem}-{step}.png"), picture)
    make_calibration_set(folder / "images", folder / "set", open_bundle(artifacts.bundle("onnx")).spec.input, num=102)
    return {"precision": "int8", "calib": folder / "set", "calib_method": "min-max"}


def on(data: Path, split: str = "val", **options: object) -> dict[str, object]:
    return {"val_data": data, "val_split": split, **options}


def export(
    checkpoint: Path, out: Path, validation: dict[str, object], progress: Any = None, **options: object
) -> dict[str, object]:
    chosen = ExportOptions(**{"target": "onnx", **validation, **options})  # type: ignore[arg-type]
    with single_threaded():
        export_checkpoint(checkpoint, out, chosen, progress=progress)
    return json.loads((out / REPORT_FILE).read_text())


@pytest.mark.parametrize(("target", "precision"), [("onnx", "fp32"), ("openvino", "fp16")])
def test_the_verdict_is_in_the_spec_and_the_report(
    target: str, precision: str, artifacts: Artifacts, data: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page"
    report = export(artifacts.checkpoint(), tmp_path / "out", on(data, report=page), target=target, precision=precision)
    accuracy = open_bundle(tmp_path / "out").spec.provenance.accuracy
    assert accuracy is not None
    assert accuracy["held"] is True
    assert (accuracy["images"], accuracy["max_drop"]) == (3, Limits().accuracy.max_drop)
    assert accuracy["data"] == f"{data.name}, val"
    assert accuracy["figures"]["AP"] == {"candidate": 0.0, "reference": 0.0}
    gate = report["gate"]
    assert gate["held"] and gate["sentence"] == accuracy["verdict"]
    # A graph is never compared with itself.
    assert gate["reference"]["engine"] == ("torch" if target == "onnx" else "onnxruntime")
    assert str(tmp_path) not in json.dumps(gate)
    assert "✓ Held" in (page / "index.html").read_text()
    assert sorted(os.listdir(tmp_path)) == ["out", "page"]


def test_an_export_that_falls_short_leaves_no_bundle_but_a_page(
    hard_to_quantize: Path, calibration: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    validation = on(data, report=tmp_path / "page")
    with pytest.raises(GateError, match=r"components apart by.*; figures of only 3 images scatter: judge on 100"):
        export(hard_to_quantize, tmp_path / "out", validation, **calibration)
    assert os.listdir(tmp_path) == ["page"]
    html = (tmp_path / "page" / "index.html").read_text()
    assert "✗ Fell short" in html and FAULTY in html


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_accuracy_control_returns_the_layer_at_fault(
    target: str, hard_to_quantize: Path, calibration: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    validation = on(data, max_drop=0.5, report=tmp_path / "page")
    notes: list[str] = []
    options = {**calibration, "progress": lambda done, total, note: notes.append(note)}
    report = export(hard_to_quantize, tmp_path / "out", validation, target=target, **options)
    measuring = [i for i, note in enumerate(notes) if "calibration images" in note]
    assert max(measuring) < min(i for i, note in enumerate(notes) if "ranking layers" in note)  # and never again
    assert any(re.search(r"ranking layers: 1/\d+, then the costliest return to float", note) for note in notes)
    assert any(re.search(r"returning layers to float: the 1 costliest, of \d+ at most", note) for note in notes)
    spec = open_bundle(tmp_path / "out").spec
    control = report["accuracy_control"]
    returned = [layer for layer in control["layers"] if layer["returned_to_float"]]
    assert FAULTY in returned[0]["nodes"]
    assert {node for layer in returned for node in layer["nodes"]} <= set(spec.quantization["kept_float"])
    assert [trial["held"] for trial in control["trials"]].count(True) >= 1
    assert control["trials"][0]["held"] is False
    assert 0 < control["share_of_arithmetic_in_float"] <= 0.5
    assert control["speed"].keys() == {"float", "int8", "int8 with layers in float"}
    assert spec.provenance.accuracy["held"] and report["gate"]["held"]
    page = (tmp_path / "page" / "index.html").read_text()
    assert f"{len(returned)} of {len(control['layers'])} layers went back to float" in page
    assert all(f"<td>{layer['nodes'][0]}</td>" in page for layer in returned)
    assert sorted(os.listdir(tmp_path)) == ["out", "page"]


def test_a_budget_out_of_reach_is_an_error_and_leaves_no_bundle(
    hard_to_quantize: Path, calibration: dict[str, Any], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixture_measures, "LIMITS", MixtureLimits(component_kl=0.0))
    with pytest.raises(GateError, match=r"even with the .* costliest layers in float"):
        export(
            hard_to_quantize,
            tmp_path / "out",
            on(data, max_drop=0.5, report=tmp_path / "page"),
            **calibration,
        )
    assert os.listdir(tmp_path) == ["page"]
    assert "No number of layers held" in (tmp_path / "page" / "index.html").read_text()


def test_what_cannot_be_measured_on_is_refused_before_the_work(
    artifacts: Artifacts, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="--max-drop: expected annotated --val-data"):
        export(artifacts.checkpoint(), out, on(data / "val2017", max_drop=0.5))
    with pytest.raises(InputError, match="with images"):
        export(artifacts.checkpoint(), out, on(tmp_path))
    with pytest.raises(DataError):
        export(artifacts.checkpoint(), out, on(data, split="test"))
    assert os.listdir(tmp_path) == []


def test_plain_images_judge_what_needs_no_annotations(artifacts: Artifacts, data: Path, tmp_path: Path) -> None:
    report = export(artifacts.checkpoint(), tmp_path / "out", on(data / "val2017"), precision="fp16")
    assert report["gate"]["held"] and not report["gate"]["labelled"]
    assert open_bundle(tmp_path / "out").spec.provenance.accuracy["figures"] == {}


def test_crowdpose_is_measured_by_its_own_keypoints(tmp_path: Path) -> None:
    checkpoint = write_random_checkpoint(tmp_path / "crowd.safetensors", keypoints=CROWDPOSE_KEYPOINTS)
    write_crowdpose(tmp_path / "crowdpose")
    report = export(checkpoint, tmp_path / "out", on(tmp_path / "crowdpose", "test"), precision="fp16")
    assert report["gate"]["labelled"] and report["gate"]["images"] == len(CROWD_INDICES)
    assert "AP" in open_bundle(tmp_path / "out").spec.provenance.accuracy["figures"]


def test_data_of_other_keypoints_are_refused(artifacts: Artifacts, tmp_path: Path) -> None:
    write_crowdpose(tmp_path / "crowdpose")
    with pytest.raises(DataError, match=r"expected the keypoints nose, .* got left_shoulder"):
        export(artifacts.checkpoint(), tmp_path / "out", on(tmp_path / "crowdpose", "test"))


WEAK_FP16 = {"target": "tensorrt", "precision": "fp16", "trt": "8.5"}
ON_NVDLA = {"target": "jetson", "precision": "fp16", "device": "agx-orin", "nvdla": 0}


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        (WEAK_FP16, {}, "fp16: expected a graph that states its precision, .* got TensorRT 8.5, which makes a float32 "
                        "graph fp16 on the device; leave --val-data .* run mdpose-edge check on the device"),
        (ON_NVDLA, {}, "got NVDLA, which makes a float32 graph fp16 on the device; leave --val-data"),
        ({}, {"max_drop": float("nan")}, "--max-drop: expected AP points, 0 or more, got nan"),
        ({}, {"report": Path(__file__)}, "--report: expected a folder for the page, or a new path, got the file"),
        ({}, {"val_format": "voc"}, "--format: expected one of coco, crowdpose, ochuman, .*, got voc"),
        ({"precision": "int8", "target": "openvino", "calib": "nowhere", "calib_method": "entropy"}, {},
         "--calib-method: expected one of min-max, percentile, mse, got entropy"),
    ],
)  # fmt: skip
def test_what_the_arguments_rule_out_is_refused_before_anything_is_traced(
    options: dict[str, Any],
    changes: dict[str, Any],
    message: str,
    artifacts: Artifacts,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mdpose_edge.export.bundle._trace", lambda *given: pytest.fail("traced"))
    with pytest.raises(MdposeError, match=message):
        export(artifacts.checkpoint(), tmp_path / "out", on(data, **changes), **options)
    assert os.listdir(tmp_path) == []


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mdpose_edge", "export", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_command_exits_with_1_where_the_gate_falls(
    hard_to_quantize: Path, calibration: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    done = run(
        hard_to_quantize, "--out", tmp_path / "out", "--target", "onnx", "--precision", "int8", "--calib",
        calibration["calib"], "--calib-method", "min-max", "--val-data", data,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "mdpose-edge: out: expected a graph that holds, got one that fell short"
    )
    assert os.listdir(tmp_path) == []


def test_a_budget_without_validation_data_is_bad_input(artifacts: Artifacts, tmp_path: Path) -> None:
    done = run(artifacts.checkpoint(), "--out", tmp_path / "out", "--target", "onnx", "--max-drop", "0")
    assert done.returncode == 2
    assert "--max-drop: expected validation data, got none; pass --val-data DIR, or leave it out" in done.stderr


def test_the_gate_measures_the_graph_for_tensorrt(artifacts: Artifacts, data: Path, tmp_path: Path) -> None:
    found = export(artifacts.checkpoint(), tmp_path / "out", on(data), target="tensorrt", precision="fp16",
                   trt="11")  # fmt: skip
    assert found["gate"]["candidate"]["engine"] == "onnxruntime"
    assert open_bundle(tmp_path / "out").spec.provenance.accuracy["held"]
