"""One benchmark: variants take turns, and what comes of it goes on record with the machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge import __version__
from mdpose_edge.bench.frames import Frames
from mdpose_edge.bench.session import STAGES, RoundTimes, Session, Variant
from mdpose_edge.bench.startup import measure_startup
from mdpose_edge.bench.statistics import Stability, fastest_tenth, judge_stability, median_ratio, quantiles
from mdpose_edge.common.progress import Progress
from mdpose_edge.machine.facts import machine_identity, machine_state
from mdpose_edge.machine.host import peak_memory_mb
from mdpose_edge.machine.power import power_watched

ROUNDS = 20
"""Turns that each variant takes; an interval of 95.9% then leaves out five rounds at each end."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    calls: int = 200
    """Of each stream, in ROUNDS turns; rounded up."""
    warmup: int = 20
    """Calls of each stream before the first that counts."""
    startup: bool = True
    """Also measure the way from nothing to the first pose, in a process of its own."""

    @property
    def calls_per_round(self) -> int:
        """Calls of each stream in one turn."""
        return -(-self.calls // ROUNDS)


@dataclass(frozen=True)
class Run:
    """What was measured of one variant."""

    variant: Variant
    engine: str
    precision: str
    batch: int
    stages_ms: dict[str, dict[str, float]]
    """By STAGES: p50, p90, p99, mean and fastest_tenth of a call, ms; and "images_per_s", had this stage the machine to
    itself."""
    images_per_s: float
    """End to end over all streams, by the clock on the wall."""
    calls: int
    poses_per_image: float
    stability: Stability
    startup: dict[str, Any] | None


@dataclass(frozen=True)
class Benchmark:
    """Everything on record."""

    frames: str
    capture_ms: dict[str, float] | None
    plan: Plan
    machine: dict[str, Any]
    """"identity", "before", "after" and "power"."""
    runs: list[Run]
    peak_memory_mb: float | str
    """Of the process that measured, with every engine of a group open at once, or why nobody knows; what one artifact
    takes alone is in its run's `startup`."""
    ratios: list[dict[str, Any]]
    """Each variant of the first model against the other's of as many threads and streams, by stage, per image: within
    rounds, and, as "of_fastest", of the fastest tenths."""

    @property
    def stable(self) -> bool:
        """Whether every run is."""
        return all(run.stability.stable for run in self.runs)

    def to_json_dict(self) -> dict[str, Any]:
        """Return everything, ready for json.dump."""
        record = dataclasses.asdict(self)
        for run in record["runs"]:
            run["variant"]["model"] = str(run["variant"]["model"])
        return {"toolkit_version": __version__, "rounds": ROUNDS, "stable": self.stable, **record}


def benchmark(
    groups: Sequence[Sequence[Variant]], frames: Frames, plan: Plan, *, progress: Progress | None = None
) -> Benchmark:
    """Measure variants.

    Args:
        groups: the variants of a group are open at once and take turns, so that whatever else the machine does hits all
            of them alike; each is compared with the last of its group. Groups are measured one after another.
        frames: what is shown.
        plan: how much is measured.
        progress: called after each turn.

    Raises:
        MdposeError: an artifact cannot be opened, or an engine fails.
    """
    total = ROUNDS * sum(map(len, groups))
    runs: list[Run] = []
    ratios: list[dict[str, Any]] = []
    done = 0

    def turn_done() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    before = machine_state()
    with power_watched() as power:
        for group in groups:
            found, compared = _measure_group(group, frames, plan, turn_done)
            runs += found
            ratios += compared
    machine = {"identity": machine_identity(), "before": before, "after": machine_state(), "power": power}
    capture = None if frames.capture_ms is None else quantiles(frames.capture_ms)
    return Benchmark(frames.where, capture, plan, machine, runs, peak_memory_mb(), ratios)


def _measure_group(
    group: Sequence[Variant], frames: Frames, plan: Plan, turn_done: Callable[[], None]
) -> tuple[list[Run], list[dict[str, Any]]]:
    throttled_before = machine_state()["throttle_events"]
    with ExitStack() as stack:
        sessions = [stack.enter_context(Session(variant, frames.frames_bgr)) for variant in group]
        startups = [measure_startup(variant, frames.frames_bgr[0]) if plan.startup else None for variant in group]
        turns: list[list[RoundTimes]] = [[] for _ in sessions]
        for session in sessions:
            session.take_turn(plan.warmup)
        for index in range(ROUNDS):
            order = list(range(len(sessions)))
            for i in order if index % 2 == 0 else reversed(order):  # there and back: drift in a round cancels out
                turns[i].append(sessions[i].take_turn(plan.calls_per_round))
                turn_done()
        throttled = _difference(throttled_before, machine_state()["throttle_events"])
        runs = [
            _summarise(session, rounds, startup, throttled)
            for session, rounds, startup in zip(sessions, turns, startups, strict=True)
        ]
    *ones, other = zip(runs, turns, strict=True)
    return runs, [_compare(*one, *other) for one in ones]


def _summarise(session: Session, rounds: list[RoundTimes], startup: dict[str, Any] | None, throttled: int) -> Run:
    call_ms = _stack(rounds)
    images = sum(one.images for one in rounds)
    batch = session.spec.input.batch
    stages = {name: quantiles(call_ms[..., i]) for i, name in enumerate(STAGES)}
    for figures in stages.values():
        figures["images_per_s"] = 1e3 * batch / figures["mean"]
    return Run(
        variant=session.variant,
        engine=session.engine,
        precision=session.spec.precision,
        batch=batch,
        stages_ms=stages,
        images_per_s=images / sum(one.wall_s for one in rounds),
        calls=call_ms.shape[0] * call_ms.shape[1],
        poses_per_image=sum(one.poses for one in rounds) / images,
        stability=judge_stability(call_ms[..., -1], throttled),
        startup=startup,
    )


def _compare(one: Run, one_turns: list[RoundTimes], other: Run, other_turns: list[RoundTimes]) -> dict[str, Any]:
    ones, others = _stack(one_turns) / one.batch, _stack(other_turns) / other.batch
    stages = {}
    for i, name in enumerate(STAGES):
        ratio = median_ratio(ones[..., i], others[..., i])
        of_fastest = fastest_tenth(ones[..., i]) / fastest_tenth(others[..., i])
        stages[name] = {**dataclasses.asdict(ratio), "tells_apart": ratio.tells_apart, "of_fastest": of_fastest}
    return {"one": _name(one), "other": _name(other), "stages": stages}


def _stack(rounds: list[RoundTimes]) -> NDArray[np.float64]:
    """Return (rounds, calls, stages) ms."""
    return np.stack([one.call_ms for one in rounds])


def _name(run: Run) -> dict[str, Any]:
    variant = run.variant
    return {
        "model": str(variant.model),
        "engine": run.engine,
        "threads": variant.threads,
        "streams": variant.streams,
    }


def _difference(before: int | str, after: int | str) -> int:
    """Count what happened in between; what the machine does not count is no reason to call a run unstable."""
    return max(0, after - before) if isinstance(before, int) and isinstance(after, int) else 0
