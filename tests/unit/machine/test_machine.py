"""Facts of machines that are not here: /proc and /sys trees and programs, written out as they look there."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from mdpose_edge.machine import host, jetson, nvidia
from mdpose_edge.machine.facts import machine_identity, machine_state
from mdpose_edge.machine.power import power_watched, summarise
from mdpose_edge.machine.reading import NOT_AVAILABLE, ask_program

ORIN_NX = (
    "RAM 2448/15389MB (lfb 4x4MB) SWAP 0/7694MB (cached 0MB) CPU [2%@729,0%@729] EMC_FREQ 0%@2133 GR3D_FREQ 0%@[305] \
cpu@49.5C gpu@47.2C VDD_IN 5080mW/5240mW VDD_CPU_GPU_CV 1080mW/1100mW VDD_SOC 1480mW/1480mW"
)
NANO = "RAM 1200/3964MB (lfb 2x4MB) IRAM 0/252kB(lfb 252kB) POM_5V_IN 2510/2510 POM_5V_GPU 0/0 POM_5V_CPU 480/480"
AGX_ORIN = "RAM 3000/62800MB VDD_GPU_SOC 3204mW/3204mW VDD_CPU_CV 801mW/801mW VIN_SYS_5V0 4540mW/4540mW"


def write_tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    cpu = "sys/devices/system/cpu"
    return write_tree(
        tmp_path,
        {
            "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n",
            "proc/device-tree/model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0",
            "proc/meminfo": "MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:   8000000 kB\n",
            "proc/loadavg": "0.52 0.58 0.59 1/977 12345\n",
            "proc/self/status": "Name:\tpython\nVmHWM:\t  200000 kB\n",
            f"{cpu}/cpu0/cpufreq/scaling_governor": "schedutil\n",
            f"{cpu}/cpu0/cpufreq/scaling_cur_freq": "729600\n",
            f"{cpu}/cpu0/cpufreq/scaling_min_freq": "1984000\n",
            f"{cpu}/cpu0/cpufreq/scaling_max_freq": "1984000\n",
            f"{cpu}/cpu1/cpufreq/scaling_governor": "performance\n",
            f"{cpu}/cpu1/cpufreq/scaling_cur_freq": "1984000\n",
            f"{cpu}/cpu1/cpufreq/scaling_min_freq": "1984000\n",
            f"{cpu}/cpu1/cpufreq/scaling_max_freq": "1984000\n",
            "sys/class/devfreq/17000000.gpu/cur_freq": "918000000\n",
            "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
            "sys/class/devfreq/17000000.gpu/max_freq": "918000000\n",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "49500\n",
            "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
            "sys/class/thermal/thermal_zone1/temp": "-256000\n",
            "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
            "sys/class/thermal/cooling_device0/cur_state": "3\n",
            "sys/class/thermal/cooling_device1/type": "cpufreq-cpu0\n",
            "sys/class/thermal/cooling_device1/cur_state": "2\n",
            "sys/class/hwmon/hwmon1/name": "ina3221\n",
            "sys/class/hwmon/hwmon1/in1_label": "VDD_IN\n",
            "sys/class/hwmon/hwmon1/in1_input": "5000\n",
            "sys/class/hwmon/hwmon1/curr1_input": "1200\n",
        },
    )


def test_an_orin_is_read(orin: Path) -> None:
    assert jetson.jetson_linux(orin) == jetson.l4t_release(orin) == "36.4.3"
    assert jetson.board(orin) == "NVIDIA Jetson Orin NX Engineering Reference Developer Kit"
    assert jetson.gpu_mhz(orin) == 918
    assert jetson.rails_w(orin) == {"VDD_IN": 6.0}
    assert host.governor(orin) == "performance, schedutil"
    assert host.cpu_mhz(orin) == (729.6, 1984)
    assert host.temperatures_c(orin) == {"cpu-thermal": 49.5}
    assert host.throttle_events(orin) == 1  # the CPU's clock is held down; the fan's speed is no throttling
    assert (host.memory_mb(orin), host.memory_available_mb(orin)) == (16384, 8192)
    assert host.peak_memory_mb(orin) == 204.8
    assert host.load_average(orin) == 0.52


def test_a_release_file_that_names_none_is_still_a_jetsons(tmp_path: Path) -> None:
    assert jetson.jetson_linux(tmp_path) is None
    assert jetson.l4t_release(tmp_path) == jetson.NO_JETSON
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "nv_tegra_release").write_text("nothing that is known")
    assert jetson.jetson_linux(tmp_path) == jetson.l4t_release(tmp_path) == "unknown"


def test_jetson_clocks_counts_only_with_every_clock_pinned(orin: Path) -> None:
    assert jetson.clocks_pinned(orin) is False
    (orin / "sys/class/devfreq/17000000.gpu/min_freq").write_text("918000000\n")
    assert jetson.clocks_pinned(orin) is True


def test_an_intel_pc_counts_its_throttling(tmp_path: Path) -> None:
    files = {f"sys/devices/system/cpu/cpu{i}/thermal_throttle/package_throttle_count": "17\n" for i in range(4)}
    files |= {"sys/class/hwmon/hwmon0/name": "k10temp\n", "sys/class/hwmon/hwmon0/temp1_input": "61250\n"}
    files |= {"sys/class/hwmon/hwmon0/temp1_label": "Tctl\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}
    root = write_tree(tmp_path, files)
    assert host.throttle_events(root) == 17  # a counter of the package, which every core shows
    assert host.temperatures_c(root) == {"k10temp Tctl": 61.25}
    assert host.cpu_limit(root) == 1.5


def test_what_is_not_there_is_said_and_nothing_left_out(
    tmp_path: Path, orin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    empty = tmp_path / "empty"
    bare, full = machine_state(empty), machine_state(orin)
    assert bare.keys() == full.keys()
    assert all(str(value).startswith(f"{NOT_AVAILABLE}: ") for value in bare.values()), bare
    unknown = {name for name, value in machine_identity(empty).items() if str(value).startswith(NOT_AVAILABLE)}
    assert unknown == {"cpu_limit", "memory_mb", "board", "l4t", "gpus"}
    json.dumps([bare, full, machine_identity(empty)])


def test_a_sensor_that_refuses_is_passed_over(orin: Path) -> None:
    sensor = orin / "sys/class/thermal/thermal_zone0/temp"
    sensor.unlink()
    sensor.mkdir()  # reading it is an OSError, as the GPU's sensor is while the GPU sleeps
    assert str(host.temperatures_c(orin)).startswith(NOT_AVAILABLE)
    (orin / "sys/class/thermal/thermal_zone1/temp").write_text("invalid\n")
    assert str(host.temperatures_c(orin)).startswith(NOT_AVAILABLE)


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_nvidia_smi_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "nvidia-smi", 'echo "NVIDIA RTX A2000, 570.86.10, 12282, 8.6"')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert nvidia.gpus() == [{"name": "NVIDIA RTX A2000", "driver": "570.86.10", "memory_mb": "12282", "cc": "8.6"}]
    program(tmp_path, "nvidia-smi", "echo NVIDIA-SMI has failed; exit 9")
    assert str(nvidia.gpus()).startswith(NOT_AVAILABLE)


def test_nvpmodel_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "nvpmodel", 'printf "NV Power Mode: MAXN_SUPER\\n2\\n"')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert jetson.power_mode() == "MAXN_SUPER"


def test_a_program_that_is_absent_gives_nothing() -> None:
    assert ask_program("no-such-program") is None


@pytest.mark.parametrize(
    ("line", "rails"),
    [
        pytest.param(ORIN_NX, {"VDD_IN": 5.08, "VDD_CPU_GPU_CV": 1.08, "VDD_SOC": 1.48}, id="Orin NX"),
        pytest.param(NANO, {"POM_5V_IN": 2.51, "POM_5V_GPU": 0.0, "POM_5V_CPU": 0.48}, id="Nano"),
        pytest.param(AGX_ORIN, {"VDD_GPU_SOC": 3.204, "VDD_CPU_CV": 0.801, "VIN_SYS_5V0": 4.54}, id="AGX Orin"),
        pytest.param("", {}, id="nothing"),
    ],
)
def test_tegrastats_lines(line: str, rails: dict[str, float]) -> None:
    assert jetson.tegrastats_rails_w(line) == rails


def test_power_has_a_total_only_where_one_rail_carries_all() -> None:
    found = summarise("tegrastats", [ORIN_NX, ORIN_NX.replace("VDD_IN 5080", "VDD_IN 7080")])
    assert (found["whole_board"], found["samples"]) == ("VDD_IN", 2)
    assert found["rails"]["VDD_IN"] == pytest.approx({"mean": 6.08, "max": 7.08})
    assert summarise("tegrastats", [AGX_ORIN])["whole_board"].startswith(NOT_AVAILABLE)
    assert summarise("nvidia-smi", ["0, 61.20", "0, 70.00", "1, [N/A]"])["rails"]["GPU 0"]["max"] == 70
    assert summarise("nvidia-smi", ["[N/A]"])["source"].startswith(NOT_AVAILABLE)


def test_power_is_watched_while_something_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "tegrastats", f"echo '{ORIN_NX}'; exec sleep 60")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with power_watched() as power:
        assert list(power) == ["source"]
        program(tmp_path, "done", "sleep 0.3")
        ask_program("done")
    assert power["rails"]["VDD_IN"] == {"mean": 5.08, "max": 5.08}
    monkeypatch.setenv("PATH", "")
    with power_watched() as power:
        pass
    assert power == {"source": f"{NOT_AVAILABLE}: neither tegrastats nor nvidia-smi"}
