"""A family without a density passes through the gate by what any model has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mdpose_edge.bundle import open_bundle, write_bundle
from mdpose_edge.check.gate import Check, check, record
from mdpose_edge.check.report import render
from mdpose_edge.errors import SpecError
from mdpose_edge.export.probe import Probe
from mdpose_edge.families import registry
from mdpose_edge.families.registry import make_distance, make_measures
from mdpose_edge.spec import COCO_KEYPOINTS, NO_KEYPOINTS, InputSpec, KeypointSpec, ModelSpec, Provenance
from tests.unit.families.template.decode import HEADS, STRIDE

onnx = pytest.importorskip("onnx")
pytest.importorskip("faster_coco_eval")

INPUT = InputSpec(64, 96)
SKELETON = np.random.default_rng(2).uniform(-1, 1, (len(COCO_KEYPOINTS.names), 2))
GENERAL = {"settings", "coverage_50", "coverage_90", "score_distance", "score_shift", "pose_shift", "output_error"}


@pytest.fixture(autouse=True)
def template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.FAMILIES, "template", "tests.unit.families.template")


def write_template(
    out: Path,
    *,
    centre: float = 1.0,
    size: float = 1.0,
    noise: float = 0.0,
    keypoints: KeypointSpec = COCO_KEYPOINTS,
    image: InputSpec = INPUT,
) -> Path:
    """Write a bundle of tests/unit/families/template: convolutions of the image, by these factors and some noise."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(3)
    spec = ModelSpec(
        family="template", network={}, input=image, heads=HEADS,
        constants={"skeleton_xy": SKELETON[: len(keypoints.names)].tolist()}, keypoints=keypoints,
        provenance=Provenance("0"), target="onnx", graph="model.onnx", opset=17,
    )  # fmt: skip
    nodes = [
        helper.make_node("Cast", [image.name], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
    ]
    constants = []
    for head, factor, spread, bias in zip(HEADS, (centre, size), (6e-4, 1e-4), (0.5, 0.8), strict=True):
        weight = random.normal(0, spread, (head.channels, 3, STRIDE, STRIDE))
        weight += noise * np.random.default_rng(4).normal(0, spread, weight.shape)
        names = [f"{head.name}_weight", f"{head.name}_bias"]
        constants += [
            numpy_helper.from_array((factor * array).astype(np.float32), name)
            for array, name in zip((weight, np.full(head.channels, bias)), names, strict=True)
        ]
        nodes.append(helper.make_node("Conv", ["planes", *names], [head.name], f"/{head.name}", strides=[STRIDE] * 2))
    images = helper.make_tensor_value_info(image.name, TensorProto.UINT8, [1, image.height, image.width, 3])
    shapes = [(head.name, [1, *spec.head_shape(head)]) for head in spec.heads]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes]
    graph = helper.make_graph(nodes, "template", [images], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with write_bundle(out, spec) as directory:
        onnx.save(model, str(directory / "model.onnx"))
    return out


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return write_template(tmp_path / "reference")


def run(candidate: Path, reference: Path, data: Path | None) -> Check:
    return check(candidate, reference, data, threads=1)


def judged(found: Check) -> set[str]:
    return {finding.key for finding in found.verdict.findings if finding.held is not None}


def test_it_is_judged_by_what_any_model_has(reference: Path, data: Path, tmp_path: Path) -> None:
    found = run(write_template(tmp_path / "near", noise=0.002), reference, data)
    assert found.verdict.held, found.verdict.sentence()
    assert judged(found) >= GENERAL - {"coverage_50", "coverage_90"}
    keys = {finding.key for finding in found.verdict.findings}
    assert keys >= GENERAL | {"AP", "AP_deployed", "AP_small"} and not keys & {"nll", "component_kl", "weight_kl"}
    assert set(found.to_json_dict()["outputs"]) == {"centre", "size"}
    page = render(found)
    assert "size" in page and "mixture" not in page.lower() and "nats" not in page


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        pytest.param({"centre": 0.5}, {"output_error", "score_distance", "score_shift"}, id="scores pressed together"),
        pytest.param({"size": 1.3}, {"output_error", "pose_shift"}, id="poses too large"),
        pytest.param({"noise": 1.0}, {"output_error"}, id="noise in the weights"),
    ],
)
def test_a_planted_fault_falls(
    fault: dict[str, float], expected: set[str], reference: Path, data: Path, tmp_path: Path
) -> None:
    found = run(write_template(tmp_path / "faulty", **fault), reference, data)
    assert {finding.key for finding in found.verdict.fallen} >= expected


