"""Which targets there are.

To add one: write a module in this package with the functions `measure(job)`, which finds what INT8 needs to know of the
activations, and `write(job, measured)`, and name it in TARGETS. The registry imports it only when it is asked for, so
that a device can list the targets without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdpose_edge.calib import openvino_int8
from mdpose_edge.calib.ranges import TensorRange, measure_ranges
from mdpose_edge.calib.thresholds import DEFAULT_METHOD, METHODS
from mdpose_edge.common.onnx_graph import OnnxGraph
from mdpose_edge.common.progress import Progress
from mdpose_edge.common.side_files import SUFFIX, SideFiles, write_arrays
from mdpose_edge.spec import ModelSpec

if TYPE_CHECKING:
    from mdpose_edge.calib.dataset import CalibrationSet
    from mdpose_edge.export.targets.tensorrt_options import TensorRtTarget


@dataclass(frozen=True)
class Int8:
    """How to quantize."""

    calibration: CalibrationSet
    """Known to fit the model's input."""
    method: str | None = None
    """Of choosing ranges, or None for the target's own choice."""
    keep_float: Collection[str] = ()
    """Names of convolutions to leave float."""


@dataclass(frozen=True)
class Job:
    """What a target's writer is given."""

    graph: OnnxGraph
    """The network in float32, checked. Not to be modified."""
    spec: ModelSpec
    """Of the bundle, as far as it is known: target, precision and batch are set."""
    directory: Path
    """Where its files go."""
    int8: Int8 | None = None
    """Given where the spec's precision is int8."""
    progress: Progress | None = None
    """Called with (images done, images in all) while ranges are measured."""
    tensorrt: TensorRtTarget | None = None
    """Given where the target is for TensorRT: the device's version, and the Jetson if it is one."""
    side: SideFiles = field(default_factory=dict)
    """What the decoder reads beside the spec; they go into the bundle as they are."""


@dataclass(frozen=True)
class Written:
    """What a target's writer says of its files."""

    quantization: Mapping[str, Any] | None = None
    """For `ModelSpec.quantization`; see `describe_int8`."""
    findings: Mapping[str, Any] = field(default_factory=dict)
    """For the bundle's report, as JSON."""
    opset: int | None = None
    """Of the graph, where the target chose another than export/onnx.py's."""


@dataclass(frozen=True)
class Target:
    """One kind of bundle."""

    module: str
    """Holds `measure` and `write`."""
    graph: str
    """The file that an engine opens."""
    precisions: tuple[str, ...]
    is_onnx: bool
    """Whether the graph is ONNX, whose opset the spec states."""
    methods: tuple[str, ...] = METHODS
    """Of choosing INT8 ranges."""
    compared_on: str | None = None
    """The engine that holds the graph against the network where the target's own runs on the device alone."""


_TENSORRT = Target(
    "mdpose_edge.export.targets.tensorrt",
    "model.onnx",
    ("fp32", "fp16", "int8"),
    is_onnx=True,
    compared_on="onnxruntime",
)

TARGETS = {
    "onnx": Target("mdpose_edge.export.targets.onnx", "model.onnx", ("fp32", "fp16", "int8"), is_onnx=True),
    "openvino": Target(
        "mdpose_edge.export.targets.openvino",
        "model.xml",
        ("fp32", "fp16", "int8"),
        is_onnx=False,
        methods=openvino_int8.METHODS,
    ),
    "tensorrt": _TENSORRT,
    "jetson": _TENSORRT,
}
"""By name: `ModelSpec.target`, and --target."""


def measure_target(target: Target, job: Job) -> Any:
    """Measure what a target's INT8 rests on, once for every choice of layers that stay float; None for a float job."""
    return None if job.int8 is None else import_module(target.module).measure(job)


def write_target(target: Target, job: Job, measured: Any) -> Written:
    """Write a target's files into the job's directory.

    Args:
        target: of the job.
        job: what to write.
        measured: what `measure_target` found, for this job or one that differs in `Int8.keep_float` alone.
    """
    for kind, arrays in job.side.items():
        write_arrays(job.directory / f"{kind}{SUFFIX}", arrays)
    write: Callable[[Job, Any], Written] = import_module(target.module).write
    return write(job, measured)


def measure_activations(job: Job) -> dict[str, TensorRange]:
    """Measure the range of every activation: the `measure` of targets whose quantizers take these."""
    assert job.int8 is not None
    return measure_ranges(
        job.graph,
        job.int8.calibration,
        method=job.int8.method or DEFAULT_METHOD,
        keep_float=job.int8.keep_float,
        progress=job.progress,
    )


def describe_int8(job: Job, *, scheme: str, method: str, tool: str, kept_float: Collection[str]) -> dict[str, Any]:
    """Return what `ModelSpec.quantization` says of an INT8 graph.

    Args:
        job: of the graph.
        scheme: what is int8, and how.
        method: of choosing ranges.
        tool: name and version of what placed the quantizers.
        kept_float: names of the convolutions that stayed float.
    """
    assert job.int8 is not None
    return {
        "scheme": scheme,
        "method": method,
        "tool": tool,
        "calibration_images": len(job.int8.calibration),
        "kept_float": sorted(kept_float),
    }
