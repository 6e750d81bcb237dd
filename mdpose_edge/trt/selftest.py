"""Does the engine give what the build machine recorded? Asked on the device, before a build says done."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.errors import EngineError
from mdpose_edge.trt.recipe import Golden, SelfTest

Infer = Callable[[NDArray[np.uint8]], Mapping[str, NDArray[np.float32]]]


def run_self_test(infer: Infer, golden: Golden, batch: int, limits: SelfTest) -> dict[str, dict[str, float]]:
    """Run the golden images and compare every head tensor.

    Each image goes through every slot of the batch, beside others, so that a mix-up of slots is caught.

    Args:
        infer: of the opened plan.
        golden: images and recorded heads.
        batch: images per call.
        limits: of the recipe.

    Returns:
        By output, the largest and the mean error, each relative; see SelfTest.

    Raises:
        EngineError: an output is further off than the recipe allows.
    """
    figures = {name: {"largest_error": 0.0, "mean_error": 0.0} for name in golden.heads}
    count = len(golden.images)
    for start in range(max(count, batch) if batch > 1 else count):
        rows = [(start + slot) % count for slot in range(batch)]
        heads = infer(np.ascontiguousarray(golden.images[rows]))
        for name, recorded in golden.heads.items():
            error = np.abs(heads[name].astype(np.float64) - recorded[rows])
            magnitude = np.abs(recorded[rows].astype(np.float64))
            found = figures[name]
            found["largest_error"] = _worse(found["largest_error"], error.max(), magnitude.max())
            found["mean_error"] = _worse(found["mean_error"], error.mean(), magnitude.mean())
    for name, found in figures.items():
        for key, limit in vars(limits).items():
            if not found[key] <= limit:  # so written, NaN is no pass
                raise EngineError(
                    f"self-test of {name}",
                    expected=f"a {key.replace('_', ' ')} of at most {limit:g} of what was recorded at export",
                    got=f"{found[key]:.3g}",
                    do="export with --precision fp16 or fp32, or use another TensorRT",
                )
    return figures


def _worse(so_far: float, error: float, scale: float) -> float:
    relative = float(error / scale) if scale else float(error)
    return float(np.maximum(so_far, relative))  # numpy's maximum, unlike Python's max, keeps a NaN
