"""What the doctor says of machines that are well, and of those that are not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from mdpose_edge.doctor import engines, packages
from mdpose_edge.doctor.combinations import Surroundings, check_combinations, look_around
from mdpose_edge.doctor.engines import check_engine
from mdpose_edge.doctor.findings import Finding
from mdpose_edge.doctor.packages import check_packages, numbers
from mdpose_edge.doctor.run import Diagnosis, diagnose, judge_machine
from mdpose_edge.doctor.tiny import GRAPH_FILE, TOLERANCE, tiny_image, tiny_outputs
from mdpose_edge.runtimes.registry import ENGINES

ASSETS = Path(engines.__file__).parents[1] / "assets"
BUILD = "  Video I/O:\n    FFMPEG:  {}\n      avcodec: YES (62)\n    GStreamer:   {}\n"
WELL = Surroundings(
    version={"numpy": "2.1.0", "onnxruntime": "1.20.0", "opencv-python": "4.10.0", "pycuda": "2024.1"}.get,
    l4t="",
    python="3.10",
    tensorrt=None,
    gpus=(),
    opencv_build=BUILD.format("YES", "NO"),
    cameras=(),
)
ORIN = replace(WELL, l4t="36.4.3", tensorrt="10.3.0", opencv_build=BUILD.format("YES", "YES (1.20)"))


def versions(**changes: str | None) -> Surroundings:
    known = {"numpy": "2.1.0", "opencv-python": "4.10.0"} | {k.replace("_", "-"): v for k, v in changes.items()}
    return replace(WELL, version=known.get)


def said(around: Surroundings) -> dict[str, str]:
    return {f.name: f"{f.state}: {f.found} | {f.remedy}" for f in check_combinations(around) if f.state != "ok"}


def test_the_graph_is_the_one_that_the_script_makes(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    script = Path(__file__).parents[3] / "scripts" / "doctor_graph.py"
    subprocess.run([sys.executable, script, tmp_path / "made.onnx"], check=True, cwd=script.parents[1])
    assert (tmp_path / "made.onnx").read_bytes() == (ASSETS / GRAPH_FILE).read_bytes()


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torch"])
def test_an_engine_that_works_computes_what_numpy_does(name: str) -> None:
    pytest.importorskip(name)
    with engines._opened(name) as adapter:
        assert adapter.engine == name
        found = adapter.infer(tiny_image())
    for key, right in tiny_outputs().items():
        np.testing.assert_allclose(found[key], right, atol=1e-5)
        assert np.ptp(right) > 0.05  # every cell differs: an engine that mixes them up is seen


@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
def test_outputs_that_are_wrong_are_seen(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(name)
    right = tiny_outputs()
    wrong = {**right, "mu_p3": right["mu_p3"] + 3 * TOLERANCE * np.abs(right["mu_p3"]).max()}
    monkeypatch.setattr(engines, "tiny_outputs", lambda: wrong)
    assert engines.main(name) == 1
    answer = json.loads(capsys.readouterr().out)
    assert "an error of 0.029" in answer["found"]
    assert answer["remedy"]


def test_an_engine_is_started_in_a_process_of_its_own() -> None:
    pytest.importorskip("onnxruntime")
    found = check_engine("onnxruntime")
    assert found.state == "ok"
    assert re.search(r"loads a graph in \d+\.\d s and runs it, largest error \d\.\de-\d\d", found.found)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        pytest.param("import os; os.abort()", "ended by signal 6", id="crash"),
        pytest.param("raise ImportError('libnvinfer.so.10: cannot open')", "libnvinfer.so.10", id="missing library"),
        pytest.param("raise SystemExit(3)", "ended silently", id="silence"),
        pytest.param("import time; time.sleep(60)", "no answer within", id="hang"),
    ],
)
def test_an_engine_that_breaks_is_reported_and_does_not_break_the_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, found: str
) -> None:
    (tmp_path / "onnxruntime.py").write_text(f"{code}\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    if "sleep" in code:
        monkeypatch.setattr(engines, "TIMEOUT_S", 2)
    finding = check_engine("onnxruntime")
    assert (finding.state, finding.topic) == ("broken", "engines")
    assert found in finding.found
    assert finding.remedy


def test_an_engine_that_is_absent_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "available", lambda name: False)
    found = [check_engine(name) for name in ENGINES]
    assert {finding.state for finding in found} == {"absent"}
    assert 'pip install "mdpose-edge[train]"' in {finding.remedy for finding in found}


def test_packages_are_held_against_their_lowest_versions() -> None:
    requires = [
        "numpy>=1.23",
        "opencv-python>=4.7",
        'onnxruntime>=1.18; extra == "onnxruntime"',
        'torch>=2.6; extra == "train"',
        "mdpose-edge[train]; extra == 'all'",
        'ruff>=0.6; extra == "dev"',
        "tensorrt>=8.5; platform_machine == 'x86_64' and extra == 'tensorrt'",
        "typer>=0.12",
    ]
    there = {"numpy": "1.22.4", "opencv-python": "4.10.0.84", "torch": "2.6.0+cu124"}
    found = {f.name: f for f in check_packages(requires, there.get)}
    assert {name: f.state for name, f in found.items()} == {
        "numpy": "broken",
        "opencv-python": "ok",
        "onnxruntime": "absent",
        "torch": "ok",
        "tensorrt": "absent",
        "typer": "broken",
    }
    assert found["numpy"].remedy == 'pip install "numpy>=1.23"'
    assert found["onnxruntime"].remedy == 'pip install "mdpose-edge[onnxruntime]"'


@pytest.mark.parametrize(
    ("there", "version"),
    [({"opencv-python-headless": "4.10.0"}, "4.10.0"), ({}, cv2.__version__)],
    ids=["another distribution", "JetPack's, which pip does not know"],
)
def test_what_stands_in_for_opencvs_wheel_counts(
    monkeypatch: pytest.MonkeyPatch, there: dict[str, str], version: str
) -> None:
    monkeypatch.setattr(packages, "installed_version", there.get)
    assert [f.found for f in check_packages(["opencv-python>=4.7"])] == [version]


@pytest.mark.parametrize(("text", "read"), [("2.6.0+cu124", (2, 6, 0)), ("5.0.0.93", (5, 0, 0, 93)), ("dev", ())])
def test_version_numbers(text: str, read: tuple[int, ...]) -> None:
    assert numbers(text) == read


@pytest.mark.parametrize("around", [WELL, ORIN], ids=["pc", "orin"])
def test_a_machine_that_is_well_is_left_alone(around: Surroundings) -> None:
    assert said(around) == {}


@pytest.mark.parametrize(
    ("around", "name", "words"),
    [
        pytest.param(
            versions(**{"opencv-python-headless": "4.10.0"}), "cv2", ["broken", "pip uninstall opencv-python "],
            id="two OpenCVs",
        ),
        pytest.param(
            versions(**{"onnxruntime": "1.20", "onnxruntime-gpu": "1.20"}), "onnxruntime", ["broken", "uninstall"],
            id="two onnxruntimes",
        ),
        pytest.param(versions(onnxruntime="1.18.1"), "numpy", ["broken", "compiled for numpy 1"], id="numpy 2"),
        pytest.param(replace(ORIN, l4t="40.1"), "JetPack", ["note", "40.1"], id="unknown JetPack"),
        pytest.param(
            replace(ORIN, python="3.12", tensorrt=None), "Python", ["broken", "python3.10 -m venv --system-site"],
            id="Python without JetPack's bindings",
        ),
        pytest.param(replace(ORIN, tensorrt=None), "TensorRT", ["broken", "--system-site-packages"], id="closed venv"),
        pytest.param(
            replace(ORIN, tensorrt="10.16.1"), "TensorRT", ["broken", "10.3.0 or 10.7.0", "pip uninstall tensorrt"],
            id="another TensorRT than JetPack's",
        ),
        pytest.param(
            replace(WELL, tensorrt="10.7.0", gpus=[("NVIDIA TITAN V", (7, 0))]), "GPU",
            ["broken", "7.0", "needs compute capability 7.5"], id="GPU too old",
        ),
        pytest.param(
            replace(versions(), tensorrt="10.3.0"), "pycuda", ["note", "mdpose-edge[tensorrt]"], id="no pycuda"
        ),
        pytest.param(
            replace(ORIN, opencv_build=BUILD.format("YES", "NO")), "OpenCV video", ["note", "docs/jetson.md"],
            id="OpenCV's wheel on a Jetson",
        ),
        pytest.param(
            replace(WELL, opencv_build=BUILD.format("NO", "NO")), "OpenCV video", ["note", "no video files"],
            id="OpenCV without video",
        ),
        pytest.param(
            replace(WELL, cameras=[Path("no-such-camera")]), "camera", ["note", "usermod -aG video"], id="camera rights"
        ),
    ],
)  # fmt: skip
def test_a_combination_that_is_known_to_fail_is_named_with_its_remedy(
    around: Surroundings, name: str, words: list[str]
) -> None:
    found = said(around)
    assert list(found) == [name]
    assert all(word in found[name] for word in words), found


def test_this_machine_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "video3").touch()
    around = look_around(root=tmp_path)
    assert around.cameras == [tmp_path / "dev" / "video3"]
    assert around.l4t == ""
    assert "FFMPEG" in around.opencv_build


def test_what_costs_speed_is_a_note() -> None:
    state = {"memory_available_mb": 512, "governor": "powersave", "jetson_clocks": False, "nvpmodel": "15W"}
    found = judge_machine(state)
    assert [(f.name, f.state) for f in found] == [("memory", "note"), ("governor", "note"), ("clocks", "note")]
    calm = judge_machine({"memory_available_mb": 8000, "governor": "performance", "jetson_clocks": True})
    assert {f.state for f in calm} == {"ok"}


def test_only_what_is_broken_makes_ill(monkeypatch: pytest.MonkeyPatch) -> None:
    from mdpose_edge.doctor import run

    monkeypatch.setattr(run, "check_engine", lambda name: Finding("engines", name, "absent", "not installed"))
    found = diagnose()
    assert found.healthy
    record = json.loads(json.dumps(found.to_json_dict()))
    assert {finding["topic"] for finding in record["findings"]} == {"packages", "engines", "combinations", "machine"}
    ill = Diagnosis([*found.findings, Finding("engines", "x", "broken", "no", "mend it")], found.machine)
    assert not ill.healthy


def test_a_broken_thing_without_a_remedy_is_refused() -> None:
    with pytest.raises(AssertionError):
        Finding("engines", "x", "broken", "no")
