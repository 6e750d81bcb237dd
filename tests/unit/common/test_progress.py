"""How far work is."""

from __future__ import annotations

from mdpose_edge.common.progress import in_stage


def test_a_part_of_the_work_is_reported_as_a_stage_with_its_notes() -> None:
    seen: list[tuple[int, int, str, str]] = []
    report = in_stage(lambda *given: seen.append(given), "drawing")
    report(1, 2)
    report(2, 2, "done")
    assert seen == [(1, 2, "", "drawing"), (2, 2, "done", "drawing")]
