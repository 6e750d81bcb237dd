from __future__ import annotations

from dataclasses import replace

import pytest

from mdpose_edge.errors import ExportError
from mdpose_edge.trt import platforms
from mdpose_edge.trt.platforms import (
    DEVICES,
    JETPACKS,
    check_pair,
    check_supported,
    find_device,
    find_jetpack,
    jetson_tensorrt,
)


@pytest.mark.parametrize(
    ("jetpack", "device", "tensorrt", "typing", "python"),
    [
        ("5.1", "xavier-nx", "8.5.2", "weak", "3.8"),
        ("5.1", "orin-nano", "8.5.2", "weak", "3.8"),
        ("6.0", "agx-orin", "8.6.2", "weak", "3.10"),
        ("6.1", "orin-nx", "10.3.0", "weak", "3.10"),
        ("6.2", "orin-nano", "10.3.0", "weak", "3.10"),
        ("7.0", "thor", "10.13.0", "strong", "3.12"),
        ("7.1", "thor", "10.13.0", "strong", "3.12"),
        ("7.2", "agx-orin", "10.16.2", "strong", "3.12"),
    ],
)
def test_a_release_brings_its_tensorrt(jetpack: str, device: str, tensorrt: str, typing: str, python: str) -> None:
    release = find_jetpack(jetpack)
    check_pair(release, find_device(device))
    assert jetson_tensorrt(release, None) == release.tensorrt == tensorrt
    assert platforms.typing_of(platforms.parse_version(tensorrt)) == typing
    assert release.python == python


@pytest.mark.parametrize(
    ("device", "cores", "memory", "capability"),
    [
        ("orin-nano", 0, 4, (8, 7)),
        ("orin-nx", 2, 8, (8, 7)),
        ("agx-orin", 2, 32, (8, 7)),
        ("xavier-nx", 2, 8, (7, 2)),
        ("agx-xavier", 2, 16, (7, 2)),
        ("thor", 0, 64, (11, 0)),
    ],
)
def test_a_device_has_its_cores_and_memory(device: str, cores: int, memory: int, capability: tuple[int, int]) -> None:
    found = find_device(device)
    assert (found.nvdla_cores, found.memory_gib, found.compute_capability) == (cores, memory, capability)


def test_every_device_of_a_release_is_in_the_table_and_the_reverse() -> None:
    assert {key for jetpack in JETPACKS.values() for key in jetpack.devices} == DEVICES.keys()


@pytest.mark.parametrize(
    ("l4t", "jetpack"),
    [
        ("35.4.1", "5.1"),
        ("35.6.1", "5.1"),
        ("36.3.0", "6.0"),
        ("36.4.0", "6.1"),
        ("36.4.3", "6.2"),
        ("36.4.7", "6.2"),
        ("36.5.0", "6.2"),
        ("38.2.1", "7.0"),
        ("38.4.0", "7.1"),
        ("39.2.0", "7.2"),
        ("32.7.6", "4.6"),
    ],
)
def test_a_release_of_jetson_linux_has_its_jetpack(l4t: str, jetpack: str) -> None:
    found = platforms.jetpack_of_l4t(l4t)
    assert found is not None
    assert found.version == jetpack


def test_a_release_that_the_table_lacks_has_no_jetpack() -> None:
    assert platforms.jetpack_of_l4t("99.1.0") is None
    assert platforms.jetpack_of_l4t("unknown") is None


