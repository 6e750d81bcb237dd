"""INT8 for onnxruntime's CPU provider: u8 activations, s8 weights, and Q/DQ around every operator, as its kernels want.

TensorRT's form of the same network is slower than float32 there: with Q/DQ on inputs alone, no integer kernel matches.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from mdpose_edge.calib.layers import check_float_source, float_nodes, state_nodes, weighted_nodes
from mdpose_edge.calib.qdq import QdqModel
from mdpose_edge.calib.ranges import TensorRange
from mdpose_edge.common.onnx_graph import OnnxGraph
from mdpose_edge.common.optional import require

if TYPE_CHECKING:
    pass

SCHEME = "weights int8, symmetric per output channel; activations uint8, asymmetric per tensor"
OPERATORS = ("Conv", "Relu", "Add", "MaxPool", "Concat", "Resize")
"""Those with integer kernels that pay. Sigmoid and Mul have some too: no faster, and each costs a rounding more."""


def quantize_onnxruntime(
    graph: OnnxGraph, ranges: Mapping[str, TensorRange], keep_float: Collection[str] = ()
) -> QdqModel:
    """Quantize a float graph for onnxruntime's CPU provider.

    The kernels need AVX-512 VNNI, AVX-VNNI or Arm's dot product: without, x86 kernels add u8 x s8 products in 16 bits,
    which can overflow.

    Args:
        graph: float32, batch norms folded, of static shape.
        ranges: of its activations, as `measure_ranges` finds them.
        keep_float: names of convolutions to leave float, beside the narrow ones (`layers.float_nodes`).

    Raises:
        ExportError: the graph is quantized already, or has no such node.
        MissingPackageError: the extra `export` is not installed.
    """
    onnx = require("onnx", extra="export", feature="INT8 graphs")
    quantization = require("onnxruntime.quantization", extra="export", feature="INT8 for onnxruntime")
    calibrate = require("onnxruntime.quantization.calibrate", extra="export", feature="INT8 for onnxruntime")
    quantizer = require("onnxruntime.quantization.qdq_quantizer", extra="export", feature="INT8 for onnxruntime")
    check_float_source(graph)
    kept = {node.name for node in float_nodes(graph, keep_float)}
    limits = {
        name: calibrate.TensorData(
            lowest=np.float32(max(found.low, -found.amax)), highest=np.float32(min(found.high, found.amax))
        )
        for name, found in ranges.items()
    }
    copy = onnx.ModelProto()
    copy.CopyFrom(graph.model)
    builder = quantizer.QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=False,
        weight_qType=quantization.QuantType.QInt8,
        activation_qType=quantization.QuantType.QUInt8,
        tensors_range=limits,
        nodes_to_quantize=[],
        nodes_to_exclude=sorted(kept | {node.name for node in state_nodes(graph)}),
        op_types_to_quantize=list(OPERATORS),
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
    )
    builder.quantize_model()
    builder.model.topological_sort()
    return QdqModel(
        model=onnx.shape_inference.infer_shapes(builder.model.model, check_type=True, strict_mode=True),
        scales={name: found.scale for name, found in ranges.items()},
        quantized=tuple(node.name for node in weighted_nodes(graph) if node.name not in kept),
        kept_float=tuple(node.name for node in weighted_nodes(graph) if node.name in kept),
    )
