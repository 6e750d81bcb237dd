"""The decode step of the ensemble: head tensors and frame sizes of a batch become padded arrays.

It runs the decoder of every other engine. A repository carries this module, the family's decoder and what both import,
so that a stock server needs numpy and nothing else: import nothing here that would change that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.errors import InputError
from mdpose_edge.families.base import Decoder
from mdpose_edge.geometry import frame_geometry
from mdpose_edge.spec import ModelSpec

FRAME_WH = "frame_wh"
"""Input: (n, 2) int32, width and height of each frame before it was resized."""
COUNT = "count"
"""Output: (n, 1) int32, the poses found in each image; what stands after them in the other outputs is zero."""
KEYPOINTS_XY = "keypoints_xy"
"""Output: (n, max_poses, K, 2) float32, pixels of the frame, best pose first."""
SCORES = "scores"
"""Output: (n, max_poses) float32."""
SIGMA_XY = "sigma_xy"
"""Output: (n, max_poses, K, 2) float32, pixels of the frame: the standard deviation of each coordinate."""


class DecodeStep:
    """Decode batches of one model; it holds no state between calls.

    Args:
        spec: the model's spec.
        decoder: of the model's family.
    """

    def __init__(self, spec: ModelSpec, decoder: Decoder) -> None:
        self._spec, self._decode = spec, decoder

    @property
    def input_names(self) -> tuple[str, ...]:
        """What a call takes: the head tensors and the frame sizes."""
        return (*self._spec.outputs, FRAME_WH)

    def __call__(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Decode a batch.

        Args:
            tensors: by name, those of `input_names`; the first axis of each is the batch. Not modified.

        Returns:
            COUNT, KEYPOINTS_XY, SCORES and SIGMA_XY.

        Raises:
            InputError: the frame sizes are not (n, 2) positive whole numbers, one for each image of the batch.
            EngineError: a head tensor is misshapen, or not finite.
        """
        sizes = tensors[FRAME_WH]
        heads = {name: tensors[name] for name in self._spec.outputs}
        _check_sizes(sizes, [len(tensor) for tensor in heads.values()])
        limit, joints = self._spec.decode.max_poses, len(self._spec.keypoints.names)
        found: dict[str, NDArray[Any]] = {
            COUNT: np.zeros((len(sizes), 1), np.int32),
            KEYPOINTS_XY: np.zeros((len(sizes), limit, joints, 2), np.float32),
            SCORES: np.zeros((len(sizes), limit), np.float32),
            SIGMA_XY: np.zeros((len(sizes), limit, joints, 2), np.float32),
        }
        for i, (width, height) in enumerate(sizes.tolist()):
            poses = self._decode(heads, frame_geometry((width, height), self._spec.input), i)
            found[COUNT][i] = len(poses)
            found[KEYPOINTS_XY][i, : len(poses)] = poses.keypoints_xy
            found[SCORES][i, : len(poses)] = poses.scores
            found[SIGMA_XY][i, : len(poses)] = poses.sigma_xy
        return found


def _check_sizes(sizes: NDArray[Any], batches: list[int]) -> None:
    if sizes.dtype.kind not in "iu" or sizes.ndim != 2 or sizes.shape[1] != 2:
        got = f"{sizes.dtype} {sizes.shape}"
        raise InputError(FRAME_WH, expected="whole numbers (n, 2)", got=got, do="send width and height of each frame")
    if set(batches) != {len(sizes)}:
        got = f"{len(sizes)} for {', '.join(map(str, sorted(set(batches))))} images"
        raise InputError(FRAME_WH, expected="one size for each image", got=got, do="send as many as images")
    if (sizes < 1).any():
        got = str(sizes[(sizes < 1).any(axis=1)][0].tolist())
        raise InputError(FRAME_WH, expected="sizes of at least 1 px", got=got, do="send width, then height")
