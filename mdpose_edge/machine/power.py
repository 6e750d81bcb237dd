"""Power while something runs: a program that watches is started before and read afterwards."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mdpose_edge.machine.jetson import WHOLE_BOARD_RAILS, tegrastats_rails_w
from mdpose_edge.machine.reading import not_available

INTERVAL_MS = 500

_WATCHERS = {
    "tegrastats": ("--interval", str(INTERVAL_MS)),
    "nvidia-smi": (
        "--query-gpu=index,power.draw",
        "--format=csv,noheader,nounits",
        f"--loop-ms={INTERVAL_MS}",
    ),
}


@contextmanager
def power_watched() -> Iterator[dict[str, Any]]:
    """Watch the power of the body of the `with`; the dictionary is filled when it ends.

    It then holds "source", and "rails" with the mean and the highest power of each, W, and the number of samples; or
    "source" alone, which says why there is nothing. A board without a rail for all of its power has no total: rails
    overlap, so that a sum would count some of it twice.
    """
    found: dict[str, Any] = {"source": not_available("neither tegrastats nor nvidia-smi")}
    name = next((name for name in _WATCHERS if shutil.which(name)), None)
    if name is None:
        yield found
        return
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as lines:
        watcher = subprocess.Popen(
            [name, *_WATCHERS[name]], stdout=lines, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        try:
            yield found
        finally:
            watcher.terminate()
            watcher.wait()
            lines.seek(0)
            found.update(summarise(name, lines.read().splitlines()))


def summarise(source: str, lines: Sequence[str]) -> dict[str, Any]:
    """Turn what a watcher printed into mean and highest power of each rail, W."""
    read = tegrastats_rails_w if source == "tegrastats" else _nvidia_rails_w
    samples = [rails for rails in map(read, lines) if rails]
    if not samples:
        return {"source": not_available(f"{source} printed no power")}
    names = sorted({name for rails in samples for name in rails})
    series = {name: [rails[name] for rails in samples if name in rails] for name in names}
    total = next((name for name in WHOLE_BOARD_RAILS if name in series), None)
    return {
        "source": source,
        "samples": len(samples),
        "rails": {name: {"mean": sum(w) / len(w), "max": max(w)} for name, w in series.items()},
        "whole_board": total or not_available("this machine measures parts of its power only"),
    }


def _nvidia_rails_w(line: str) -> dict[str, float]:
    cells = [cell.strip() for cell in line.split(",")]
    try:
        return {f"GPU {cells[0]}": float(cells[1])}
    except (IndexError, ValueError):  # "[N/A]" on GPUs that do not measure it
        return {}
