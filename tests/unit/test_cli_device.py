"""The commands that one runs on a device: view, bench, doctor. And how soon --help answers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mdpose_edge.cli import app
from mdpose_edge.doctor import run as doctor_run
from mdpose_edge.doctor.findings import Finding
from mdpose_edge.errors import MdposeError, OutputError
from tests.artifacts import Artifacts


def run(*words: object) -> tuple[int, str]:
    """Run a command; give its exit code and what it printed. Errors made on purpose are raised."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, MdposeError):
        raise result.exception
    return result.exit_code, result.output


def test_bench_prints_stages_ratios_and_whether_it_is_stable(artifacts: Artifacts, tmp_path: Path) -> None:
    record = tmp_path / "bench.json"
    words = ("--frames", 20, "--warmup", 1, "--threads", 1, "--size", "96x64", "--people", 1, "--json", record)
    code, out = run("bench", artifacts.bundle("onnx"), "--against-runtime", "openvino", *words)
    assert code == 0
    assert all(word in out for word in ("preprocess", "engine", "decode", "end to end", "95.9% interval", "4 drawn"))
    assert "start to first pose" in out
    document = json.loads(record.read_text())
    assert [one["engine"] for one in document["runs"]] == ["onnxruntime", "openvino"]
    assert out.count("NOT STABLE") == sum(not one["stability"]["stable"] for one in document["runs"])


def test_bench_reads_a_source_and_can_require_a_stable_run(
    artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mdpose_edge.bench import statistics

    cv2 = pytest.importorskip("cv2")
    import numpy as np

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((60, 80, 3), np.uint8))
    monkeypatch.setattr(statistics, "MAX_TAIL", 0.0)  # no run can be stable
    words = ("--frames", 20, "--warmup", 1, "--threads", 1, "--no-startup", "--require-stable", "--streams", "1,2")
    code, out = run("bench", artifacts.bundle("onnx"), "--source", tmp_path / "a.png", *words)
    assert code == 1
    assert "capture, ms: p50" in out
    assert out.count("NOT STABLE, do not quote") == 2
    assert "streams: 2" in out
    assert "start to first pose" not in out
    assert re.search(r"memory of this process at its peak, all engines: \d+ MB", out)


def test_a_place_where_no_figures_can_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "bench.json"):
        with pytest.raises(OutputError, match="expected a place for a file"):
            run("bench", tmp_path / "no-such-model", "--json", place)


def test_figures_that_cannot_be_written_are_one_sentence(artifacts: Artifacts) -> None:
    words = ("--frames", 20, "--warmup", 1, "--threads", 1, "--size", "96x64", "--people", 1, "--no-startup")
    with pytest.raises(OutputError, match="nothing of it was kept"):
        run("bench", artifacts.bundle("onnx"), *words, "--json", "/dev/full")
    assert not Path("/dev/full").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["--threads", "1,x"], "--threads: expected whole numbers from 1", id="threads"),
        pytest.param(["--streams", "0"], "--streams: expected whole numbers from 1", id="streams"),
        pytest.param(["--size", "big"], "--size: expected WxH", id="size"),
        pytest.param(["--source", "no-such.mp4"], "no-such.mp4", id="source"),
        pytest.param(["--runtime", "abacus"], "got abacus", id="runtime"),
    ],
)
def test_bench_refuses_in_one_sentence(artifacts: Artifacts, words: list[str], said: str) -> None:
    with pytest.raises(MdposeError) as caught:
        run("bench", artifacts.bundle("onnx"), *words)
    assert said in str(caught.value)


def test_bench_compares_one_model_at_a_time(artifacts: Artifacts) -> None:
    bundle = artifacts.bundle("onnx")
    with pytest.raises(MdposeError, match="expected one MODEL to compare, got 2"):
        run("bench", bundle, bundle, "--against", bundle)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["--host", "0.0.0.0"], "expected a --token for any address but loopback", id="no token"),
        pytest.param(["--token", "short"], "--token: expected at least 12", id="short token"),
        pytest.param(["--loop"], "no such file", id="no such source"),
    ],
)
def test_view_refuses_in_one_sentence(artifacts: Artifacts, words: list[str], said: str) -> None:
    with pytest.raises(MdposeError) as caught:
        run("view", artifacts.bundle("onnx"), "no-such-file.mp4", *words)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("state", "code", "last"), [("ok", 0, "all that is installed works"), ("broken", 1, "broken: x")]
)
def test_doctor_says_what_is_broken_and_how_to_mend_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str, code: int, last: str
) -> None:
    finding = Finding("engines", "x", state, "no answer", "install it again")  # type: ignore[arg-type]
    monkeypatch.setattr(doctor_run, "check_engine", lambda name: finding)
    monkeypatch.setattr(doctor_run, "ENGINES", {"x": None})
    record = tmp_path / "doctor.json"
    exit_code, out = run("doctor", "--json", record)
    assert exit_code == code
    assert out.splitlines()[-1] == last
    assert "-> install it again" in out
    document = json.loads(record.read_text())
    assert document["healthy"] is (state == "ok")
    assert set(document["machine"]) == {"identity", "state"}


def test_help_loads_nothing_that_draws() -> None:
    """Rich panels around the help would double the time until it answers."""
    code = (
        "import sys\nfrom mdpose_edge.cli import main\nsys.argv = ['mdpose-edge', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nprint(sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1]
    assert "typer" in loaded
    assert not [name for name in ("rich", "numpy", "cv2", "pygments") if f"'{name}'" in loaded]
