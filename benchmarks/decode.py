"""Measure head tensors to Poses, beside a plain way to write the same.

    python -m benchmarks.decode [FAMILY...] [--repeats 1000] [--json FILE]

A family's cases are in benchmarks/decoders/. All runs in one thread: the processor's time, over all threads, is no more
than that on the wall. Whether a target is met rests on the fastest tenth of the calls: what other work on the machine
costs is no part of a decoder. The medians, on the wall and of the processor, stand beside it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.decoders.case import Case
from mdpose_edge.bench.statistics import quantiles
from mdpose_edge.common.files import write_whole
from mdpose_edge.machine.facts import machine_identity, machine_state

FAMILIES = ("mdpose", "mixture_dense", "adaptive", "recurrent", "das")
"""Each a module of benchmarks/decoders/ with a function `cases()`."""
OTHERS_S = 2.0
"""A plain way takes up to a second: it is measured so long, and three times at least."""


def time_ms(call: Callable[[], Any], repeats: int, limit_s: float = float("inf")) -> dict[str, float]:
    """Time single calls, after one that is not counted and a tenth as many to warm up.

    Returns:
        ms by the names of `mdpose_edge.bench.statistics.quantiles`, and the median of the processor's time, "cpu_p50".
    """
    call()
    wall, cpu = [], []
    begin = time.perf_counter()
    while len(wall) < repeats + repeats // 10 and (len(wall) < 3 or time.perf_counter() - begin < limit_s):
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        call()
        cpu.append(1e3 * (time.process_time() - cpu_start))
        wall.append(1e3 * (time.perf_counter() - wall_start))
    counted = slice(len(wall) // 11, None)
    figures = {**quantiles(np.array(wall[counted])), "cpu_p50": float(np.median(cpu[counted]))}
    return {name: round(ms, 4) for name, ms in figures.items()}


def measure(case: Case, repeats: int) -> dict[str, Any]:
    """Measure one case, and what it is compared with."""
    return {
        "scenario": case.name,
        "kept": case.kept,
        "target_ms": case.target_ms,
        "decode": time_ms(case.decode, repeats),
        "others": {name: time_ms(call, repeats, OTHERS_S) for name, call in case.others.items()},
    }


def print_table(family: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print what was measured of a family; of the others the fastest tenth."""
    others = list(rows[0]["others"])
    print(f"{family + ', ms':46} {'kept':>5} {'fastest':>8} {'median':>8} {'p90':>8} {'cpu':>8} {'target':>7} ", end="")
    print(*(f"{name:>9}" for name in others))
    for row in rows:
        decode = row["decode"]
        print(
            f"{row['scenario']:46} {row['kept']:5d} {decode['fastest_tenth']:8.3f} {decode['p50']:8.3f} "
            f"{decode['p90']:8.3f} {decode['cpu_p50']:8.3f} {row['target_ms']:7.1f} ",
            end="",
        )
        print(*(f"{row['others'][name]['fastest_tenth']:9.3f}" for name in others))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every case of the families, print a table of each, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of {', '.join(FAMILIES)}; without: all")
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    if unknown := set(args.families) - set(FAMILIES):
        parser.error(f"expected families of {', '.join(FAMILIES)}, got {', '.join(sorted(unknown))}: name those")
    report: dict[str, Any] = {"machine": machine_identity(), "state": machine_state(), "repeats": args.repeats}
    report["families"] = {}
    for family in args.families or FAMILIES:
        cases = importlib.import_module(f"benchmarks.decoders.{family}").cases()
        report["families"][family] = rows = [measure(case, args.repeats) for case in cases]
        print_table(family, rows)
    if args.json:
        write_whole(args.json, (json.dumps(report, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
