"""CPU, memory, load and temperatures, from Linux's /proc and /sys."""

from __future__ import annotations

import platform
from pathlib import Path

from mdpose_edge.machine.reading import not_available, read_fields, read_number, read_text

_CPU = "sys/devices/system/cpu"
_COLDEST_C, _HOTTEST_C = -55.0, 150.0
"""Sensors that are not wired up report values far outside of this."""


def cpu_name(root: Path = Path("/")) -> str:
    """Name the processor; ARM boards, whose kernels do not, are named by their architecture."""
    name = read_fields(root / "proc/cpuinfo").get("model name")  # platform.processor() only names the architecture
    return name or platform.processor() or platform.machine()


def cpu_limit(root: Path = Path("/")) -> float | str:
    """Return the cores' worth of time that a container may use, or "none"."""
    text = read_text(root / "sys/fs/cgroup/cpu.max")
    if text is None:
        return not_available("no /sys/fs/cgroup/cpu.max")
    quota, _, period = text.partition(" ")
    return "none" if quota == "max" else int(quota) / int(period or 100_000)


def memory_mb(root: Path = Path("/")) -> int | str:
    """Return the memory in all, MB (10^6 bytes)."""
    return _meminfo_mb(root, "MemTotal")


def memory_available_mb(root: Path = Path("/")) -> int | str:
    """Return the memory that a new program could have without swapping, MB (10^6 bytes)."""
    return _meminfo_mb(root, "MemAvailable")


def peak_memory_mb(root: Path = Path("/")) -> float | str:
    """Return the most memory that this process ever held at once (VmHWM), MB (10^6 bytes).

    getrusage's figure would not do: a child inherits that of the process that started it.
    """
    text = read_fields(root / "proc/self/status").get("VmHWM", "")
    return int(text.split()[0]) * 1024 / 1e6 if text else not_available("no VmHWM in /proc/self/status")


def load_average(root: Path = Path("/")) -> float | str:
    """Return the processes that ran or waited to, averaged over the last minute."""
    text = read_text(root / "proc/loadavg")
    return float(text.split()[0]) if text else not_available("no /proc/loadavg")


def governor(root: Path = Path("/")) -> str:
    """Name the policy that sets the CPU's clocks; several where cores differ."""
    files = (root / _CPU).glob("cpu[0-9]*/cpufreq/scaling_governor")
    found = sorted({text for text in map(read_text, files) if text})
    return ", ".join(found) or not_available("no cpufreq in /sys, as in virtual machines")


def cpu_mhz(root: Path = Path("/")) -> tuple[float, float] | str:
    """Return the slowest and the fastest core's clock of this moment, MHz."""
    files = (root / _CPU).glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    found = [khz / 1000 for khz in map(read_number, files) if khz is not None]
    return (min(found), max(found)) if found else not_available("no cpufreq in /sys, as in virtual machines")


def temperatures_c(root: Path = Path("/")) -> dict[str, float] | str:
    """Return each sensor's temperature, °C."""
    found: dict[str, float] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        _note_temperature(found, read_text(zone / "type") or zone.name, read_number(zone / "temp"))
    for sensor in sorted((root / "sys/class/hwmon").glob("hwmon*/temp*_input")):
        label = read_text(sensor.with_name(sensor.name.replace("_input", "_label"))) or sensor.name.partition("_")[0]
        chip = read_text(sensor.with_name("name")) or sensor.parent.name
        _note_temperature(found, f"{chip} {label}", read_number(sensor))
    return found or not_available("no sensor in /sys/class/thermal or /sys/class/hwmon")


def throttle_events(root: Path = Path("/")) -> int | str:
    """Count how often heat or power slowed the machine down since it started.

    Intel's counters per package, or the cooling devices that are at work right now, which ARM boards have.
    """
    counters = (root / _CPU).glob("cpu[0-9]*/thermal_throttle/package_throttle_count")
    counts = [count for count in map(read_number, counters) if count is not None]
    if counts:
        return int(max(counts))
    cooling = (root / "sys/class/thermal").glob("cooling_device*")
    states = [read_number(device / "cur_state") for device in cooling if _slows_down(device)]
    known = [state for state in states if state is not None]
    return sum(state > 0 for state in known) if known else not_available("no throttle counter in /sys")


def _meminfo_mb(root: Path, key: str) -> int | str:
    text = read_fields(root / "proc/meminfo").get(key, "")
    return int(int(text.split()[0]) * 1024 / 1e6) if text else not_available(f"no {key} in /proc/meminfo")


def _note_temperature(found: dict[str, float], name: str, millidegrees: float | None) -> None:
    if millidegrees is not None and _COLDEST_C < millidegrees / 1000 < _HOTTEST_C:
        found[name] = millidegrees / 1000


def _slows_down(device: Path) -> bool:
    """Tell clocks that are lowered from fans that are turned up."""
    kind = (read_text(device / "type") or "").lower()
    return any(word in kind for word in ("cpufreq", "devfreq", "throttle", "alert", "processor"))
