"""An ONNX graph for onnxruntime's CPU provider, and for whatever else reads ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mdpose_edge.calib.onnxruntime_int8 import SCHEME, quantize_onnxruntime
from mdpose_edge.calib.ranges import TensorRange
from mdpose_edge.calib.thresholds import DEFAULT_METHOD
from mdpose_edge.common.optional import require
from mdpose_edge.export.onnx import check_onnx, to_fp16
from mdpose_edge.export.targets.registry import Job, Written, describe_int8, measure_activations

measure = measure_activations


def write(job: Job, measured: Mapping[str, TensorRange] | None) -> Written:
    """Write model.onnx: see `write_target`."""
    assert job.spec.graph is not None
    path = job.directory / job.spec.graph
    if job.spec.precision != "int8":
        model = job.graph.model
        if job.spec.precision == "fp16":
            model = check_onnx(to_fp16(model), job.spec)
        path.write_bytes(model.SerializeToString())
        return Written()
    assert job.int8 is not None and measured is not None
    method = job.int8.method or DEFAULT_METHOD
    made = quantize_onnxruntime(job.graph, measured, job.int8.keep_float)
    path.write_bytes(check_onnx(made.model, job.spec).SerializeToString())
    ort: Any = require("onnxruntime", extra="export", feature="an INT8 graph")
    tool = f"onnxruntime {ort.__version__}"
    return Written(describe_int8(job, scheme=SCHEME, method=method, tool=tool, kept_float=made.kept_float))
