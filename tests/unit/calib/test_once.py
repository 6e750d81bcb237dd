"""Things made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdpose_edge.calib.once import Kept, every_time
from mdpose_edge.calib.qdq import quantize_qdq
from tests.unit.calib.float_graph import make_calibration, make_float_graph


def test_kept_gives_the_first_thing_ever_after() -> None:
    kept = Kept()
    assert [kept(lambda: 1), kept(lambda: 2)] == [1, 1]
    assert [every_time(lambda: 1), every_time(lambda: 2)] == [1, 2]


def test_a_failure_is_not_kept() -> None:
    kept = Kept()
    with pytest.raises(ZeroDivisionError):
        kept(lambda: 1 // 0)
    assert kept(lambda: 3) == 3


def test_ranges_are_measured_once_for_several_choices_of_float_layers(tmp_path: Path) -> None:
    model, calibration, once = make_float_graph(), make_calibration(tmp_path), Kept()
    seen: list[int] = []
    made = [
        quantize_qdq(model, calibration, keep_float=kept, once=once, progress=lambda done, total: seen.append(done))
        for kept in ((), ("node_tower_conv",))
    ]
    assert seen == [1, 2, 3, 4]
    assert made[0].scales == made[1].scales
    assert set(made[0].quantized) - set(made[1].quantized) == {"node_tower_conv"}
