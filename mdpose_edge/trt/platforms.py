"""What runs where: JetPack, TensorRT, CUDA, Python, devices, NVDLA cores and memory, in one place, with its sources.

Pure data and look-ups, nothing is asked of the machine: an export anywhere, a build on the device and `doctor` read the
same table, and what no hardware or release supports is refused with the reason.

"NVDLA" is NVIDIA's Deep Learning Accelerator, a unit beside the GPU; the backbone DLA-34 is another thing by that name.

Sources, as of TensorRT 11.4 and JetPack 7.2:
- releases: developer.nvidia.com/embedded (the pages of JetPack 5.1 to 7.1), the table of jetson_stats
  (jtop/core/jetson_variables.py), docs.pytorch.org/TensorRT for 6.1 and 6.2, roboflow/inference#2531 for 7.0 to 7.2;
- compute capabilities: developer.nvidia.com/cuda-gpus and /cuda-legacy-gpus;
- NVDLA: the FAQ of NVIDIA/Deep-Learning-Accelerator-SW; TensorRT's support matrix and its page on Jetson under 11.4.1;
- known, but held against no document yet: memory sizes, the single core of the 8 GB Orin NX, and that Nano and TX2 have
  no INT8. On the device the truth is `builder.num_DLA_cores` and the memory that CUDA reports.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mdpose_edge.errors import ExportError

Version = tuple[int, ...]
Typing = Literal["weak", "strong"]
"""Who chooses the arithmetic of a layer: TensorRT, within what flags allow, or the graph."""

STRONG_TYPING: Version = (10, 12)
"""From here on NVIDIA calls strong typing complete and the precision flags deprecated; 11.0 removed them."""
OLDEST_TENSORRT: Version = (8, 5)
"""The first with named tensors (`execute_async_v3`) and with uint8 inputs, in TensorRT and in its ONNX parser."""
ABOVE_NEWEST_TENSORRT: Version = (12,)
LAST_NVDLA_TENSORRT: Version = (10, 7)
"""10.8 to 11.3 cannot build for NVDLA; 11.4.1 can again on AGX Orin, which mdpose-edge does not offer yet."""
NEWEST_TENSORRT = "11"
CALIBRATION_ALGORITHM = "EntropyCalibration2"
"""NVDLA takes no other: NvInfer.h calls IInt8EntropyCalibrator2 "required for DLA". The name binds a calibration cache
to it, not the way in which the ranges were chosen."""


@dataclass(frozen=True)
class Module:
    """One module of a device family."""

    memory_gib: int
    """Shared by CPU and GPU."""
    nvdla_cores: int


@dataclass(frozen=True)
class Device:
    """A family of Jetson modules with one chip."""

    key: str
    """The value of --device."""
    name: str
    chip: str
    compute_capability: tuple[int, int]
    modules: tuple[Module, ...]
    """Smallest first."""
    int8: bool = True
    """Whether the GPU has INT8 arithmetic."""

    @property
    def nvdla_cores(self) -> int:
        """Cores of the module with most of them."""
        return max(module.nvdla_cores for module in self.modules)

    @property
    def memory_gib(self) -> int:
        """Memory of the smallest module: what fits there fits the family."""
        return self.modules[0].memory_gib


@dataclass(frozen=True)
class JetPack:
    """A release of JetPack, with the releases that brought the same compute stack."""

    version: str
    """The value of --jetpack."""
    l4t: tuple[str, ...]
    """Beginnings of the Jetson Linux versions under it, as /etc/nv_tegra_release names them."""
    tensorrt: str
    cuda: str
    python: str
    """Of the system, for which its TensorRT bindings are made."""
    devices: tuple[str, ...]
    other_tensorrt: tuple[str, ...] = ()
    """Further versions that NVIDIA publishes for it."""


DEVICES = {
    device.key: device
    for device in (
        Device("orin-nano", "Jetson Orin Nano", "tegra234", (8, 7), (Module(4, 0), Module(8, 0))),
        Device("orin-nx", "Jetson Orin NX", "tegra234", (8, 7), (Module(8, 1), Module(16, 2))),
        Device("agx-orin", "Jetson AGX Orin", "tegra234", (8, 7), (Module(32, 2), Module(64, 2))),
        Device("xavier-nx", "Jetson Xavier NX", "tegra194", (7, 2), (Module(8, 2), Module(16, 2))),
        Device("agx-xavier", "Jetson AGX Xavier", "tegra194", (7, 2), (Module(16, 2), Module(32, 2), Module(64, 2))),
        Device("thor", "Jetson Thor", "tegra264", (11, 0), (Module(64, 0), Module(128, 0))),
        Device("tx2", "Jetson TX2", "tegra186", (6, 2), (Module(4, 0), Module(8, 0)), int8=False),
        Device("nano", "Jetson Nano", "tegra210", (5, 3), (Module(2, 0), Module(4, 0)), int8=False),
    )
}
"""By key. TX2 and Nano are here so that they can be refused with the reason."""

_ORIN = ("orin-nano", "orin-nx", "agx-orin")
_XAVIER = ("xavier-nx", "agx-xavier")

JETPACKS = {
    jetpack.version: jetpack
    for jetpack in (
        JetPack("4.6", ("32.6", "32.7"), "8.2.1", "10.2", "3.6", ("nano", "tx2", *_XAVIER)),
        JetPack("5.1", ("35.2", "35.3", "35.4", "35.5", "35.6"), "8.5.2", "11.4", "3.8", (*_XAVIER, *_ORIN)),
        JetPack("6.0", ("36.2", "36.3"), "8.6.2", "12.2", "3.10", _ORIN),
        JetPack("6.1", ("36.4.0",), "10.3.0", "12.6", "3.10", _ORIN, ("10.7.0",)),
        JetPack("6.2", ("36.4", "36.5"), "10.3.0", "12.6", "3.10", _ORIN, ("10.7.0",)),
        JetPack("7.0", ("38.2",), "10.13.0", "13.0", "3.12", ("thor",)),
        JetPack("7.1", ("38.4",), "10.13.0", "13.0", "3.12", ("thor",)),
        JetPack("7.2", ("39.0", "39.2"), "10.16.2", "13.2", "3.12", ("thor", *_ORIN)),
    )
}
"""By version, oldest first. 4.6 is below OLDEST_TENSORRT: named so that it can be refused with the reason."""

GPU_FLOORS: tuple[tuple[Version, tuple[int, int]], ...] = (((10, 5), (7, 5)), ((10, 0), (7, 0)), ((8, 5), (5, 0)))
"""(from this TensorRT on, lowest compute capability), newest first; Jetson's own builds reach below on their chips."""
GPU_CEILINGS: tuple[tuple[tuple[int, int], Version], ...] = (((10, 0), (10, 8)),)
"""(from this compute capability on, the first TensorRT that knows it): Blackwell."""


