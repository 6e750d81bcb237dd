"""OpenVINO IR."""

from __future__ import annotations

from importlib.metadata import version

import openvino as ov

from mdpose_edge.calib.layers import float_nodes
from mdpose_edge.calib.openvino_int8 import DEFAULT_METHOD, SCHEME, NncfGraph, quantize_openvino, read_float_graph
from mdpose_edge.common.files import written_by_library
from mdpose_edge.export.targets.registry import Job, Written, describe_int8


def measure(job: Job) -> NncfGraph:
    """Quantize the graph by NNCF, which measures as it does so."""
    assert job.int8 is not None
    return quantize_openvino(
        job.graph,
        job.int8.calibration,
        method=job.int8.method or DEFAULT_METHOD,
        keep_float=job.int8.keep_float,
        progress=job.progress,
    )


def write(job: Job, measured: NncfGraph | None) -> Written:
    """Write model.xml and model.bin, both targets' graphs having one ONNX source: see `write_target`."""
    assert job.spec.graph is not None
    path = job.directory / job.spec.graph
    if job.spec.precision != "int8":
        # Engines widen float16 weights as they load.
        graph = read_float_graph(job.graph.model)
        with written_by_library(path):
            ov.save_model(graph, path, compress_to_fp16=job.spec.precision == "fp16")
        return Written()
    assert job.int8 is not None and measured is not None
    method, keep = job.int8.method or DEFAULT_METHOD, job.int8.keep_float
    graph = measured.keeping_float(keep)
    with written_by_library(path):
        ov.save_model(graph, path, compress_to_fp16=False)
    kept = [node.name for node in float_nodes(job.graph, keep)]
    return Written(describe_int8(job, scheme=SCHEME, method=method, tool=f"nncf {version('nncf')}", kept_float=kept))
