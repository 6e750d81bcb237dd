"""The ONNX graph as OpenVINO IR."""

from __future__ import annotations

from pathlib import Path

import onnx
import openvino as ov
from openvino.passes import ConstantFolding, Manager


def write_openvino(model: onnx.ModelProto, path: Path, *, compress_to_fp16: bool) -> None:
    """Write OpenVINO IR: `path`, which ends in .xml, and the weights beside it in .bin.

    The graph is read from ONNX, so that both targets have one source. It is not read by `openvino.convert_model`,
    which reports its use to the vendor unless the user has opted out.

    Args:
        model: float32, already checked.
        path: must end in .xml.
        compress_to_fp16: store the weights as float16; engines widen them as they load.
    """
    graph = ov.Core().read_model(model.SerializeToString())
    # Biases arrive as arithmetic on shapes; folded, they fuse into their convolutions.
    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(graph)
    ov.save_model(graph, path, compress_to_fp16=compress_to_fp16)
