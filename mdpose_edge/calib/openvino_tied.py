"""One range for what one place of a network is given in several calls, in a graph that NNCF has quantized.

NNCF takes each call of an unrolled recurrence for a layer of its own and has no word for their being one; so the ranges
that it measured are joined afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.calib.openvino_float import convolutions
from mdpose_edge.common.optional import require

if TYPE_CHECKING:
    import openvino

STEPS = 255
"""Of NNCF's grids of activations."""


def tie_ranges(graph: openvino.Model, places: Iterable[Iterable[str]]) -> None:
    """Give the data inputs of convolutions the range that holds all of theirs, in place.

    Args:
        graph: with quantizers.
        places: names of convolutions that share one, as in ONNX; those in float are passed over.
    """
    found = convolutions(graph)
    for names in places:
        quantizers = [found[name].input_value(0).get_node() for name in names]
        quantizers = [node for node in quantizers if node.get_type_name() == "FakeQuantize"]
        if quantizers:
            ranges = np.array([[range_of(node, side) for side in (1, 2)] for node in quantizers])
            low, high = on_grid(float(ranges[:, 0].min()), float(ranges[:, 1].max()))
            for node in quantizers:
                _set_range(node, low, high)
    graph.validate_nodes_and_infer_types()


def on_grid(low: float, high: float) -> tuple[float, float]:
    """Return the range, moved by half a step at most, of which 0 is a value."""
    step = (high - low) / STEPS
    zero = round(-low / step)
    return -zero * step, (STEPS - zero) * step


def range_of(quantizer: Any, side: int) -> float:
    """Return an end of the range of a FakeQuantize: its input 1 or 2."""
    values: NDArray[np.float32] = quantizer.input_value(side).get_node().data
    return float(values.reshape(-1)[0])


def _set_range(quantizer: Any, low: float, high: float) -> None:
    operators = require("openvino.opset8", extra="export", feature="OpenVINO graphs")
    for port, value in zip((1, 2, 3, 4), (low, high, low, high), strict=True):
        shape = tuple(quantizer.input_value(port).get_shape())
        constant = operators.constant(np.full(shape, value, np.float32))
        quantizer.input(port).replace_source_output(constant.output(0))
