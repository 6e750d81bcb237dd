"""Measure what a user waits for before anything happens: --help, and import to first pose; list what is installed.

    python benchmarks/startup.py BUNDLE [--repeats 5] [--wheel dist/mdpose_edge-0.1.0-py3-none-any.whl] [--json FILE]

CPU seconds are those of the child processes, user and system; they hardly depend on other work on the machine. The
first pose is found as `mdpose-edge bench` does it, in a process of its own. What a user waits for rests on the medians;
the fastest tenth beside them says what a quiet machine would take.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from mdpose_edge.bench.frames import draw_frames
from mdpose_edge.bench.session import Variant
from mdpose_edge.bench.startup import measure_startup
from mdpose_edge.bench.statistics import fastest_tenth
from mdpose_edge.machine.facts import machine_identity


def cpu_seconds(command: list[str]) -> float:
    """Run a command and give the CPU time that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def device_side() -> dict[str, float]:
    """Give the size of each distribution that the bare install brings to Linux, installed, MB."""
    sizes: dict[str, float] = {}
    waiting = _needs(metadata.requires("mdpose-edge"))
    while waiting:
        name = waiting.pop().split(";")[0].strip()
        for mark in "<>=!~[ (":
            name = name.partition(mark)[0]
        if name in sizes:
            continue
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for another platform
            continue
        files = [Path(str(found.locate_file(file))) for file in found.files or []]
        sizes[name] = sum(file.stat().st_size for file in files if file.is_file()) / 1e6
        waiting += _needs(found.requires)
    return sizes


def _needs(requires: list[str] | None) -> list[str]:
    """Leave out what only an extra or another system asks for."""
    return [line for line in requires or [] if "extra ==" not in line and "win32" not in line and "Windows" not in line]


def _both(values: list[float]) -> dict[str, float]:
    return {"fastest_tenth": fastest_tenth(np.array(values)), "median": float(np.median(values))}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--wheel", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    frame = draw_frames((1280, 720), 10).frames_bgr[0]
    help_s = [cpu_seconds([sys.executable, "-m", "mdpose_edge", "--help"]) for _ in range(args.repeats)]
    bare_s = [cpu_seconds([sys.executable, "-c", "pass"]) for _ in range(args.repeats)]
    starts = [measure_startup(Variant(args.bundle), frame) for _ in range(args.repeats)]
    report: dict[str, Any] = {
        "machine": machine_identity(),
        "help_cpu_s": _both(help_s),
        "bare_python_cpu_s": _both(bare_s),
        "first_pose": {name: _both([float(start[name]) for start in starts]) for name in starts[0]},
        "installed_mb": device_side(),
    }
    if args.wheel:
        report["wheel_mb"] = args.wheel.stat().st_size / 1e6
    print(json.dumps(report, indent=2))
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
