"""A family for tests: a map of centres and a map of sizes, at which one fixed skeleton stands; numpy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mdpose_edge.families.base import Heads, check_heads, head_of, read_constants
from mdpose_edge.families.nms import box_nms
from mdpose_edge.geometry import FrameGeometry
from mdpose_edge.poses import Poses
from mdpose_edge.spec import DecodeSpec, HeadSpec, ModelSpec

STRIDE = 8
HEADS = (HeadSpec("centre", 1, STRIDE), HeadSpec("size", 2, STRIDE))
EVALUATION = DecodeSpec(score_threshold=1e-3, max_poses=20)


@dataclass(frozen=True)
class Constants:
    skeleton_xy: tuple[tuple[float, float], ...]
    """Each keypoint in the box of a person, which spans [-1, 1]."""


class TemplateDecoder:
    def __init__(self, spec: ModelSpec, options: DecodeSpec) -> None:
        check_heads(spec, HEADS)
        self._spec, self._options = spec, options
        self._skeleton = np.array(read_constants(spec, Constants).skeleton_xy, np.float32).reshape(-1, 2)

    def __call__(self, heads: Heads, geometry: FrameGeometry, index: int = 0) -> Poses:
        logits, sizes = (head_of(heads, self._spec, head, index) for head in HEADS)
        scores = 1 / (1 + np.exp(-logits[0]))
        cells = np.argsort(-scores, kind="stable")[: self._options.pre_nms]
        cells = cells[scores[cells] > self._options.score_threshold]
        rows, columns = np.divmod(cells, self._spec.cells(STRIDE)[1])
        centres = (np.stack([columns, rows], axis=1) + 0.5) * STRIDE
        half = np.exp(np.clip(sizes[:, cells].T, -9, 9)) * STRIDE
        boxes = np.concatenate([centres - half, centres + half], axis=1)
        kept = box_nms(boxes.astype(np.float32), self._options.nms_threshold, self._options.max_poses)
        points = centres[kept, None] + half[kept, None] * self._skeleton
        sigma = geometry.lengths_to_frame(np.broadcast_to(0.2 * half[kept, None], points.shape).astype(np.float32))
        corners = geometry.to_frame(boxes[kept].astype(np.float32).reshape(-1, 2, 2)).reshape(-1, 4)
        return Poses(
            geometry.to_frame(points.astype(np.float32)), scores[cells[kept]].astype(np.float32), sigma,
            None if len(self._skeleton) else corners,
        )  # fmt: skip


make_decoder = TemplateDecoder
