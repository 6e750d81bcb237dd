"""OpenVINO IR."""

from __future__ import annotations

from importlib.metadata import version

import openvino as ov

from mdpose_edge.calib.graph import GraphView
from mdpose_edge.calib.openvino_int8 import DEFAULT_METHOD, SCHEME, quantize_openvino, read_float_graph
from mdpose_edge.common.files import written_by_library
from mdpose_edge.export.targets.registry import Job, Written, describe_int8


def write(job: Job) -> Written:
    """Write model.xml and model.bin, both targets' graphs having one ONNX source: see `Job`, `Written`."""
    assert job.spec.graph is not None
    path = job.directory / job.spec.graph
    if job.spec.precision != "int8":
        # Engines widen float16 weights as they load.
        graph = read_float_graph(job.model)
        with written_by_library(path):
            ov.save_model(graph, path, compress_to_fp16=job.spec.precision == "fp16")
        return Written()
    assert job.int8 is not None
    method = job.int8.method or DEFAULT_METHOD
    keep = job.int8.keep_float
    graph = quantize_openvino(
        job.model,
        job.int8.calibration,
        method=method,
        keep_float=keep,
        progress=job.progress,
        once=job.int8.once,
    )
    with written_by_library(path):
        ov.save_model(graph, path, compress_to_fp16=False)
    kept = [node.name for node in GraphView(job.model).kept_float(keep)]
    return Written(describe_int8(job, scheme=SCHEME, method=method, tool=f"nncf {version('nncf')}", kept_float=kept))
