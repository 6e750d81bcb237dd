"""The network as an ONNX graph that the oldest target reads: opset 17, IR version 8, TensorRT 8.5's parser.

Which of torch's exporters makes it, and why: docs/decisions/0004-onnx-exporter.md.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnx.version_converter
import torch
from onnx import numpy_helper
from torch import nn

from mdpose_edge.errors import ExportError
from mdpose_edge.families.registry import training_of
from mdpose_edge.spec import ModelSpec

OPSET = 17
"""The newest that TensorRT 8.5 (JetPack 5) parses."""
TYPED_INT8_OPSET = 19
"""The oldest in which QuantizeLinear and DequantizeLinear take float16 scales; TensorRT 10 and newer parse it."""
MAX_IR_VERSION = 8
"""The ONNX file format of opset 17's own release; readers of that age refuse a newer one."""
RESIZE_SCALES, RESIZE_SIZES = 2, 3
"""Positions among the inputs of Resize."""


def to_onnx(network: nn.Module, spec: ModelSpec) -> onnx.ModelProto:
    """Trace a trained network as it is deployed: batch norms folded, what training alone needs cut, shapes static.

    Args:
        network: in eval mode. Not modified.
        spec: names and shapes of the input and outputs.
    """
    size = spec.input
    example = torch.zeros(size.batch, size.height, size.width, 3, dtype=torch.uint8)
    with TemporaryDirectory() as directory, warnings.catch_warnings():
        for message in ("You are using the legacy TorchScript-based ONNX export", "The feature will be removed"):
            warnings.filterwarnings("ignore", message, DeprecationWarning)
        path = Path(directory, "traced.onnx")
        torch.onnx.export(
            training_of(spec.family).deployed(network, spec).eval(),
            (example,),
            path,
            input_names=[size.name],
            output_names=list(spec.outputs),
            opset_version=OPSET,
            dynamo=False,
        )
        model = onnx.load(path)
    _constants_to_initializers(model.graph)
    _read_constants_directly(model.graph)
    _merge_duplicate_nodes(model.graph)
    return model


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert weights and arithmetic to float16; the input stays uint8 and the outputs float32.

    Resize keeps its scales in float32, as ONNX demands.

    Args:
        model: float32. Not modified.

    Raises:
        ExportError: a weight is beyond float16's range, where the converter would clip it.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    largest = float(np.finfo(np.float16).max)
    for tensor in model.graph.initializer:
        peak = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0))
        if not peak <= largest:
            raise ExportError(
                tensor.name,
                expected=f"weights within float16's {largest:g}",
                got=f"{peak:g}",
                do="use --precision fp32, or train with more weight decay",
            )
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    converted: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True)
    return converted


def to_typed_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a Q/DQ graph so that it states every type: what is not int8 is float16, scales too.

    A strongly typed TensorRT computes in just these types. The int8 values stay as they were but for the rounding of
    the scales to float16, one part in 2048.

    Args:
        model: float32 with Q/DQ, opset 17. Not modified.

    Raises:
        ExportError: a weight is beyond float16's range.
    """
    return to_fp16(onnx.version_converter.convert_version(model, TYPED_INT8_OPSET))


def check_onnx(model: onnx.ModelProto, spec: ModelSpec, opset: int = OPSET) -> onnx.ModelProto:
    """Hold a graph against ONNX's rules, then against ours.

    Args:
        model: the graph.
        spec: names of its input and outputs.
        opset: that it must be in.

    Returns:
        The graph with the shape of every tensor inferred and written down.

    Raises:
        ExportError: with the first rule that is broken.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError("the ONNX graph", expected="a valid one", got=str(error), do="report this") from error
    for expected, got in _broken_rules(inferred, spec, opset):
        raise ExportError("the ONNX graph", expected=expected, got=got, do="choose another backbone, or report this")
    return inferred


def _broken_rules(model: onnx.ModelProto, spec: ModelSpec, opset: int) -> Iterator[tuple[str, str]]:
    """Yield (expected, got) of each rule that the graph breaks."""
    graph = model.graph
    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    if opsets != {"ai.onnx": opset}:
        yield f"opset {opset} alone", str(opsets)
    if model.ir_version > MAX_IR_VERSION:
        yield f"IR version {MAX_IR_VERSION} at most", str(model.ir_version)
    if (names := [value.name for value in graph.input]) != [spec.input.name]:
        yield f"the input {spec.input.name}", ", ".join(names)
    if (names := [value.name for value in graph.output]) != list(spec.outputs):
        yield f"the outputs {', '.join(spec.outputs)}", ", ".join(names)
    if count := Counter(node.op_type for node in graph.node)["BatchNormalization"]:
        yield "every batch norm folded into a convolution", f"{count} left"
    constants = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Resize" and not _has_constant_scales(node, constants):
            yield f"constant float32 scales for {node.name}", f"the inputs {list(node.input)}"
    for value in (*graph.input, *graph.value_info, *graph.output):
        if not all(dim.dim_value > 0 for dim in value.type.tensor_type.shape.dim):
            yield f"a static shape of {value.name}", onnx.helper.printable_type(value.type)


def _has_constant_scales(resize: onnx.NodeProto, constants: dict[str, int]) -> bool:
    """Say whether a Resize takes scales: sizes would be a dynamic shape to TensorRT 8.5, which NVDLA refuses."""
    inputs = dict(enumerate(resize.input))
    return constants.get(inputs.get(RESIZE_SCALES, "")) == onnx.TensorProto.FLOAT and not inputs.get(RESIZE_SIZES)


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Keep constants in one place, as initializers: the float16 converter mistakes the order of Constant nodes."""
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        (attribute,) = node.attribute
        attribute.t.name = node.output[0]
        graph.initializer.append(attribute.t)
        graph.node.remove(node)


def _read_constants_directly(graph: onnx.GraphProto) -> None:
    """Drop each Identity of a constant: torch keeps equal ones once and reads the others through it.

    Behind it a bias is no constant any more, as engines and the Q/DQ rules want it. Biases are equal where nothing has
    trained them.
    """
    constants = {tensor.name for tensor in graph.initializer}
    renamed: dict[str, str] = {}
    for node in list(graph.node):
        node.input[:] = [renamed.get(name, name) for name in node.input]
        if node.op_type == "Identity" and node.input[0] in constants:
            renamed[node.output[0]] = node.input[0]
            graph.node.remove(node)


def _merge_duplicate_nodes(graph: onnx.GraphProto) -> None:
    """Let nodes that compute the same thing be one: DLA's nested trees pool the same map twice."""
    first: dict[tuple[object, ...], onnx.NodeProto] = {}
    renamed: dict[str, str] = {}
    outputs = {value.name for value in graph.output}
    for node in list(graph.node):
        node.input[:] = [renamed.get(name, name) for name in node.input]
        key = (node.op_type, *node.input, *(attribute.SerializeToString() for attribute in node.attribute))
        kept = first.setdefault(key, node)
        if kept is not node and outputs.isdisjoint(node.output):
            renamed.update(zip(node.output, kept.output, strict=True))
            graph.node.remove(node)
    del graph.value_info[:]  # it may describe tensors that are gone; check_onnx infers it anew
