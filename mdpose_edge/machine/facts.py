"""The record that goes beside a figure: what the machine is, and the state that it was in."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from mdpose_edge.machine import host, jetson, nvidia


def machine_identity(root: Path = Path("/")) -> dict[str, Any]:
    """Tell what does not change while a program runs: CPU, cores, system, Python.

    Args:
        root: where /proc and /sys are; another folder in tests.
    """
    return {
        "cpu": host.cpu_name(root),
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)),
        "cpu_limit": host.cpu_limit(root),
        "memory_mb": host.memory_mb(root),
        "system": platform.platform(),
        "python": platform.python_version(),
        "board": jetson.board(root),
        "l4t": jetson.l4t_release(root),
        "gpus": nvidia.gpus(),
    }


def machine_state(root: Path = Path("/")) -> dict[str, Any]:
    """Tell what does change: governor, clocks, load, memory, temperatures, throttling, power.

    Args:
        root: where /proc and /sys are; another folder in tests.
    """
    return {
        "load": host.load_average(root),
        "governor": host.governor(root),
        "cpu_mhz": host.cpu_mhz(root),
        "memory_available_mb": host.memory_available_mb(root),
        "temperature_c": host.temperatures_c(root),
        "throttle_events": host.throttle_events(root),
        "gpu": nvidia.gpu_state(),
        "gpu_mhz": jetson.gpu_mhz(root),
        "nvpmodel": jetson.power_mode(),
        "jetson_clocks": jetson.clocks_pinned(root),
        "power_w": jetson.rails_w(root),
    }