def parse_version(text: str) -> Version:
    """Read "10.3.0.26" as (10, 3, 0, 26).

    Raises:
        ValueError: it is not numbers with dots between.
    """
    if not re.fullmatch(r"\d+(\.\d+)*", text):
        raise ValueError(f"{text!r} is no version")
    return tuple(int(part) for part in text.split("."))


def typing_of(tensorrt: Version) -> Typing:
    """Say who chooses a layer's arithmetic in this version."""
    return "strong" if tensorrt >= STRONG_TYPING else "weak"


def jetpack_of_l4t(release: str) -> JetPack | None:
    """Find the JetPack of a Jetson Linux version like "36.4.3", or None; the longest match counts."""
    found = [
        (len(prefix), jetpack)
        for jetpack in JETPACKS.values()
        for prefix in jetpack.l4t
        if f"{release}.".startswith(f"{prefix}.")
    ]
    return max(found, key=lambda item: item[0])[1] if found else None


def check_gpu(tensorrt: Version, compute_capability: tuple[int, int]) -> str | None:
    """Return the reason why this TensorRT has no code for such a desktop or server GPU, or None where it has."""
    floor = next((low for since, low in GPU_FLOORS if tensorrt >= since), None)
    if floor is not None and compute_capability < floor:
        return f"TensorRT {show(tensorrt)} needs compute capability {show(floor)}"
    for capability, since in GPU_CEILINGS:
        if compute_capability >= capability and tensorrt < since:
            return f"compute capability {show(capability)} and above needs TensorRT {show(since)}"
    return None


