"""Is the exported graph the network that was trained? Names, shapes, then values, on the target's own engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mdpose_edge.bundle import Bundle
from mdpose_edge.errors import EngineError, ExportError
from mdpose_edge.families.registry import training_of
from mdpose_edge.runtimes.registry import default_engine, load_adapter
from mdpose_edge.spec import InputSpec, ModelSpec
from mdpose_edge.train.predict import head_tensors

TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2}
"""Largest error of an output, relative to its largest value, by precision.

Measured with randomised batch norms, the worse of both engines (torch 2.15, onnxruntime 1.31, OpenVINO 2026.4): DLA-34
with the paper's head at 736 px 1.4e-5 and 2.4e-3, ResNet-18 with a head of 2 x 16 channels at 64 px 2.9e-6 and 1.8e-3.
"""
INT8_TOLERANCE = 0.5
"""Largest error of an INT8 output, root mean square, relative to the output's spread (its standard deviation).

It catches a broken graph, whose outputs have little to do with the network's (an error of 1 and more), and lets pass
what rounding to 8 bits does. Whether that is harmless, the gate says. docs/int8.md has the measured origin.
"""
INT8_IMAGES = 4
"""Of the calibration set that an INT8 graph is compared on, at least: its ranges hold for images of that kind."""
FP16_LARGEST = 65504.0
FP16_HEADROOM = 2.0
"""How far activations on the parity images must stay below float16's largest: other images reach further."""

SEED = 0
OCTAVES = (4, 8, 16, 32, 64)
"""Cells per side of the noise that a scene is summed from."""


