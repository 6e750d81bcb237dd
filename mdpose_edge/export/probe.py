"""Quick looks at a trial: how far it is from the float graph, and how fast it runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.check.images import CheckImage
from mdpose_edge.check.measures.outputs import output_distance
from mdpose_edge.check.sides import Artifact
from mdpose_edge.families.registry import make_distance
from mdpose_edge.runtimes.registry import open_engine

SPEED_ROUNDS = 10
SPEED_WARM_UP = 2


class Probe:
    """The float graph on a few inputs, kept to compare many trials with.

    Args:
        reference: a bundle or checkpoint.
        inputs: (N, H, W, 3) uint8, as the graphs take them.

    Raises:
        MdposeError: the reference cannot be opened or run.
    """

    def __init__(self, reference: Path, inputs: NDArray[np.uint8]) -> None:
        self._images = [CheckImage(f"input {index}", _as_file(image), None) for index, image in enumerate(inputs)]
        with closing(Artifact(reference)) as artifact:
            self._distance = make_distance(artifact.spec) or output_distance(artifact.spec)
            self._seen = artifact.observe(self._images)

    @property
    def unit(self) -> str:
        """Of a distance."""
        return self._distance.unit

    def distance(self, trial: Path, runtime: str | None = None) -> float:
        """Measure how far a bundle is from the reference: by the family's distance, or that of the head tensors.

        Args:
            trial: a bundle of the same cells.
            runtime: the engine, or None for the bundle's own.

        Raises:
            MdposeError: the bundle cannot be opened or run.
        """
        with closing(Artifact(trial, runtime=runtime)) as artifact:
            return self._distance.between(zip(artifact.observe(self._images), self._seen, strict=True))


def compare_speed(models: Mapping[str, Path]) -> dict[str, Any]:
    """Time bundles or checkpoints, in turn, so that what else the machine does falls on all of them alike.

    Args:
        models: by what to call them; each runs on its own engine.

    Returns:
        The engine of each, and the median milliseconds of a call.

    Raises:
        MdposeError: one cannot be opened or run.
    """
    times: dict[str, list[float]] = {name: [] for name in models}
    with ExitStack() as stack:
        runs, engines = {}, {}
        for name, path in models.items():
            spec, adapter = open_engine(path)
            stack.callback(adapter.close)
            size = spec.input
            image = np.random.default_rng(0).integers(0, 256, (size.batch, size.height, size.width, 3), np.uint8)
            runs[name], engines[name] = (adapter, image), adapter.engine
        for turn in range(SPEED_WARM_UP + SPEED_ROUNDS):
            for name, (adapter, image) in runs.items():
                start = time.perf_counter()
                adapter.infer(image)
                if turn >= SPEED_WARM_UP:
                    times[name].append(1e3 * (time.perf_counter() - start))
    return {name: {"engine": engines[name], "ms": statistics.median(taken)} for name, taken in times.items()}


def _as_file(image: NDArray[np.uint8]) -> bytes:
    """Return a network input as a file without loss; an image of the input's own size passes preprocessing as it is."""
    _, data = cv2.imencode(".png", image)
    return data.tobytes()