def find_tensorrt(text: str) -> Version:
    """Read --trt.

    Raises:
        ExportError: no version, or one that mdpose-edge has no recipe for.
    """
    expected = f"a version from {show(OLDEST_TENSORRT)} to {NEWEST_TENSORRT}"
    try:
        version = parse_version(text)
    except ValueError as error:
        raise ExportError("--trt", expected=expected, got=text, do="give what the device has, like 10.3") from error
    if not OLDEST_TENSORRT <= version < ABOVE_NEWEST_TENSORRT:
        raise ExportError("--trt", expected=expected, got=text, do="choose one of these, or another engine")
    return version


def find_jetpack(text: str) -> JetPack:
    """Read --jetpack.

    Raises:
        ExportError: there is no such release, or its TensorRT is too old.
    """
    if text not in JETPACKS:
        expected = f"one of {', '.join(jetpack.version for jetpack in _usable(JETPACKS.values()))}"
        raise ExportError("--jetpack", expected=expected, got=text, do="choose one of these")
    jetpack = JETPACKS[text]
    if not _usable([jetpack]):
        expected = f"one with TensorRT {show(OLDEST_TENSORRT)} or newer, which has named tensors"
        got = f"{text}, which has {jetpack.tensorrt}"
        raise ExportError("--jetpack", expected=expected, got=got, do="use JetPack 5.1 or newer")
    return jetpack


def find_device(text: str) -> Device:
    """Read --device.

    Raises:
        ExportError: there is no such device.
    """
    if text not in DEVICES:
        known = [key for key in DEVICES if any(key in jetpack.devices for jetpack in _usable(JETPACKS.values()))]
        raise ExportError("--device", expected=f"one of {', '.join(known)}", got=text, do="choose one of these")
    return DEVICES[text]


def jetson_tensorrt(jetpack: JetPack, asked: str | None) -> str:
    """Return the TensorRT of a JetPack, or the one that was asked for among those that NVIDIA publishes for it.

    Raises:
        ExportError: --trt names another.
    """
    offered = (jetpack.tensorrt, *jetpack.other_tensorrt)
    if asked is None:
        return jetpack.tensorrt
    for version in offered:
        if f"{version}.".startswith(f"{asked}."):
            return version
    expected = f"{' or '.join(offered)}, which JetPack {jetpack.version} has"
    raise ExportError("--trt", expected=expected, got=asked, do="leave it out, or change --jetpack")


def check_pair(jetpack: JetPack, device: Device) -> None:
    """Refuse a device that a JetPack does not run on.

    Raises:
        ExportError: with the releases that it does run on.
    """
    if device.key in jetpack.devices:
        return
    releases = _releases(device)
    usable = [release.version for release in _usable(releases)]
    raise ExportError(
        "--jetpack",
        expected=f"a release for {device.name}, which is {' or '.join(release.version for release in releases)}",
        got=f"{jetpack.version}, which is for {', '.join(DEVICES[key].name for key in jetpack.devices)}",
        do=f"use --jetpack {' or '.join(usable)}" if usable else _another_device(releases),
    )