def compare_with_torch(
    network: nn.Module, bundle: Bundle, images: NDArray[np.uint8] | None = None, engine: str | None = None
) -> dict[str, Any]:
    """Run a bundle's graph and the network it came from on the same images.

    The reference is the network as trained, before batch norms were folded and what training alone needs was cut, so
    that these are checked too.

    Args:
        network: in eval mode.
        bundle: with its graph in place; hashes are not checked.
        images: (N, H, W, 3) uint8, N a multiple of the batch; None for `parity_images`.
        engine: to run the graph on, or None for its target's own.

    Returns:
        What was compared and found, as JSON.

    Raises:
        ExportError: the graph does not run, or a name, shape or value differs.
    """
    spec = bundle.spec
    engine = engine or default_engine(spec.target, str(bundle.path))
    images = parity_images(spec.input) if images is None else images
    found: list[Mapping[str, Any]] = []
    try:
        with load_adapter(engine, bundle) as adapter:
            for chunk in np.split(images, len(images) // spec.input.batch):
                found.append(_compare(adapter.infer(chunk), head_tensors(network, spec, torch.from_numpy(chunk)), spec))
    except EngineError as error:
        raise ExportError(
            "the exported graph", expected=f"one that {engine} runs", got=f"its refusal: {error}", do="report this"
        ) from error
    return {
        "reference": f"torch {torch.__version__} float32",
        "engine": engine,
        "images": len(images),
        "tolerance": _tolerance(spec.precision),
        "outputs": {name: {key: max(f[name][key] for f in found) for key in found[0][name]} for name in spec.outputs},
    }


def check_fp16_range(network: nn.Module, spec: ModelSpec) -> float:
    """Refuse a network whose activations come near the end of float16.

    The comparison on onnxruntime cannot tell: its CPU kernels round the weights to float16 but compute in float32.

    Args:
        network: in eval mode. Not modified.
        spec: of the bundle.

    Returns:
        The largest activation over the parity images.

    Raises:
        ExportError: it lacks the headroom.
    """
    deployed = training_of(spec.family).deployed(network, spec).eval()
    peaks: list[float] = []
    for module in deployed.modules():
        if not any(module.children()):
            module.register_forward_hook(lambda _, __, output: peaks.append(float(output.abs().max())))
    with torch.inference_mode():
        # A batch of two whatever the bundle's: the range is the network's, and each image at 736 px takes seconds.
        deployed(torch.from_numpy(parity_images(replace(spec.input, batch=2))))
    largest = float(np.max(peaks))  # numpy's max, unlike Python's, keeps a NaN
    if not largest <= FP16_LARGEST / FP16_HEADROOM:
        raise ExportError(
            "the network",
            expected=f"activations below {FP16_LARGEST / FP16_HEADROOM:g} for fp16",
            got=f"{largest:.3g}",
            do="use --precision fp32, or train with more weight decay",
        )
    return largest


def parity_images(spec: InputSpec) -> NDArray[np.uint8]:
    """Make whole batches of images, two images at least, no two alike, so that a graph that mixes up slots is caught.

    Even ones are white noise, which has every value beside every other; odd ones have the spectrum of a natural scene,
    on which the network's deeper activations are as large as in use.

    Returns:
        (a multiple of batch, H, W, 3) uint8.
    """
    random = np.random.default_rng(SEED)
    count = -(-2 // spec.batch) * spec.batch
    images = random.integers(0, 256, (count, spec.height, spec.width, 3), np.uint8)
    for i in range(1, len(images), 2):
        images[i] = _scene(random, (spec.width, spec.height))
    return images


def calibration_images(spec: InputSpec, inputs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Take the first images of a calibration set, INT8_IMAGES at least, in whole batches; a tiny set is repeated.

    Returns:
        (a multiple of batch, H, W, 3) uint8.
    """
    count = -(-INT8_IMAGES // spec.batch) * spec.batch
    return np.ascontiguousarray(inputs[np.arange(count) % len(inputs)])


def _compare(
    outputs: Mapping[str, NDArray[np.float32]], reference: Mapping[str, NDArray[np.float32]], spec: ModelSpec
) -> dict[str, dict[str, float]]:
    figures = {}
    for name, expected in reference.items():
        got = outputs[name]
        if got.shape != expected.shape:
            raise ExportError(f"output {name}", expected=f"{expected.shape}", got=f"{got.shape}", do="report this")
        figures[name] = _spread_error(got, expected) if spec.precision == "int8" else _largest_error(got, expected)
        tolerance, scale = _tolerance(spec.precision), next(iter(figures[name].values()))
        if not figures[name]["relative_error"] <= tolerance:  # so written, NaN is no pass
            what = "within {:g} of their spread" if spec.precision == "int8" else "within {:g} of their largest"
            raise ExportError(
                f"output {name}",
                expected=f"torch's values {what.format(tolerance)}, {scale:.3g}",
                got=f"a difference of {figures[name]['relative_error'] * scale:.3g}",
                do="report this" if spec.precision == "fp32" else "use --precision fp32",
            )
    return figures


def _tolerance(precision: str) -> float:
    return INT8_TOLERANCE if precision == "int8" else TOLERANCES[precision]


def _largest_error(got: NDArray[np.float32], expected: NDArray[np.float32]) -> dict[str, float]:
    scale, error = float(np.abs(expected).max()), float(np.abs(got - expected).max())
    return {"largest_value": scale, "largest_error": error, "relative_error": error / scale}


def _spread_error(got: NDArray[np.float32], expected: NDArray[np.float32]) -> dict[str, float]:
    # A tensor of one value has no spread: its magnitude stands in.
    spread = float(expected.std() or np.abs(expected).max()) or float(np.finfo(np.float32).tiny)
    error = float(np.sqrt(np.square(got - expected).mean()))
    return {"spread": spread, "rms_error": error, "relative_error": error / spread}


def _scene(random: np.random.Generator, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """Sum noise over octaves, amplitude falling with frequency as in natural images, over the full range of values."""
    layers = [cv2.resize(random.random((n, n, 3)), size_wh, interpolation=cv2.INTER_CUBIC) / n for n in OCTAVES]
    total = np.sum(layers, axis=0)
    low, high = total.min(), total.max()
    return np.asarray((total - low) * (255 / (high - low))).astype(np.uint8)
