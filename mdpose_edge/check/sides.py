"""The two sides of a check: an artifact on an engine, head tensors recorded elsewhere, or results from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from mdpose_edge import __version__
from mdpose_edge.check.images import CheckImage, CheckImages
from mdpose_edge.check.recording import RECORDING_SUFFIX, Heads, Recording, write_recording
from mdpose_edge.common.progress import Progress
from mdpose_edge.common.side_files import SideFiles
from mdpose_edge.errors import ConfigError
from mdpose_edge.families.base import check_finite
from mdpose_edge.families.measure import Observation
from mdpose_edge.families.registry import evaluation_of, make_decoder
from mdpose_edge.preprocess import FrameGeometry, frame_geometry, preprocess
from mdpose_edge.runtimes.registry import open_engine, read_side
from mdpose_edge.spec import ModelSpec


class Side(Protocol):
    """One of the two that are compared."""

    name: str
    """As the user wrote it."""
    engine: str
    """What ran it, in words."""
    batch: int
    """How many images it takes at a time."""

    @property
    def spec(self) -> ModelSpec | None:
        """The artifact's, or None where only results are known."""

    def observe(self, images: Sequence[CheckImage]) -> list[Observation]:
        """Return what is in each image.

        Raises:
            MdposeError: an image is unusable or unknown, or the engine fails.
        """

    def close(self) -> None:
        """Release what is held; calling it twice is harmless."""


class HeadsReader:
    """Turns one image's head tensors into an observation, by the one decoder."""

    def __init__(self, spec: ModelSpec, side: SideFiles) -> None:
        self._evaluate = make_decoder(spec, evaluation_of(spec), side)
        self._deploy = make_decoder(spec, side=side)

    def __call__(self, heads: Heads, geometry: FrameGeometry) -> Observation:
        """Decode head tensors (channels, rows, columns).

        Raises:
            EngineError: one is missing, misshapen or not finite.
        """
        batch = {name: tensor[None] for name, tensor in heads.items()}
        check_finite(batch)
        return Observation(self._evaluate(batch, geometry), self._deploy(batch, geometry), batch, geometry)


class Artifact:
    """A bundle or checkpoint on an engine.

    Raises:
        MdposeError: it cannot be opened, or the engine is unknown, absent or fails.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        runtime: str | None = None,
        threads: int | None = None,
        option: str = "--runtime",
    ) -> None:
        self.spec, self._adapter = open_engine(model, runtime, threads, option=option)
        self.name, self.engine, self.batch = str(model), self._adapter.engine, self.spec.input.batch
        self._side = read_side(model, self.spec, runtime)
        self._read = HeadsReader(self.spec, self._side)
        size = self.spec.input
        self._images = np.zeros((size.batch, size.height, size.width, 3), np.uint8)

    def observe(self, images: Sequence[CheckImage]) -> list[Observation]:
        """Run the graph: see Side."""
        chunks = (images[i : i + self.batch] for i in range(0, len(images), self.batch))
        return [self._read(*one) for chunk in chunks for one in self._run(chunk)]

    def heads(self, image: CheckImage) -> Heads:
        """Return the head tensors of one image, checked to be finite and of the right form."""
        (observation,) = self.observe([image])
        assert observation.heads is not None
        return {name: tensor[0] for name, tensor in observation.heads.items()}

    def record(self, path: Path, images: CheckImages, progress: Progress | None = None) -> None:
        """Write the head tensors of images to a file, with the images.

        Args:
            path: a .npz file; replaced where it exists.
            images: the images.
            progress: called with (images done, images in all).

        Raises:
            ConfigError: the file is not named .npz.
            MdposeError: an image is unusable, or the engine fails.
        """
        if path.suffix != RECORDING_SUFFIX:
            raise ConfigError("--record", expected=f"a {RECORDING_SUFFIX} file", got=str(path), do="rename it")
        meta = {"model": self.name, "engine": self.engine, "toolkit_version": __version__}
        write_recording(path, images, self.heads, self.spec, meta, progress, side=self._side)

    def close(self) -> None:
        """Release the engine."""
        self._adapter.close()

    def _run(self, images: Sequence[CheckImage]) -> list[tuple[Heads, FrameGeometry]]:
        """Run at most a batch; slots without a image keep an older image, whose outputs nobody reads."""
        size = self.spec.input
        placed = [preprocess(image.pixels, size, out=self._images[i])[1] for i, image in enumerate(images)]
        geometries = [replace(one, camera=image.camera) for one, image in zip(placed, images, strict=True)]
        outputs = self._adapter.infer(self._images)  # valid until the next call, hence the copies
        return [({n: t[i].copy() for n, t in outputs.items()}, geometry) for i, geometry in enumerate(geometries)]


class RecordedArtifact:
    """An artifact as it ran on another machine."""

    batch = 1

    def __init__(self, recording: Recording, name: str) -> None:
        self.spec: ModelSpec = recording.spec
        self.name, self._recording = name, recording
        self.engine = f"{recording.meta.get('engine', 'unknown engine')}, recorded"
        self._read = HeadsReader(self.spec, recording.side())

    def observe(self, images: Sequence[CheckImage]) -> list[Observation]:
        """Look the images up: see Side."""
        return [self._read(self._recording.heads(image), self._geometry(image)) for image in images]

    def close(self) -> None:
        """Close the file."""
        self._recording.close()

    def _geometry(self, image: CheckImage) -> FrameGeometry:
        height, width = image.pixels.shape[:2]
        return replace(frame_geometry((width, height), self.spec.input), camera=image.camera)
