"""Where inside a graph the error arises: the output of each convolution, beside that of the reference.

Engines do not show what is inside a graph, so that graphs are loaded a second time, with their convolutions' outputs
among the outputs. That keeps an engine from fusing activations into convolutions, and nothing else: scales and types
stay. Layers are known by their ONNX tensor names, which OpenVINO keeps when it reads a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.bundle import Bundle, open_bundle
from mdpose_edge.check.images import CheckImage, CheckImages
from mdpose_edge.check.measures.outputs import OutputSums, TensorError
from mdpose_edge.common.optional import require
from mdpose_edge.errors import MissingPackageError
from mdpose_edge.families.measure import same_cells
from mdpose_edge.preprocess import preprocess
from mdpose_edge.runtimes.onnxruntime_session import is_optimized, open_session
from mdpose_edge.runtimes.openvino_session import compile_graph, read_graph
from mdpose_edge.runtimes.registry import default_engine
from mdpose_edge.spec import InputSpec

LAYER_IMAGES = 4
"""Errors of millions of values: more images move the second digit."""

Tensors = Mapping[str, NDArray[Any]]
Observe = Callable[[NDArray[np.uint8]], Tensors]
"""Maps a batch of images to the tensors by name."""


@dataclass(frozen=True)
class LayerErrors:
    """How far each convolution's output is from the reference's."""

    errors: tuple[TensorError, ...]
    """In the order of the reference's graph. An error includes what the layers before passed on."""
    images: int
    note: str = ""
    """Why nothing is known."""


class _Hidden(Exception):
    """A side whose layers cannot be seen."""


def layer_name(tensor: str) -> str:
    """Name the layer that a tensor is the output of: "/head/tower.0/Conv_output_0" is of "/head/tower.0/Conv"."""
    return tensor.removesuffix("_output_0")


def layer_errors(
    candidate: str | Path,
    reference: str | Path,
    images: CheckImages,
    *,
    runtime: str | None = None,
    reference_runtime: str | None = None,
) -> LayerErrors:
    """Compare two bundles convolution by convolution, on the first LAYER_IMAGES images.

    Args:
        candidate: a bundle.
        reference: a bundle; of anything else, layers are not known.
        images: the images of the check.
        runtime: the candidate's engine, or None for its own choice.
        reference_runtime: likewise.

    Raises:
        MdposeError: an image or a bundle is unusable.
    """
    try:
        ours, theirs = _bundle(candidate), _bundle(reference)
        if not same_cells(ours.spec, theirs.spec):
            raise _Hidden("the two take inputs of different sizes, or have other levels")
        one, other = _layers(ours, runtime), _layers(theirs, reference_runtime)
        names = [name for name in other.names if name in set(one.names)]
        if not names:
            raise _Hidden("the two have no layer of the same name")
        sides = [(side.spec, layers.load(names)) for side, layers in ((ours, one), (theirs, other))]
    except (_Hidden, MissingPackageError) as reason:
        return LayerErrors((), 0, str(reason))
    sums = {name: OutputSums() for name in names}
    count = min(LAYER_IMAGES, len(images))
    for index in range(count):
        found, expected = (observe(_batch(images[index], spec.input)) for spec, observe in sides)
        for name in names:
            sums[name].add(found[name][0], expected[name][0])
    return LayerErrors(tuple(sums[name].error(name) for name in names), count)


@dataclass(frozen=True)
class _Layers:
    """The convolutions of one graph."""

    names: list[str]
    """Of their output tensors, bias included, in graph order."""
    load: Callable[[list[str]], Observe]
    """Loads the graph with these as outputs."""


def _bundle(model: str | Path) -> Bundle:
    if not Path(model).is_dir():
        raise _Hidden(f"{Path(model).name} is no bundle, and shows its outputs alone")
    return open_bundle(model)


def _layers(bundle: Bundle, runtime: str | None) -> _Layers:
    engine = runtime or default_engine(bundle.spec.target, str(bundle.path))
    if engine == "onnxruntime":
        return _of_onnx(bundle)
    if engine == "openvino":
        return _of_openvino(bundle)
    raise _Hidden(f"{engine} shows its outputs alone")


def _of_onnx(bundle: Bundle) -> _Layers:
    onnx = require("onnx", extra="export", feature="errors by layer")
    model = onnx.load(str(bundle.graph))

    def load(names: list[str]) -> Observe:
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        session = open_session(
            model.SerializeToString(),
            where=str(bundle.path),
            feature="errors by layer",
            optimized=is_optimized(bundle.spec.target),  # as the adapter runs it
        )
        feed = bundle.spec.input.name
        return lambda images: dict(zip(names, session.run(names, {feed: images}), strict=True))

    return _Layers([node.output[0] for node in model.graph.node if node.op_type == "Conv"], load)


def _of_openvino(bundle: Bundle) -> _Layers:
    graph = read_graph(bundle.graph, where=str(bundle.path), feature="errors by layer")

    def load(names: list[str]) -> Observe:
        graph.add_outputs(names)
        compiled = compile_graph(graph, where=str(bundle.path))
        request = compiled.create_infer_request()
        index = {name: i for i, port in enumerate(compiled.outputs) for name in port.get_names()}

        def observe(images: NDArray[np.uint8]) -> Tensors:
            results = request.infer([images])
            return {name: results[index[name]] for name in names}

        return observe

    convolutions = [op for op in graph.get_ordered_ops() if "Convolution" in op.get_type_name()]
    return _Layers([name for op in convolutions if (name := _tensor_name(op.output(0)))], load)


def _tensor_name(port: Any) -> str | None:
    """Return the name that a convolution's output has in ONNX; with a bias, it is on the Add that follows."""
    names: set[str] = port.get_names()
    if not names:
        # Others may read the shape, of which an ONNX graph computes that of the bias.
        readers = [target.get_node() for target in port.get_target_inputs()]
        names = {name for reader in readers if reader.get_type_name() == "Add" for name in reader.output(0).get_names()}
    return min(names, default=None)


def _batch(image: CheckImage, spec: InputSpec) -> NDArray[np.uint8]:
    """Preprocess a image into the first slot of a batch."""
    images = np.zeros((spec.batch, spec.height, spec.width, 3), np.uint8)
    preprocess(image.pixels, spec, out=images[0])
    return images
