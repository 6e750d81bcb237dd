"""What an export is told, and which of it goes together: the same for the command line and for Python."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

from mdpose_edge.errors import ConfigError, ExportError
from mdpose_edge.export.targets.registry import TARGETS, Target
from mdpose_edge.export.targets.tensorrt_options import TensorRtTarget, find_tensorrt_target
from mdpose_edge.export.validation import GateOptions, check_measurable_here
from mdpose_edge.spec import Precision
from mdpose_edge.trt.recipe import TARGETS as TENSORRT_TARGETS

TRITON = "triton"
"""The target that is no graph of its own, but the model repository of an onnx bundle."""
_DEVICE_OPTIONS = ("trt", "jetpack", "device", "nvdla")


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export. Each has the name of the command's own, and errors name it as it is typed there.

    Raises:
        ExportError: no such target or precision, or one that the device has not.
        ConfigError: options that do not go together, or that are out of range.
    """

    target: str
    """"onnx", "openvino", "tensorrt", "jetson", or "triton": the model repository of an onnx bundle."""
    precision: str | None = None
    """"fp32"; "fp16": weights in float16, and in an ONNX graph the arithmetic too; "int8": docs/int8.md has the form of
    each target. None: fp16 for tensorrt and jetson, else fp32. The input stays uint8 and the outputs float32."""
    batch: int = 1
    """Images per call; the graph's shapes are static."""
    calib: str | Path | None = None
    """A calibration set's folder: for int8, and for nothing else."""
    calib_method: str | None = None
    """Of choosing ranges, or None for what measured best for the target."""
    keep_float: Collection[str] = ()
    """Names of convolutions that int8 leaves float."""
    allow_few: bool = False
    """Take a calibration set of fewer than MIN_IMAGES."""
    trt: str | None = None
    """The device's TensorRT, like "10.3"; None for the newest, or for the JetPack's."""
    jetpack: str | None = None
    device: str | None = None
    """The Jetson; None for the smallest Orin, which suits every Orin."""
    nvdla: int | None = None
    """The NVDLA core to run on, or None for the GPU."""
    val_data: str | Path | None = None
    """Data for the gate, which then decides whether the bundle appears; None measures no accuracy."""
    val_split: str = "val"
    val_format: str | None = None
    """"coco", "crowdpose", "ochuman", or None to take the only one that is there."""
    val_limit: int | None = None
    """Only the first so many images."""
    max_drop: float | None = None
    """AP points that may be lost; given, it also turns accuracy control on for int8. None: the gate's own limit."""
    report: str | Path | None = None
    """A folder for the gate's page, written whether it holds or not."""

    def __post_init__(self) -> None:
        self._check_names()
        self._check_companions()
        self._check_device()
        self._check_int8()
        if self.validation is not None:
            _ = self.validation.limits  # checked as they are made
            check_measurable_here(self.bundle_target, self.chosen_precision, self.tensorrt)

    @property
    def bundle_target(self) -> str:
        """The target of the bundle: `ModelSpec.target`."""
        return "onnx" if self.target == TRITON else self.target

    @property
    def chosen_precision(self) -> Precision:
        """The precision asked for, or else the target's own."""
        return cast(Precision, self.precision or ("fp16" if self.target in TENSORRT_TARGETS else "fp32"))

    @property
    def form(self) -> Target:
        """How the target's bundles are made."""
        return TARGETS[self.bundle_target]

    @cached_property
    def tensorrt(self) -> TensorRtTarget | None:
        """What the device is, for the targets tensorrt and jetson."""
        if self.target not in TENSORRT_TARGETS:
            return None
        options = {name: getattr(self, name) for name in _DEVICE_OPTIONS}
        return find_tensorrt_target(self.target, self.chosen_precision, **options)

    @property
    def validation(self) -> GateOptions | None:
        """On what the gate runs, if it does."""
        if self.val_data is None:
            return None
        page = None if self.report is None else Path(self.report)
        return GateOptions(self.val_data, self.val_split, self.val_limit, self.max_drop, page, self.val_format)

    def _check_names(self) -> None:
        targets = (*TARGETS, TRITON)
        if self.target not in targets:
            expected, do = f"one of {', '.join(targets)}", "choose one of these"
            raise ExportError("--target", expected=expected, got=self.target, do=do)
        if self.chosen_precision not in self.form.precisions:
            expected, do = f"one of {', '.join(self.form.precisions)}", "choose one of these"
            raise ExportError("--precision", expected=expected, got=self.chosen_precision, do=do)

    def _check_companions(self) -> None:
        """Refuse options that mean nothing without another, or with this target."""
        if self.val_data is None:
            self._need("validation data", "--val-data DIR", "max_drop", "report", "val_limit", "val_format")
        if self.calib is None:
            self._need("a calibration set", "--calib CALIB", "calib_method", "keep_float", "allow_few")
        if self.target == TRITON and self.batch != 1:
            do = "leave it out; mdpose-edge triton has --max-batch"
            raise ConfigError("--batch", expected="none: Triton batches by itself", got=str(self.batch), do=do)

    def _check_int8(self) -> None:
        precision, methods = self.chosen_precision, self.form.methods
        if precision == "int8" and self.calib is None:
            do = "make one with mdpose-edge calib make, and pass --calib CALIB"
            raise ExportError("--precision int8", expected="a calibration set", got="none", do=do)
        if precision != "int8" and self.calib is not None:
            expected, do = "--precision int8 with a calibration set", "add it, or leave --calib out"
            raise ExportError("--calib", expected=expected, got=f"--precision {precision}", do=do)
        if self.calib_method is not None and self.calib_method not in methods:
            expected, do = f"one of {', '.join(methods)}", "choose one of these, or another target"
            raise ConfigError("--calib-method", expected=expected, got=self.calib_method, do=do)

    def _check_device(self) -> None:
        if self.tensorrt is not None:  # the rest was checked as it was found
            return
        for name in _DEVICE_OPTIONS:
            if getattr(self, name) is not None:
                expected = "--target tensorrt or jetson" if name == "trt" else "--target jetson"
                raise ConfigError(f"--{name}", expected=expected, got=f"--target {self.target}", do="leave it out")

    def _need(self, expected: str, option: str, *names: str) -> None:
        """Refuse options that were given without what they are about."""
        given = [name for name in names if _is_given(getattr(self, name))]
        if given:
            where = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            them = "it" if len(given) == 1 else "them"
            raise ConfigError(where, expected=expected, got="none", do=f"pass {option}, or leave {them} out")


def _is_given(value: object) -> bool:
    """Tell an option that was given from its default; 0 is given."""
    return not (value is None or value is False or (isinstance(value, Collection) and not value))
