"""What only a Jetson has: L4T, nvpmodel, jetson_clocks, the integrated GPU's clock, power rails."""

from __future__ import annotations

import re
from pathlib import Path

from mdpose_edge.machine.reading import ask_program, not_available, read_number, read_text

NO_JETSON = not_available("no Jetson")
UNKNOWN = "unknown"
_RELEASE = re.compile(r"R(\d+) \(release\), REVISION: ([\d.]+)")
_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]*) (\d+)(?:mW)?/\d+(?:mW)?(?![\dMk])")
"""A rail of tegrastats, "VDD_IN 5080mW/5080mW" or before JetPack 5 "VDD_IN 5080/5080": now, and on average, mW."""
WHOLE_BOARD_RAILS = ("VDD_IN", "POM_5V_IN", "VIN")
"""Rails through which all of the board's power comes, on the boards that measure one."""


def board(root: Path = Path("/")) -> str:
    """Name the board as its device tree does."""
    return read_text(root / "proc/device-tree/model") or not_available("no device tree, as on PCs")


def jetson_linux(root: Path = Path("/")) -> str | None:
    """Return the version of Jetson Linux, as "36.4.3"; "unknown" if its file names none, None on other machines."""
    text = read_text(root / "etc/nv_tegra_release")  # there on every Jetson, and nowhere else
    if text is None:
        return None
    found = _RELEASE.search(text)
    return f"{found[1]}.{found[2]}" if found else UNKNOWN


def l4t_release(root: Path = Path("/")) -> str:
    """Return the version of Jetson Linux as a fact of the machine."""
    return jetson_linux(root) or NO_JETSON


def gpu_mhz(root: Path = Path("/")) -> float | str:
    """Return the integrated GPU's clock of this moment, MHz."""
    device = _gpu_device(root)
    clock = None if device is None else read_number(device / "cur_freq")
    return NO_JETSON if clock is None else clock / 1e6


def power_mode() -> str:
    """Name nvpmodel's power mode, as "MAXN"."""
    text = ask_program("nvpmodel", "-q")
    found = re.search(r"NV Power Mode: *(\S+)", text or "")
    return found[1] if found else NO_JETSON


def clocks_pinned(root: Path = Path("/")) -> bool | str:
    """Say whether jetson_clocks holds the GPU and every CPU core at their highest clock."""
    device = _gpu_device(root)
    if device is None:
        return NO_JETSON
    cores = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    pairs = [(core / "scaling_min_freq", core / "scaling_max_freq") for core in cores]
    pairs.append((device / "min_freq", device / "max_freq"))
    clocks = [(read_number(low), read_number(high)) for low, high in pairs]
    return all(low is not None and low == high for low, high in clocks)


def rails_w(root: Path = Path("/")) -> dict[str, float] | str:
    """Measure each power rail with the board's INA3221, W."""
    found: dict[str, float] = {}
    for name_file in sorted((root / "sys/class/hwmon").glob("hwmon*/in*_label")):
        if read_text(name_file.with_name("name")) != "ina3221":
            continue
        channel = name_file.name.removeprefix("in").removesuffix("_label")
        millivolts = read_number(name_file.with_name(f"in{channel}_input"))
        milliamperes = read_number(name_file.with_name(f"curr{channel}_input"))
        if millivolts is not None and milliamperes is not None:
            found[read_text(name_file) or name_file.name] = millivolts * milliamperes / 1e6
    return found or not_available("no INA3221 power sensor")


def tegrastats_rails_w(line: str) -> dict[str, float]:
    """Read the power rails in a line of tegrastats, W."""
    return {name: int(milliwatts) / 1000 for name, milliwatts in _RAIL.findall(line)}


def _gpu_device(root: Path) -> Path | None:
    """Find the integrated GPU: 17000000.gpu, 57000000.gpu, or gpu-gpc-0 on Thor."""
    devices = sorted((root / "sys/class/devfreq").glob("*gpu*")) if l4t_release(root) != NO_JETSON else []
    return devices[0] if devices else None
