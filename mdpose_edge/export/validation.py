"""What an export is told of validation data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mdpose_edge.check.images import images_of
from mdpose_edge.check.limits import Limits
from mdpose_edge.check.measures.accuracy import AccuracyLimits
from mdpose_edge.common.optional import require
from mdpose_edge.errors import ConfigError, ExportError
from mdpose_edge.export.targets.tensorrt_options import TensorRtTarget
from mdpose_edge.spec import ModelSpec
from mdpose_edge.trt.platforms import show, typing_of


@dataclass(frozen=True)
class GateOptions:
    """On what the gate runs within an export, and by which budget."""

    data: str | Path
    """A dataset's folder (docs/data.md), or one of plain images, on which accuracy is not measured."""
    split: str = "val"
    limit: int | None = None
    """Only the first so many images."""
    max_drop: float | None = None
    """AP points that may be lost; given, it also turns accuracy control on for INT8. None: the gate's own limit."""
    report: Path | None = None
    """A folder for the gate's page, written whether it holds or not."""
    data_format: str | None = None
    """"coco", "crowdpose", "ochuman", "instances", or None to take the only one that is there."""

    @property
    def limits(self) -> Limits:
        """What the gate holds figures against."""
        return Limits() if self.max_drop is None else Limits(AccuracyLimits(self.max_drop))

    @property
    def where(self) -> str:
        """Say what the images are, without a path of this machine."""
        return f"{Path(self.data).resolve().name}, {self.split}"

    def check(self, spec: ModelSpec) -> None:
        """Refuse, before minutes of work, what could not be measured on.

        Args:
            spec: of the model.

        Raises:
            MdposeError: the images cannot be used, a budget of AP is asked for where there are no annotations, or the
                report has no place.
        """
        if images_of(self.data, self.split, self.limit, self.data_format, spec).split is not None:
            require("faster_coco_eval", extra="eval", feature="a check on annotated images")
        elif self.max_drop is not None:
            expected, do = "annotated --val-data", "leave --max-drop out, or give a dataset's folder"
            raise ConfigError("--max-drop", expected=expected, got=f"plain images in {self.data}", do=do)
        _ = self.limits  # checked as they are made
        if self.report is not None and self.report.exists() and not self.report.is_dir():
            expected, do = "a folder for the page, or a new path", "choose another path"
            raise ConfigError("--report", expected=expected, got=f"the file {self.report}", do=do)


def check_measurable_here(target: str, precision: str, device: TensorRtTarget | None) -> None:
    """Refuse to measure a float32 graph in the name of a precision that only the device gives it.

    Args:
        target: --target.
        precision: of the bundle.
        device: what the device is, for TensorRT.

    Raises:
        ExportError: the graph does not state the precision.
    """
    if device is None or precision == "fp32":
        return
    if device.nvdla_core is not None:
        giver = f"NVDLA, which makes a float32 graph {precision} on the device"
    elif precision == "fp16" and typing_of(device.version) == "weak":
        giver = f"TensorRT {show(device.version)}, which makes a float32 graph fp16 on the device"
    else:
        return
    raise ExportError(
        f"--val-data with --target {target} --precision {precision}",
        expected="a graph that states its precision, so that this machine can measure it",
        got=giver,
        do="leave --val-data and its options out, and run mdpose-edge check on the device",
    )