def check_supported(tensorrt: Version, device: Device | None, precision: str, nvdla: int | None) -> None:
    """Refuse what no hardware or release supports.

    Args:
        tensorrt: the version to build with.
        device: the Jetson, or None for a desktop or server GPU.
        precision: "fp32", "fp16" or "int8".
        nvdla: the core to run on, or None for the GPU.

    Raises:
        ExportError: with the reason.
    """
    if precision == "int8" and device is not None and not device.int8:
        got = f"{device.name}, compute capability {show(device.compute_capability)}, which computes in FP16 and FP32"
        releases = _releases(device)
        do = "use --precision fp16" if _usable(releases) else _another_device(releases)
        raise ExportError("--precision int8", expected="a GPU with INT8 arithmetic", got=got, do=do)
    if nvdla is None:
        return
    if device is None:
        expected = "a Jetson that has the core"
        raise ExportError("--nvdla", expected=expected, got="a desktop GPU", do="leave it out, or use --target jetson")
    if nvdla not in range(device.nvdla_cores):
        cores = " or ".join(map(str, range(device.nvdla_cores)))
        expected = f"core {cores} of {device.name}" if cores else "a device with an NVDLA core"
        got = str(nvdla) if cores else f"{device.name}, which has none"
        raise ExportError("--nvdla", expected=expected, got=got, do="leave --nvdla out to use the GPU")
    if precision == "fp32":
        do = "use --precision fp16 or int8"
        raise ExportError("--precision", expected="fp16 or int8, all that NVDLA computes", got="fp32", do=do)
    if tensorrt[:2] > LAST_NVDLA_TENSORRT:
        raise ExportError(
            "--nvdla",
            expected=f"TensorRT {show(LAST_NVDLA_TENSORRT)} or older, the last that builds for NVDLA",
            got=show(tensorrt),
            do="leave --nvdla out to use the GPU, or use JetPack 5.1 to 6.2",
        )
    check_nvdla_int8("--nvdla", tensorrt, precision)


def check_nvdla_int8(where: str, tensorrt: Version, precision: str) -> None:
    """Refuse INT8 on NVDLA with a TensorRT that is known to break off there.

    Args:
        where: what the error is about.
        tensorrt: the version to build with.
        precision: "fp32", "fp16" or "int8".

    Raises:
        ExportError: with what to use instead.
    """
    if precision == "int8" and tensorrt[:2] == (10, 3):
        # NVIDIA/TensorRT#4797 and marcoslucianops/DeepStream-Yolo#585: "checkSanity.cpp::218 item.second != nullptr";
        # NVIDIA/Deep-Learning-Accelerator-SW#26: 'Tensor "input" is bound to nullptr'. All on Orin.
        raise ExportError(
            where,
            expected="a TensorRT whose INT8 without Q/DQ, which NVDLA needs, is sound",
            got="10.3, reported to break off there on Orin (NVIDIA/TensorRT#4797)",
            do="use --precision fp16, JetPack 6.0, or install TensorRT 10.7 and say --trt 10.7",
        )


def calibration_header(tensorrt: Version) -> str:
    """Return the first line of a calibration cache that a version of TensorRT accepts: its own, whatever the scales."""
    return f"TRT-{version_number(tensorrt)}-{CALIBRATION_ALGORITHM}"


def version_number(tensorrt: Version) -> int:
    """Return a version of TensorRT as one number, as its headers do: 8.5.3 is 8503, 10.3.0 is 100300."""
    major, minor, patch = (*tensorrt, 0, 0)[:3]
    return major * 1000 + minor * 100 + patch if major < 10 else major * 10000 + minor * 100 + patch


def show(version: Version) -> str:
    """Write (10, 3) as "10.3"."""
    return ".".join(map(str, version))


def _releases(device: Device) -> list[JetPack]:
    return [release for release in JETPACKS.values() if device.key in release.devices]


def _another_device(releases: Sequence[JetPack]) -> str:
    """Return the way out for a device whose releases, oldest first, are all too old."""
    last = releases[-1]
    return f"use another device: JetPack {last.version} is its last, and TensorRT {last.tensorrt} is too old"


def _usable(jetpacks: Iterable[JetPack]) -> list[JetPack]:
    return [jetpack for jetpack in jetpacks if parse_version(jetpack.tensorrt) >= OLDEST_TENSORRT]
