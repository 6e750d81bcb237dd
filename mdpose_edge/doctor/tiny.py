"""A model of 36 weights, whose outputs are known: enough to see whether an engine can load a graph and compute.

It has what every graph of ours begins with (uint8 NHWC in, cast, transpose), a convolution, Swish, and three heads.
assets/doctor.onnx is made from the same numbers by scripts/doctor_graph.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.bundle import Bundle, open_bundle, write_bundle
from mdpose_edge.spec import HeadSpec, InputSpec, KeypointSpec, ModelSpec, Provenance

GRAPH_FILE = "doctor.onnx"
OPSET = 13
SIDE, STRIDE, HIDDEN = 16, 8, 4
TOLERANCE = 1e-2
"""Of a tensor's largest value. Engines that compute in FP16 or TF32 where they may are off by up to 2e-3."""

Array = NDArray[np.float32]


def tiny_spec() -> ModelSpec:
    """Describe the model: two keypoints, three heads of 2 x 2 cells, whose names say nothing."""
    return ModelSpec(
        family="none: nothing decodes it",
        network={},
        input=InputSpec(SIDE, SIDE, mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0)),
        heads=(HeadSpec("o_p3", 1, STRIDE), HeadSpec("mu_p3", 4, STRIDE), HeadSpec("gamma_p3", 4, STRIDE)),
        constants={},
        keypoints=KeypointSpec(("left", "right"), ((0, 1),), ((0, 1),), (0.1, 0.1)),
        provenance=Provenance("doctor"),
        target="onnx",
        opset=OPSET,
        graph=GRAPH_FILE,
    )


def tiny_weights() -> dict[str, tuple[Array, Array]]:
    """Return (out, in) weights and (out,) biases of the hidden layer and each head."""
    return {
        "hidden": _layer(HIDDEN, 3, 1 / 255),
        **{head.name: _layer(head.channels, HIDDEN, 1.0) for head in tiny_spec().heads},
    }


def tiny_image() -> NDArray[np.uint8]:
    """Return the input that `tiny_outputs` are of: (1, SIDE, SIDE, 3) uint8."""
    return (np.arange(SIDE * SIDE * 3) * 37 % 256).astype(np.uint8).reshape(1, SIDE, SIDE, 3)


def tiny_outputs() -> dict[str, Array]:
    """Compute with numpy what an engine should give, (1, channels, 2, 2) by name."""
    cells = SIDE // STRIDE
    pooled = tiny_image().astype(np.float32).reshape(cells, STRIDE, cells, STRIDE, 3).mean(axis=(1, 3))
    weights = tiny_weights()
    hidden = pooled @ weights["hidden"][0].T + weights["hidden"][1]
    hidden = hidden / (1 + np.exp(-hidden))
    heads = {name: hidden @ weights[name][0].T + weights[name][1] for name in tiny_spec().outputs}
    return {name: np.ascontiguousarray(head.transpose(2, 0, 1)[None], np.float32) for name, head in heads.items()}


@contextmanager
def tiny_bundle() -> Iterator[Bundle]:
    """Lay the model out as a bundle for as long as the `with` lasts."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tiny"
        with write_bundle(path, tiny_spec()) as building:
            graph = (files("mdpose_edge") / "assets" / GRAPH_FILE).read_bytes()
            (building / GRAPH_FILE).write_bytes(graph)
        yield open_bundle(path)


def _layer(outputs: int, inputs: int, scale: float) -> tuple[Array, Array]:
    """Make up weights that differ from one another and from their mirror images."""
    numbers = np.sin(1.0 + np.arange(outputs * inputs)).reshape(outputs, inputs)
    return (scale * numbers).astype(np.float32), np.cos(np.arange(outputs)).astype(np.float32)
