"""Which layers would leave NVDLA, and why: without a device, from the documented limits in limits.py.

TensorRT decides on the device, and `mdpose-edge build` then compares; this is what is known before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mdpose_edge.bundle import Bundle, open_bundle
from mdpose_edge.common.onnx_graph import OnnxGraph
from mdpose_edge.common.optional import require
from mdpose_edge.common.union_find import UnionFind
from mdpose_edge.errors import ExportError
from mdpose_edge.nvdla.limits import EngineSettings, check_no_qdq, judge
from mdpose_edge.trt.platforms import DEVICES, LAST_NVDLA_TENSORRT, Version, check_nvdla_int8, show
from mdpose_edge.trt.recipe import TARGETS, Recipe, read_recipe

if TYPE_CHECKING:
    import onnx

MAX_LOADABLES = 16
"""That a core holds at a time (TensorRT's guide)."""


@dataclass(frozen=True)
class Placement:
    """Where one node runs."""

    node: str
    op: str
    place: Literal["nvdla", "gpu", "unsure"]
    reason: str
    """Why not on NVDLA; "" where it does run there."""
    macs: int
    """Multiply-adds of a convolution, 0 for all else."""


@dataclass(frozen=True)
class DryRun:
    """What was found out about a graph."""

    precision: str
    tensorrt: str
    placements: tuple[Placement, ...]
    loadables: int
    """Parts that NVDLA runs as a whole; what is unsure is taken to be on the GPU."""
    notes: tuple[str, ...]
    """What else a reader should know, one sentence each."""

    @property
    def off_nvdla(self) -> tuple[Placement, ...]:
        """The nodes that are not, or not surely, on NVDLA."""
        return tuple(item for item in self.placements if item.place != "nvdla")

    @property
    def share_of_macs(self) -> float:
        """How much of the convolutions' arithmetic is on NVDLA."""
        total = sum(item.macs for item in self.placements)
        return sum(item.macs for item in self.placements if item.place == "nvdla") / total if total else 0.0

    def to_json_dict(self) -> dict[str, Any]:
        """Return all of it, ready for json.dump."""
        return {**asdict(self), "share_of_macs": self.share_of_macs}


@dataclass(frozen=True)
class Source:
    """A graph, and what is known of its purpose."""

    graph: OnnxGraph
    recipe: Recipe | None = None
    """Of a bundle that was exported for a Jetson."""


def load_source(source: Path) -> Source:
    """Load the ONNX graph of a bundle, or an ONNX file.

    Raises:
        ExportError: there is no ONNX graph there, or the bundle is for a machine or a TensorRT without NVDLA.
        BundleError, SpecError: the bundle cannot be opened.
        MissingPackageError: onnx is not installed.
    """
    onnx: Any = require("onnx", extra="export", feature="a dry run for NVDLA")
    protobuf = require("google.protobuf.message", extra="export", feature="a dry run for NVDLA")
    bundle = None if source.suffix == ".onnx" else open_bundle(source)
    recipe = None if bundle is None else _jetson_recipe(bundle)
    path = source if bundle is None else bundle.graph
    if path.suffix != ".onnx":
        do = "export one with --target onnx"
        raise ExportError(str(source), expected="an ONNX graph", got=path.name, do=do)
    try:
        model = onnx.load(path)
    except (OSError, protobuf.DecodeError) as error:
        raise _unreadable(path, str(error)) from error
    if not model.graph.node:
        raise _unreadable(path, "no nodes")
    return Source(OnnxGraph(model), recipe)


def _jetson_recipe(bundle: Bundle) -> Recipe | None:
    """Read what a bundle was exported for, None if for no device; refuse what can never run on NVDLA."""
    if bundle.spec.target not in TARGETS:
        return None
    recipe, where = read_recipe(bundle), str(bundle.path)
    device = None if recipe.jetson is None else DEVICES[recipe.jetson.device]
    if device is None or not device.nvdla_cores:
        keys = ", ".join(key for key, other in DEVICES.items() if other.nvdla_cores)
        expected = f"a bundle for a device with an NVDLA core ({keys})"
        got = "one for desktop GPUs" if device is None else f"one for {device.name}, which has none"
        raise ExportError(where, expected=expected, got=got, do="export it for one of these, or with --target onnx")
    if recipe.typing == "strong":
        expected = f"a bundle for TensorRT {show(LAST_NVDLA_TENSORRT)} or older, the last that builds for NVDLA"
        got, do = f"a strongly typed one for {recipe.tensorrt.at_least}", "export it again for JetPack 5.1 to 6.2"
        raise ExportError(where, expected=expected, got=got, do=do)
    return recipe


def check_tensorrt(version: Version) -> Version:
    """Refuse a version of TensorRT that does not build for NVDLA.

    Raises:
        ExportError: it is too new.
    """
    if version[:2] > LAST_NVDLA_TENSORRT:
        expected = f"TensorRT {show(LAST_NVDLA_TENSORRT)} or older, the last that builds for NVDLA"
        raise ExportError("--trt", expected=expected, got=show(version), do="choose one of JetPack 5.1 to 6.2")
    return version


def dry_run(graph: OnnxGraph, *, precision: str, tensorrt: Version) -> DryRun:
    """Place the nodes of a graph.

    Args:
        graph: in float, without Q/DQ.
        precision: "fp16" or "int8".
        tensorrt: the version that would build it.

    Raises:
        ExportError: NVDLA does not compute in this precision, this TensorRT does not build for it or breaks off in
            INT8, or the graph has Q/DQ.
        MissingPackageError: onnx is not installed.
    """
    kind: Literal["fp16", "int8"]
    if precision == "fp16":
        kind = "fp16"
    elif precision == "int8":
        kind = "int8"
    else:
        expected, do = "fp16 or int8, all that NVDLA computes", "use --precision fp16 or int8"
        raise ExportError("--precision", expected=expected, got=precision, do=do)
    check_tensorrt(tensorrt)
    check_no_qdq(graph)
    check_nvdla_int8("NVDLA", tensorrt, precision)
    placements = tuple(_place(graph, node, EngineSettings(kind, tensorrt)) for node in graph.nodes)
    loadables = _count_loadables(graph, placements)
    return DryRun(kind, show(tensorrt), placements, loadables, tuple(_notes(graph, placements, loadables, kind)))


def _place(graph: OnnxGraph, node: onnx.NodeProto, settings: EngineSettings) -> Placement:
    verdict = judge(graph, node, settings)
    name = node.name or node.output[0]
    return Placement(name, node.op_type, verdict.place, verdict.reason, _macs(graph, node))


def _macs(graph: OnnxGraph, node: onnx.NodeProto) -> int:
    if node.op_type != "Conv":
        return 0
    return math.prod(graph.shapes[node.output[0]]) * math.prod(graph.shapes[node.input[1]][1:])


def _count_loadables(graph: OnnxGraph, placements: tuple[Placement, ...]) -> int:
    """Count the connected parts of NVDLA nodes between which data passes through the GPU.

    A node's phase is how often the longest way to it changes sides: parts of different phases cannot be one loadable,
    or it would wait for its own output. TensorRT may split further; it cannot join more.
    """
    on_core = [item.place == "nvdla" for item in placements]
    phases: list[int] = []
    parts = UnionFind[int]()
    producer = {name: number for number, node in enumerate(graph.nodes) for name in node.output}
    for number, node in enumerate(graph.nodes):
        sources = sorted({producer[name] for name in node.input if name in producer})
        # The graph's inputs come from the GPU's side.
        phase = max((phases[s] + (on_core[s] != on_core[number]) for s in sources), default=int(on_core[number]))
        phases.append(phase)
        for source in sources:
            if on_core[number] and on_core[source] and phases[source] == phase:
                parts.union((source, number))
    return len({parts.find(number) for number in range(len(placements)) if on_core[number]})


def _notes(
    graph: OnnxGraph, placements: tuple[Placement, ...], loadables: int, precision: Literal["fp16", "int8"]
) -> Iterator[str]:
    if loadables > MAX_LOADABLES:
        yield f"{loadables} loadables: a core holds {MAX_LOADABLES} at a time"
    gated = sum(_is_silu(graph, node) for node in graph.nodes)
    if gated and precision == "int8":
        yield (
            f"{gated} SiLUs (x * sigmoid(x)): in INT8 a product's inputs take the larger range, so that the sigmoid's"
            " values in [0, 1] get the steps of x; in FP16 they keep theirs"
        )


def _is_silu(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    if node.op_type != "Mul":
        return False
    sources = [graph.producer[name] for name in node.input if name in graph.producer]
    return any(source.op_type == "Sigmoid" and source.input[0] in node.input for source in sources)


def _unreadable(path: Path, got: str) -> ExportError:
    return ExportError(str(path), expected="an ONNX graph", got=got, do="export it again")
