"""PoseEstimator: what a device program imports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.camera import Camera, centred_camera
from mdpose_edge.common.closing import Closing
from mdpose_edge.errors import ConfigError
from mdpose_edge.families.alternatives import Alternatives, AlternativesDecoder
from mdpose_edge.families.registry import make_decoder
from mdpose_edge.poses import Poses
from mdpose_edge.preprocess import FrameGeometry, check_frame, preprocess
from mdpose_edge.runtimes.registry import open_engine, read_side
from mdpose_edge.spec import DecodeSpec, ModelSpec

T = TypeVar("T")


class PoseEstimator(Closing):
    """Find people in frames.

        estimator = PoseEstimator("bundle/")
        poses = estimator(frame_bgr)
        print(poses.keypoints_xy, poses.scores)

    Threads that share one take turns: calling it and `batch` lock it. To run at once, give each thread its own. A
    program that overlaps the stages itself, as stream/pipeline.py does, calls `preprocess`, `infer` and `decode` with
    buffers of its own.

    Args:
        model: a bundle's directory, a .safetensors checkpoint, or the name of a shipped model: "people", "people-int8".
        runtime: the engine's name, or None for the default of the model's target.
        threads: CPU threads of the engine, or None for its own choice.
        decode: thresholds and bounds, or None for the model's own.
        threshold: a score threshold in [0, 1] that takes the place of the one in `decode`, or None.
        camera: what the frames are taken with, for a model of three dimensions: a Camera, or the focal length, px, of
            one that looks at the middle of the frame. None: it is guessed, and `Poses.metric` is false.

    Raises:
        ConfigError: a camera for a model of two dimensions, or a focal length that is none.
        MdposeError: the model cannot be opened, or the engine is unknown, absent or fails.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        runtime: str | None = None,
        threads: int | None = None,
        decode: DecodeSpec | None = None,
        threshold: float | None = None,
        camera: Camera | float | None = None,
    ) -> None:
        self._spec, adapter = open_engine(model, runtime, threads)
        with ExitStack() as stack:  # closes the engine again if what follows raises
            stack.enter_context(adapter)
            self._camera = _checked_camera(camera, self._spec)
            options = self._spec.decode if decode is None else decode
            if threshold is not None:
                options = replace(options, score_threshold=threshold)
            self._decode = make_decoder(self._spec, options, read_side(model, self._spec, runtime))
            size = self._spec.input
            self._images = np.zeros((size.batch, size.height, size.width, 3), np.uint8)
            self._adapter = adapter
            self._turn = Lock()
            stack.pop_all()

    @property
    def spec(self) -> ModelSpec:
        """The model's spec."""
        return self._spec

    @property
    def engine(self) -> str:
        """The name of the engine that runs the model."""
        return self._adapter.engine

    def __call__(self, frame_bgr: NDArray[np.uint8], camera: Camera | None = None) -> Poses:
        """Find the people in a frame.

        Args:
            frame_bgr: (H, W, 3) uint8, as OpenCV reads it. Not modified.
            camera: what this frame was taken with, in place of the estimator's own.

        Returns:
            Their poses in pixels of the frame, best first.

        Raises:
            InputError: not a frame, or one of unusable size.
            EngineError: the engine failed, or the estimator was closed.
        """
        (poses,) = self._estimate([frame_bgr], self._decode, camera)
        return poses

    def batch(self, frames_bgr: Sequence[NDArray[np.uint8]]) -> list[Poses]:
        """Find the people in each of several frames, which may differ in size.

        Args:
            frames_bgr: any number of frames; they are run as many at a time as the model's batch.

        Returns:
            One Poses per frame, in order.

        Raises:
            InputError, EngineError: as for one frame; nothing is run if any frame is unusable.
        """
        for i, frame in enumerate(frames_bgr):
            check_frame(frame, f"frame {i}")
        size = len(self._images)
        chunks = (frames_bgr[i : i + size] for i in range(0, len(frames_bgr), size))
        return [poses for chunk in chunks for poses in self._estimate(chunk, self._decode)]

    def alternatives(self, frame_bgr: NDArray[np.uint8]) -> Alternatives:
        """Find what a model of mixtures passes over: all that its components say of whom a call finds in this frame.

        Args:
            frame_bgr: as for a call.

        Returns:
            The components' poses and weights, in the order of the call's poses.

        Raises:
            ConfigError: the model says one thing of each pose.
            InputError, EngineError: as for a call.
        """
        decoder = self._decode
        if not isinstance(decoder, AlternativesDecoder):
            do = "take the poses as they are"
            expected, got = "a model whose components give alternatives", f"one of {self._spec.family}"
            raise ConfigError("alternatives", expected=expected, got=got, do=do)
        (found,) = self._estimate([frame_bgr], decoder.alternatives)
        return found

    def make_images(self) -> NDArray[np.uint8]:
        """Make a buffer for the engine's input: (batch, H, W, 3) uint8, zeros."""
        return np.zeros_like(self._images)

    def preprocess(self, frame_bgr: NDArray[np.uint8], image: NDArray[np.uint8]) -> FrameGeometry:
        """Do the first stage: resize a frame into one image of an input buffer. Any thread may.

        Args:
            frame_bgr: (H, W, 3) uint8, as OpenCV reads it. Not modified.
            image: (spec.input.height, spec.input.width, 3) uint8, overwritten.

        Returns:
            What `decode` needs to map coordinates back.

        Raises:
            InputError: not a frame, or one of unusable size.
        """
        geometry = preprocess(frame_bgr, self._spec.input, out=image)[1]
        return replace(geometry, camera=self._camera_of(frame_bgr))

    def infer(
        self, images: NDArray[np.uint8], out: dict[str, NDArray[np.float32]] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Do the second stage: run the engine. One thread at a time, the one that made the estimator.

        Args:
            images: an input buffer, as `make_images` makes it. Not modified.
            out: where copies of the head tensors go, which outlive the next call: a dict, empty at first, whose arrays
                are used again at the next call with it. None copies nothing.

        Returns:
            `out`; or the engine's own tensors, valid until the next call.

        Raises:
            EngineError: the engine failed, or the estimator was closed.
        """
        heads = self._adapter.infer(images)
        if out is None:
            return heads
        for name, tensor in heads.items():
            if name in out:
                np.copyto(out[name], tensor)
            else:
                out[name] = tensor.copy()
        return out

    def decode(self, heads: Mapping[str, NDArray[np.float32]], geometry: FrameGeometry, index: int = 0) -> Poses:
        """Do the third stage: turn head tensors into the poses of one frame. Any thread may.

        Args:
            heads: what `infer` gave.
            geometry: what `preprocess` gave for this frame.
            index: which image of the batch.

        Raises:
            EngineError: a head tensor is not finite.
        """
        return self._decode(heads, geometry, index)

    def close(self) -> None:
        """Release the engine; calling it twice is harmless."""
        self._adapter.close()

    def _camera_of(self, frame_bgr: NDArray[np.uint8]) -> Camera | None:
        if self._camera is None or isinstance(self._camera, Camera):
            return self._camera
        return centred_camera(self._camera, (frame_bgr.shape[1], frame_bgr.shape[0]))

    def _estimate(
        self, frames: Sequence[NDArray[np.uint8]], decode: Callable[..., T], camera: Camera | None = None
    ) -> list[T]:
        """Run at most a batch; slots without a frame keep an older image, whose outputs nobody reads."""
        size = self._spec.input
        with self._turn:  # the images, and the engine's tensors until they are decoded
            geometries = [
                replace(preprocess(frame, size, out=self._images[i])[1], camera=camera or self._camera_of(frame))
                for i, frame in enumerate(frames)
            ]
            heads = self._adapter.infer(self._images)
            return [decode(heads, geometry, i) for i, geometry in enumerate(geometries)]


def _checked_camera(camera: Camera | float | None, spec: ModelSpec) -> Camera | float | None:
    """Refuse a camera that would say nothing, and a focal length that is none."""
    if camera is None:
        return None
    if spec.dimensions != 3:
        got, do = "one of two", "leave the camera out"
        raise ConfigError("camera", expected="a model of three dimensions", got=got, do=do)
    if not isinstance(camera, Camera):
        centred_camera(camera, (1.0, 1.0))
    return camera