@pytest.mark.parametrize(
    ("tensorrt", "device", "precision", "nvdla", "message"),
    [
        pytest.param("8.5.2", "orin-nano", "int8", 0, "got Jetson Orin Nano, which has none", id="no NVDLA"),
        pytest.param("10.13.0", "thor", "fp16", 0, "got Jetson Thor, which has none", id="no NVDLA on Thor"),
        pytest.param("8.5.2", "agx-orin", "fp16", 2, "core 0 or 1 of Jetson AGX Orin, got 2", id="no third core"),
        pytest.param("8.5.2", "tx2", "int8", None, "compute capability 6.2, which computes in FP16", id="INT8 on TX2"),
        pytest.param("8.5.2", "nano", "int8", None, "expected a GPU with INT8 arithmetic", id="INT8 on Nano"),
        pytest.param("10.16.2", "agx-orin", "int8", 0, "10.7 or older, the last that builds for NVDLA", id="too new"),
        pytest.param("10.3.0", "agx-orin", "int8", 0, "got 10.3, reported to break off there", id="10.3 known bad"),
        pytest.param("8.6.2", "agx-orin", "fp32", 1, "fp16 or int8, all that NVDLA computes", id="NVDLA in fp32"),
        pytest.param("8.5", None, "int8", 0, "a Jetson that has the core, got a desktop GPU", id="NVDLA on a desktop"),
    ],
)
def test_the_impossible_is_refused_with_the_reason(
    tensorrt: str, device: str | None, precision: str, nvdla: int | None, message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        check_supported(platforms.parse_version(tensorrt), DEVICES[device] if device else None, precision, nvdla)


@pytest.mark.parametrize(
    ("tensorrt", "device", "precision", "nvdla"),
    [
        ("8.5.2", "xavier-nx", "int8", 1),
        ("8.6.2", "agx-orin", "int8", 0),
        ("10.3.0", "agx-orin", "fp16", 0),
        ("10.7.0", "orin-nx", "int8", 1),
        ("10.3.0", "orin-nano", "int8", None),
        ("8.5", None, "int8", None),
    ],
)
def test_the_possible_passes(tensorrt: str, device: str | None, precision: str, nvdla: int | None) -> None:
    check_supported(platforms.parse_version(tensorrt), DEVICES[device] if device else None, precision, nvdla)


@pytest.mark.parametrize(
    ("jetpack", "device", "message"),
    [
        ("6.2", "tx2", "use another device: JetPack 4.6 is its last, and TensorRT 8.2.1 is too old"),
        ("6.2", "xavier-nx", "which is 4.6 or 5.1, got 6.2, .*; use --jetpack 5.1"),
        ("7.1", "agx-orin", "got 7.1, which is for Jetson Thor; use --jetpack 5.1 or 6.0 or 6.1 or 6.2 or 7.2"),
        ("5.1", "thor", "use --jetpack 7.0 or 7.1 or 7.2"),
    ],
)
def test_a_device_and_a_release_that_do_not_go_together(jetpack: str, device: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        check_pair(JETPACKS[jetpack], DEVICES[device])


def test_the_way_out_of_int8_is_not_refused_itself() -> None:
    for key in ("tx2", "nano"):
        with pytest.raises(ExportError, match=r"; use another device: JetPack 4\.6 is its last, and TensorRT 8\.2\.1"):
            check_supported((8, 5), DEVICES[key], "int8", None)
    with pytest.raises(ExportError, match="; use --precision fp16"):
        check_supported((8, 5), replace(DEVICES["orin-nano"], int8=False), "int8", None)


def test_words_that_are_not_in_the_table_name_those_that_are() -> None:
    with pytest.raises(ExportError, match=r"one of 5\.1, 6\.0, 6\.1, 6\.2, 7\.0, 7\.1, 7\.2, got 5"):
        find_jetpack("5")
    with pytest.raises(ExportError, match=r"named tensors, got 4\.6, which has 8\.2\.1"):
        find_jetpack("4.6")
    with pytest.raises(ExportError, match="one of orin-nano, orin-nx, agx-orin, xavier-nx, agx-xavier, thor, got orin"):
        find_device("orin")


def test_another_tensorrt_of_the_same_jetpack_can_be_asked_for() -> None:
    assert jetson_tensorrt(JETPACKS["6.2"], "10.7") == "10.7.0"
    assert jetson_tensorrt(JETPACKS["6.2"], "10.3") == "10.3.0"
    with pytest.raises(ExportError, match=r"10\.3\.0 or 10\.7\.0, which JetPack 6\.2 has, got 10\.30"):
        jetson_tensorrt(JETPACKS["6.2"], "10.30")


@pytest.mark.parametrize(("text", "version"), [("8.5", (8, 5)), ("11", (11,)), ("10.3.0.26", (10, 3, 0, 26))])
def test_versions_in_range_are_read(text: str, version: tuple[int, ...]) -> None:
    assert platforms.find_tensorrt(text) == version


@pytest.mark.parametrize("text", ["8.4", "12", "8", "ten", "", "10."])
def test_versions_out_of_range_are_refused(text: str) -> None:
    with pytest.raises(ExportError, match=r"--trt: expected a version from 8\.5 to 11"):
        platforms.find_tensorrt(text)


@pytest.mark.parametrize(
    ("tensorrt", "capability", "reason"),
    [
        ((8, 5, 3), (9, 0), None),
        ((8, 5, 3), (3, 7), "TensorRT 8.5.3 needs compute capability 5.0"),
        ((10, 5), (7, 0), "TensorRT 10.5 needs compute capability 7.5"),
        ((10, 3), (7, 0), None),
        ((10, 3), (12, 0), "compute capability 10.0 and above needs TensorRT 10.8"),
        ((10, 8), (12, 0), None),
    ],
)
def test_a_gpu_too_old_or_too_new_has_its_reason(
    tensorrt: tuple[int, ...], capability: tuple[int, int], reason: str | None
) -> None:
    assert platforms.check_gpu(tensorrt, capability) == reason
