"""The two sides of a check: an artifact on an engine, head tensors recorded elsewhere, or results from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from mdpose_edge import __version__
from mdpose_edge.check.frames import Frame, Frames, Progress
from mdpose_edge.check.recording import RECORDING_SUFFIX, Heads, Recording, write_recording
from mdpose_edge.errors import ConfigError
from mdpose_edge.families.base import MixtureDecoder, check_finite
from mdpose_edge.families.mixture import PoseMixture
from mdpose_edge.families.registry import evaluation_options, make_decoder
from mdpose_edge.poses import Poses
from mdpose_edge.preprocess import FrameGeometry, frame_geometry, preprocess
from mdpose_edge.runtimes.registry import open_engine
from mdpose_edge.spec import ModelSpec


@dataclass(frozen=True)
class Observation:
    """What one side says of one image."""

    poses: Poses
    """As an evaluation decodes."""
    deployed: Poses
    """As the artifact's own spec decodes."""
    mixture: PoseMixture | None = None
    """None where the family has none, or only results are known, whose sigmas are NaN."""
    heads: Heads | None = None


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

    def observe(self, frames: Sequence[Frame]) -> list[Observation]:
        """Say what is in each image.

        Raises:
            MdposeError: an image is unusable or unknown, or the engine fails.
        """

    def close(self) -> None:
        """Release what is held; calling it twice is harmless."""


class HeadsReader:
    """Turns one image's head tensors into an observation, by the one decoder."""

    def __init__(self, spec: ModelSpec) -> None:
        self._evaluate = make_decoder(spec, evaluation_options(spec.family))
        self._deploy = make_decoder(spec)

    def __call__(self, heads: Heads, geometry: FrameGeometry) -> Observation:
        """Decode head tensors (channels, rows, columns).

        Raises:
            EngineError: one is missing, misshapen or not finite.
        """
        batch = {name: tensor[None] for name, tensor in heads.items()}
        check_finite(batch)
        mixture = self._evaluate.mixture(batch, geometry) if isinstance(self._evaluate, MixtureDecoder) else None
        return Observation(self._evaluate(batch, geometry), self._deploy(batch, geometry), mixture, heads)


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
        self._read = HeadsReader(self.spec)
        size = self.spec.input
        self._images = np.zeros((size.batch, size.height, size.width, 3), np.uint8)

    def observe(self, frames: Sequence[Frame]) -> list[Observation]:
        """Run the graph: see Side."""
        chunks = (frames[i : i + self.batch] for i in range(0, len(frames), self.batch))
        return [self._read(*one) for chunk in chunks for one in self._run(chunk)]

    def heads(self, frame: Frame) -> Heads:
        """Give the head tensors of one image, checked to be finite and of the right form."""
        (observation,) = self.observe([frame])
        assert observation.heads is not None
        return observation.heads

    def record(self, path: Path, frames: Frames, progress: Progress | None = None) -> None:
        """Write the head tensors of images to a file, with the images.

        Args:
            path: a .npz file; replaced where it exists.
            frames: the images.
            progress: called with (images done, images in all).

        Raises:
            ConfigError: the file is not named .npz.
            MdposeError: an image is unusable, or the engine fails.
        """
        if path.suffix != RECORDING_SUFFIX:
            raise ConfigError("--record", expected=f"a {RECORDING_SUFFIX} file", got=str(path), do="rename it")
        meta = {"model": self.name, "engine": self.engine, "toolkit_version": __version__}
        write_recording(path, frames, self.heads, self.spec, meta, progress)

    def close(self) -> None:
        """Release the engine."""
        self._adapter.close()

    def _run(self, frames: Sequence[Frame]) -> list[tuple[Heads, FrameGeometry]]:
        """Run at most a batch; slots without a frame keep an older image, whose outputs nobody reads."""
        size = self.spec.input
        geometries = [preprocess(frame.pixels, size, out=self._images[i])[1] for i, frame in enumerate(frames)]
        outputs = self._adapter.infer(self._images)  # valid until the next call, hence the copies
        return [({n: t[i].copy() for n, t in outputs.items()}, geometry) for i, geometry in enumerate(geometries)]


class RecordedArtifact:
    """An artifact as it ran on another machine."""

    batch = 1

    def __init__(self, recording: Recording, name: str) -> None:
        self.spec: ModelSpec = recording.spec
        self.name, self._recording = name, recording
        self.engine = f"{recording.meta.get('engine', 'unknown engine')}, recorded"
        self._read = HeadsReader(self.spec)

    def observe(self, frames: Sequence[Frame]) -> list[Observation]:
        """Look the images up: see Side."""
        return [self._read(self._recording.heads(frame), self._geometry(frame)) for frame in frames]

    def close(self) -> None:
        """Close the file."""
        self._recording.close()

    def _geometry(self, frame: Frame) -> FrameGeometry:
        height, width = frame.pixels.shape[:2]
        return frame_geometry((width, height), self.spec.input)


def same_cells(a: ModelSpec, b: ModelSpec) -> bool:
    """Say whether each cell of one artifact's head tensors is the same cell of the other's."""
    sizes = [(spec.input.height, spec.input.width) for spec in (a, b)]
    return sizes[0] == sizes[1] and (a.family, a.heads) == (b.family, b.heads)


def settings_apart(candidate: ModelSpec, reference: ModelSpec) -> tuple[str, ...]:
    """List the settings of preprocessing and decoding that differ between two artifacts; the input's size is none.

    Images need not show it: on square frames, letterbox and stretch are the same.
    """
    keys = ("layout", "dtype", "color", "mean", "std", "resize")
    settings = {f"input.{key}": (getattr(candidate.input, key), getattr(reference.input, key)) for key in keys}
    settings["family"] = (candidate.family, reference.family)
    settings["constants"] = (candidate.constants, reference.constants)
    settings["classes"] = (candidate.classes, reference.classes)
    settings["keypoints"] = (candidate.keypoints, reference.keypoints)
    return tuple(name for name, (ours, theirs) in settings.items() if ours != theirs)