def test_a_recording_stands_for_it(reference: Path, data: Path, tmp_path: Path) -> None:
    record(reference, tmp_path / "heads.npz", data, threads=1)
    found = run(reference, tmp_path / "heads.npz", None)
    assert found.verdict.held and judged(found) == GENERAL - {"coverage_50", "coverage_90"}


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    return write_template(tmp_path / "boxes", keypoints=NO_KEYPOINTS)


BOX_GENERAL = {"settings", "score_distance", "score_shift", "box_iou", "output_error"}
BOX_FIGURES = {"AP", "AP50", "AP75", "AR100", "AP_deployed", "APS", "APM", "APL"}


@pytest.mark.parametrize(
    ("folder", "figures"),
    [(".", BOX_GENERAL | BOX_FIGURES), ("val2017", BOX_GENERAL)],
    ids=["annotated", "plain images"],
)
def test_boxes_alone_are_judged_by_boxes(
    boxes: Path, data: Path, tmp_path: Path, folder: str, figures: set[str]
) -> None:
    found = run(write_template(tmp_path / "near", noise=0.002, keypoints=NO_KEYPOINTS), boxes, data / folder)
    assert found.verdict.held, found.verdict.sentence()
    assert {finding.key for finding in found.verdict.findings} == figures
    assert judged(found) >= BOX_GENERAL
    assert any(len(pair.candidate) for pair in found.measurement.images)
    assert max(pair.disagreement for pair in found.measurement.images) < 0.1
    faulty = run(write_template(tmp_path / "faulty", size=1.3, keypoints=NO_KEYPOINTS), boxes, data / folder)
    assert {finding.key for finding in faulty.verdict.fallen} >= {"output_error", "box_iou"}


def test_a_recording_stands_for_boxes_alone(boxes: Path, data: Path, tmp_path: Path) -> None:
    record(boxes, tmp_path / "heads.npz", data, threads=1)
    assert judged(run(boxes, tmp_path / "heads.npz", None)) == BOX_GENERAL
    assert judged(run(boxes, tmp_path / "heads.npz", data)) >= BOX_GENERAL


def test_layers_are_ranked_by_the_head_tensors(reference: Path, tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).integers(0, 256, (3, INPUT.height, INPUT.width, 3), np.uint8)
    probe = Probe(reference, inputs)
    distances = [
        probe.distance(write_template(tmp_path / f"noise{noise}", noise=noise)) for noise in (0.0, 0.01, 0.1, 1.0)
    ]
    assert distances[0] == 0.0 and distances == sorted(distances)
    assert distances[2] == pytest.approx(10 * distances[1], rel=0.01)
    assert "%" in probe.unit


def test_a_family_without_measures_has_none_of_its_own(reference: Path) -> None:
    spec = open_bundle(reference).spec
    assert make_measures(spec, spec) == () and make_distance(spec) is None


def test_measures_that_fail_to_import_are_an_error(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "broken_family"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "measures.py").write_text("import no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.FAMILIES, "template", folder.name)
    spec = open_bundle(reference).spec
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        make_measures(spec, spec)


def test_an_unknown_family_has_no_measures(reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = open_bundle(reference).spec
    monkeypatch.delitem(registry.FAMILIES, "template")
    with pytest.raises(SpecError, match="family: expected one of mdpose"):
        make_measures(spec, spec)
