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


def pose_outputs(spec: ModelSpec) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return numpy's type and the shape, the batch aside, of each output of the decode step.

    Beside COUNT they are fields of `Poses`, padded to `decode.max_poses`: `keypoints_xy` and `sigma_xy` where the model
    has keypoints, `boxes_xyxy` where it has none, `classes` where it knows several, `keypoints_3d` where it knows the
    third dimension; lengths in pixels of the frame, or metres.
    """
    limit, joints = spec.decode.max_poses, len(spec.keypoints.names)
    outputs: dict[str, tuple[str, tuple[int, ...]]] = {COUNT: ("int32", (1,))}
    if joints:
        outputs["keypoints_xy"] = ("float32", (limit, joints, 2))
    outputs["scores"] = ("float32", (limit,))
    if joints:
        outputs["sigma_xy"] = ("float32", (limit, joints, 2))
    else:
        outputs["boxes_xyxy"] = ("float32", (limit, 4))
    if len(spec.classes) > 1:
        outputs["classes"] = ("int32", (limit,))
    if spec.dimensions == 3:
        outputs["keypoints_3d"] = ("float32", (limit, joints, 3))
    return outputs


class DecodeStep:
    """Decode batches of one model; it holds no state between calls.

    Args:
        spec: the model's spec.
        decoder: of the model's family.
    """

    def __init__(self, spec: ModelSpec, decoder: Decoder) -> None:
        self._spec, self._decode, self._outputs = spec, decoder, pose_outputs(spec)

    @property
    def input_names(self) -> tuple[str, ...]:
        """What a call takes: the head tensors and the frame sizes."""
        return (*self._spec.outputs, FRAME_WH)

    def __call__(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Decode a batch.

        Args:
            tensors: by name, those of `input_names`; the first axis of each is the batch. Not modified.

        Returns:
            What `pose_outputs` lists.

        Raises:
            InputError: the frame sizes are not (n, 2) positive whole numbers, one for each image of the batch.
            EngineError: a head tensor is misshapen, or not finite.
        """
        sizes = tensors[FRAME_WH]
        heads = {name: tensors[name] for name in self._spec.outputs}
        _check_sizes(sizes, [len(tensor) for tensor in heads.values()])
        found: dict[str, NDArray[Any]] = {
            name: np.zeros((len(sizes), *shape), dtype) for name, (dtype, shape) in self._outputs.items()
        }
        for i, (width, height) in enumerate(sizes.tolist()):
            poses = self._decode(heads, frame_geometry((width, height), self._spec.input), i)
            found[COUNT][i] = len(poses)
            for name in found.keys() - {COUNT}:
                found[name][i, : len(poses)] = getattr(poses, name)
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
