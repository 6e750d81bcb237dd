"""NVIDIA GPUs with a driver of their own, from nvidia-smi; Jetson's are in jetson.py."""

from __future__ import annotations

import csv
from typing import Any

from mdpose_edge.machine.reading import ask_program, not_available

_IDENTITY = {"name": "name", "driver": "driver_version", "memory_mb": "memory.total", "cc": "compute_cap"}
_STATE = {
    "sm_mhz": "clocks.sm",
    "sm_mhz_max": "clocks.max.sm",
    "memory_mhz": "clocks.mem",
    "temperature_c": "temperature.gpu",
    "power_w": "power.draw",
    "power_limit_w": "power.limit",
    "throttle_reasons": "clocks_throttle_reasons.active",
}


def gpus() -> list[dict[str, str]] | str:
    """Tell each GPU's name, driver, memory and compute capability."""
    return _query(_IDENTITY)


def gpu_state() -> list[dict[str, str]] | str:
    """Tell each GPU's clocks, temperature, power and the bits of what holds its clocks down."""
    return _query(_STATE)


def _query(fields: dict[str, str]) -> list[dict[str, Any]] | str:
    text = ask_program("nvidia-smi", f"--query-gpu={','.join(fields.values())}", "--format=csv,noheader,nounits")
    if text is None:
        return not_available("no nvidia-smi that answers")
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if row]
    return [dict(zip(fields, row, strict=False)) for row in rows] or not_available("nvidia-smi lists no GPU")
