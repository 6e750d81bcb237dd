"""Quick looks at a trial: how far its mixtures are from the float graph's, and how fast it runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.check.frames import Frame, Frames
from mdpose_edge.check.measure import measure
from mdpose_edge.check.sides import Artifact, Observation
from mdpose_edge.runtimes.registry import open_engine

SPEED_ROUNDS = 10
SPEED_WARM_UP = 2


class Probe:
    """The float graph on a few inputs, kept to compare many trials with; a `Side` of a check.

    Args:
        reference: a bundle or checkpoint.
        inputs: (N, H, W, 3) uint8, as the graphs take them.

    Raises:
        MdposeError: the reference cannot be opened or run.
    """

    def __init__(self, reference: Path, inputs: NDArray[np.uint8]) -> None:
        self._frames = _as_frames(inputs)
        with closing(Artifact(reference)) as artifact:
            self.spec, self.name, self.engine, self.batch = (
                artifact.spec,
                artifact.name,
                artifact.engine,
                artifact.batch,
            )
            frames = [self._frames[index] for index in range(len(self._frames))]
            self._seen = dict(zip(self._frames.names, artifact.observe(frames), strict=True))

    def observe(self, frames: Sequence[Frame]) -> list[Observation]:
        """Say what the reference said."""
        return [self._seen[frame.name] for frame in frames]

    def close(self) -> None:
        """Hold nothing any longer."""
        self._seen.clear()

    def divergence(self, trial: Path, runtime: str | None = None) -> float:
        """Measure how far a bundle is from the reference, in nats per image.

        It is the symmetric Kullback-Leibler divergence of (component, pose), weights and components together: see
        `likelihood.mixture_divergence`.

        Args:
            trial: a bundle.
            runtime: the engine, or None for the bundle's own.

        Raises:
            MdposeError: the bundle cannot be opened or run.
        """
        with closing(Artifact(trial, runtime=runtime)) as artifact:
            found = measure(artifact, self, self._frames).divergence
        assert found is not None
        return float(found.weights.mean() + found.components.mean() * len(self.spec.keypoints.names))


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


def _as_frames(inputs: NDArray[np.uint8]) -> Frames:
    """Give network inputs as images; a frame of the input's own size passes preprocessing as it is."""
    names = tuple(f"input {index}" for index in range(len(inputs)))

    def read(index: int) -> bytes:
        _, data = cv2.imencode(".png", inputs[index])  # without loss
        return data.tobytes()

    return Frames("calibration inputs", names, read)
