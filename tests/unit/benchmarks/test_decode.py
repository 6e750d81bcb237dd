"""The benchmark of the decoders: every family in one table, and who disagrees with the plain way stops it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import decode
from benchmarks.decoders import das, mdpose, mixture_dense

SMALL = [
    pytest.param(mdpose, mdpose.SCENARIOS[0], 5, {"NMS", "dense NMS"}, id="mdpose"),
    pytest.param(mixture_dense, mixture_dense.SCENARIOS[0], 30, {"loops"}, id="mixture_dense"),
    pytest.param(das, das.SCENARIOS[0], 20, {"loops"}, id="das"),
]


@pytest.mark.parametrize(("module", "scenario", "kept", "others"), SMALL)
def test_case_is_measured(
    module: object, scenario: object, kept: int, others: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SCENARIOS", (scenario,))
    family = module.__name__.rpartition(".")[2]  # type: ignore[attr-defined]
    decode.main([family, "--repeats", "20", "--json", str(tmp_path / "record.json")])
    (row,) = json.loads((tmp_path / "record.json").read_text())["families"][family]
    assert row["kept"] == kept
    assert row["others"].keys() == others
    assert 0 < row["decode"]["fastest_tenth"] <= row["decode"]["p50"] <= row["decode"]["p90"]


@pytest.mark.parametrize("module", [mdpose, mixture_dense])
def test_another_result_than_the_plain_way_stops_it(module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    if module is mdpose:
        monkeypatch.setattr(mdpose, "dense_nms", lambda boxes, *_: np.arange(1))
    else:
        monkeypatch.setattr(mixture_dense, "loop_decode", lambda *_: np.zeros((30, 17, 2)))
    with pytest.raises(RuntimeError, match="different"):
        next(module.cases())  # type: ignore[attr-defined]


def test_the_list_of_families_is_that_of_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    found = {path.stem for path in Path(mdpose.__file__).parent.glob("*.py")} - {"case"}
    assert found == set(decode.FAMILIES)
    with pytest.raises(SystemExit):
        decode.main(["hourglass"])
    assert f"expected families of {', '.join(decode.FAMILIES)}, got hourglass" in capsys.readouterr().err


def test_slow_calls_are_measured_three_times() -> None:
    calls = []
    found = decode.time_ms(lambda: calls.append(0), 1000, limit_s=0.0)
    assert len(calls) == 4
    assert found.keys() == {"p50", "p90", "p99", "mean", "fastest_tenth", "cpu_p50"}
