"""INT8 for onnxruntime's CPU provider: u8 activations, s8 weights, and Q/DQ around every operator, as its kernels want.

TensorRT's form of the same network is slower than float32 there: with Q/DQ on inputs alone, no integer kernel matches.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from mdpose_edge.calib.dataset import CalibrationSet
from mdpose_edge.calib.graph import GraphView, check_float_source
from mdpose_edge.calib.once import Once, every_time
from mdpose_edge.calib.qdq import QdqModel
from mdpose_edge.calib.ranges import Progress, TensorRange, ranges_for
from mdpose_edge.calib.thresholds import DEFAULT_METHOD
from mdpose_edge.common.optional import require

if TYPE_CHECKING:
    import onnx

SCHEME = "weights int8, symmetric per output channel; activations uint8, asymmetric per tensor"
OPERATORS = ("Conv", "Relu", "Add", "MaxPool", "Concat", "Resize")
"""Those with integer kernels that pay. Sigmoid and Mul have some too: no faster, and each costs a rounding more."""


def quantize_onnxruntime(
    model: onnx.ModelProto,
    calibration: CalibrationSet,
    *,
    method: str = DEFAULT_METHOD,
    keep_float: Collection[str] = (),
    progress: Progress | None = None,
    once: Once = every_time,
) -> QdqModel:
    """Quantize a float graph for onnxruntime's CPU provider.

    The kernels need AVX-512 VNNI, AVX-VNNI or Arm's dot product: without, x86 kernels add u8 x s8 products in 16 bits,
    which can overflow.

    Args:
        model: float32, batch norms folded, of static shape. Not modified.
        calibration: what ranges are measured on; it must fit the model's input (`CalibrationSet.check_fits`).
        method: one of METHODS.
        keep_float: names of convolutions to leave float, beside the narrow ones (`GraphView.kept_float`).
        progress: called with (images done, images in all).
        once: where only `keep_float` differs between calls, Kept spares all but the first the measuring.

    Raises:
        ExportError: the graph is quantized already, has no such node, or its activations are not finite.
        ConfigError: no such method.
        MissingPackageError: the extra `export` is not installed.
    """
    ranges = ranges_for(model, calibration, method, keep_float, progress, once)
    return insert_u8s8(model, ranges, keep_float)


def insert_u8s8(
    model: onnx.ModelProto, ranges: Mapping[str, TensorRange], keep_float: Collection[str] = ()
) -> QdqModel:
    """Place Q/DQ by given ranges: what `quantize_onnxruntime` does once they are measured.

    Raises:
        ExportError: see `quantize_onnxruntime`.
    """
    onnx = require("onnx", extra="export", feature="INT8 graphs")
    quantization = require("onnxruntime.quantization", extra="export", feature="INT8 for onnxruntime")
    calibrate = require("onnxruntime.quantization.calibrate", extra="export", feature="INT8 for onnxruntime")
    quantizer = require("onnxruntime.quantization.qdq_quantizer", extra="export", feature="INT8 for onnxruntime")
    check_float_source(model)
    view = GraphView(model)
    kept = {node.name for node in view.kept_float(keep_float)}
    limits = {
        name: calibrate.TensorData(
            lowest=np.float32(max(found.low, -found.amax)), highest=np.float32(min(found.high, found.amax))
        )
        for name, found in ranges.items()
    }
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    builder = quantizer.QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=False,
        weight_qType=quantization.QuantType.QInt8,
        activation_qType=quantization.QuantType.QUInt8,
        tensors_range=limits,
        nodes_to_quantize=[],
        nodes_to_exclude=sorted(kept),
        op_types_to_quantize=list(OPERATORS),
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
    )
    builder.quantize_model()
    builder.model.topological_sort()
    return QdqModel(
        model=onnx.shape_inference.infer_shapes(builder.model.model, check_type=True, strict_mode=True),
        scales={name: found.scale for name, found in ranges.items()},
        quantized=tuple(node.name for node in view.weighted if node.name not in kept),
        kept_float=tuple(node.name for node in view.weighted if node.name in kept),
    )
