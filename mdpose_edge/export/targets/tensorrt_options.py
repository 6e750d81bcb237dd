"""What an export for TensorRT decides beforehand, so that the device decides nothing: see trt/recipe.py."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mdpose_edge.errors import ExportError
from mdpose_edge.spec import Precision
from mdpose_edge.trt.platforms import (
    ABOVE_NEWEST_TENSORRT,
    NEWEST_TENSORRT,
    OLDEST_TENSORRT,
    STRONG_TYPING,
    Device,
    Version,
    check_pair,
    check_supported,
    find_device,
    find_jetpack,
    find_tensorrt,
    jetson_tensorrt,
    parse_version,
    show,
    typing_of,
)
from mdpose_edge.trt.recipe import (
    CALIBRATION_FILE,
    RECIPE_VERSION,
    FallbackLimits,
    JetsonRecipe,
    Recipe,
    SelfTest,
    TensorRtRange,
)

DEFAULT_JETPACK, DEFAULT_DEVICE = "6.2", "orin-nano"
"""The smallest Orin: what is made for it builds on every Orin with that JetPack, in a workspace that fits them all."""
WORKSPACE_SHARE = 4
"""A kernel's workspace is a quarter of the memory of the family's smallest module, up to LARGEST_WORKSPACE_MIB."""
LARGEST_WORKSPACE_MIB = 4096
"""TensorRT's own default is all of the memory, which on a Jetson is the CPU's too."""
TIMING_CACHE = "timing-{tensorrt}-{gpu}"

LIMITS = FallbackLimits(other_precision=0.05, off_nvdla=0.0)
"""One convolution in twenty may be wider than asked for: weak typing lets TensorRT take what is faster, and on small
maps that is sometimes the wider one. NVDLA takes every convolution of our networks, by its documented limits."""

SELF_TESTS: Mapping[Precision, SelfTest] = {
    "fp32": SelfTest(largest_error=1e-3, mean_error=1e-3),
    "fp16": SelfTest(largest_error=2e-2, mean_error=1e-2),
    "int8": SelfTest(largest_error=0.5, mean_error=0.2),
}
"""See docs/decisions/0009-tensorrt.md for what these are made of. INT8 is held against the Q/DQ graph on onnxruntime,
so that it need not allow for what quantization costs, only for values that another engine rounds the other way."""


@dataclass(frozen=True)
class TensorRtTarget:
    """What an engine is built for, in the table's terms."""

    tensorrt: str
    """The very version on a Jetson; elsewhere the one that was named."""
    range: TensorRtRange
    device: Device | None
    jetson: JetsonRecipe | None

    @property
    def version(self) -> Version:
        """The TensorRT to make the graph for."""
        return parse_version(self.tensorrt)

    @property
    def nvdla_core(self) -> int | None:
        """The core to build for, or None for the GPU."""
        return None if self.jetson is None else self.jetson.nvdla_core


def find_tensorrt_target(
    target: str,
    precision: str,
    *,
    trt: str | None = None,
    jetpack: str | None = None,
    device: str | None = None,
    nvdla: int | None = None,
) -> TensorRtTarget:
    """Find what the options of an export mean, or why they cannot be met.

    Args:
        target: "tensorrt" or "jetson".
        precision: "fp32", "fp16" or "int8".
        trt: the device's TensorRT; None for the newest, or the JetPack's.
        jetpack: for "jetson".
        device: for "jetson".
        nvdla: the core to run on, or None for the GPU.

    Raises:
        ExportError: with the reason.
    """
    if target == "tensorrt":
        for option, value in {"jetpack": jetpack, "device": device}.items():
            if value is not None:
                do = "use --target jetson, or leave it out"
                raise ExportError(f"--{option}", expected="--target jetson", got="--target tensorrt", do=do)
        version = find_tensorrt(trt or NEWEST_TENSORRT)
        check_supported(version, None, precision, nvdla)
        return TensorRtTarget(show(version), _typing_range(version), None, None)
    return _find_jetson(precision, trt, jetpack or DEFAULT_JETPACK, device or DEFAULT_DEVICE, nvdla)


def _find_jetson(
    precision: str, trt: str | None, jetpack_name: str, device_name: str, nvdla: int | None
) -> TensorRtTarget:
    device = find_device(device_name)
    if precision == "int8" and not device.int8:
        check_supported(OLDEST_TENSORRT, device, precision, None)
    jetpack = find_jetpack(jetpack_name)
    check_pair(jetpack, device)
    tensorrt = jetson_tensorrt(jetpack, trt)
    check_supported(parse_version(tensorrt), device, precision, nvdla)
    jetson = JetsonRecipe(jetpack.version, device.key, device.compute_capability, nvdla)
    exact = nvdla is not None and precision == "int8"  # a calibration cache is for one version alone
    return TensorRtTarget(tensorrt, _release_range(tensorrt, exact), device, jetson)


def make_recipe(
    target: TensorRtTarget, precision: Precision, *, convolutions: Collection[str], kept_float: Collection[str]
) -> Recipe:
    """Write down what the device must do.

    Args:
        target: what the engine is built for.
        precision: asked for.
        convolutions: names of the ONNX nodes that are convolutions.
        kept_float: of these, the ones that int8 leaves in fp16.
    """
    core = target.nvdla_core
    typing = typing_of(target.version)
    others: Precision = "fp16" if precision == "int8" else precision
    return Recipe(
        recipe_version=RECIPE_VERSION,
        tensorrt=target.range,
        typing=typing,
        precision=precision,
        flags=_flags(precision, core) if typing == "weak" else (),
        cleared_flags=("TF32",) if precision == "fp32" else (),
        workspace_mib=_workspace_mib(target.device),
        timing_cache=TIMING_CACHE,
        jetson=target.jetson,
        calibration=CALIBRATION_FILE if core is not None and precision == "int8" else None,
        convolutions={name: others if name in kept_float else precision for name in convolutions},
        limits=LIMITS,
        self_test=SELF_TESTS[precision],
    )


def _flags(precision: Precision, nvdla_core: int | None) -> tuple[str, ...]:
    """Name the flags of weak typing. INT8 needs its flag even where Q/DQ say all, and FP16 is for what stays float."""
    flags = {"fp32": (), "fp16": ("FP16",), "int8": ("FP16", "INT8")}[precision]
    return (*flags, "GPU_FALLBACK") if nvdla_core is not None else flags


def _workspace_mib(device: Device | None) -> int:
    if device is None:
        return LARGEST_WORKSPACE_MIB
    return min(LARGEST_WORKSPACE_MIB, device.memory_gib * 1024 // WORKSPACE_SHARE)


def _typing_range(version: Version) -> TensorRtRange:
    """Return all versions that read the same graph in the same way."""
    if typing_of(version) == "strong":
        return TensorRtRange(show(STRONG_TYPING), show(ABOVE_NEWEST_TENSORRT))
    return TensorRtRange(show(OLDEST_TENSORRT), show(STRONG_TYPING))


def _release_range(tensorrt: str, exact: bool) -> TensorRtRange:
    """Return the versions that differ from a JetPack's in the last number at most, or in none."""
    major, minor, patch = parse_version(tensorrt)[:3]
    if exact:
        return TensorRtRange(tensorrt, show((major, minor, patch + 1)))
    return TensorRtRange(show((major, minor)), show((major, minor + 1)))
