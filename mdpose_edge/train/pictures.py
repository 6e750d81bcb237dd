"""What the network sees and says in the middle of a training: the truth, and beside it the prediction."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mdpose_edge.draw import contact_sheet, draw_poses
from mdpose_edge.families.registry import make_decoder
from mdpose_edge.poses import Poses
from mdpose_edge.preprocess import FrameGeometry
from mdpose_edge.spec import ModelSpec
from mdpose_edge.train.data import Batch
from mdpose_edge.train.predict import head_tensors, in_eval_mode

IMAGES = 4
CELL_PX = 360
WHOLE_INPUT = FrameGeometry((1.0, 1.0), (0.0, 0.0))


def training_picture(network: nn.Module, spec: ModelSpec, batch: Batch) -> NDArray[np.uint8]:
    """Paint the first images of a batch in pairs: labelled keypoints, or boxes, left, the decoded poses right.

    Args:
        network: in training; its mode and statistics are left as they are.
        spec: its spec, whose thresholds decide what is a pose.
        batch: augmented images with their persons, on the CPU.

    Returns:
        (H, W, 3) uint8 BGR. The ellipses' semi-axes are the standard deviation of each coordinate.
    """
    decode = make_decoder(spec)
    device = next(network.parameters()).device
    cells: list[NDArray[np.uint8]] = []
    for index in range(min(IMAGES, len(batch.images))):
        image = batch.images[index].numpy()
        with in_eval_mode(network):
            heads = head_tensors(network, spec, batch.images[index : index + 1].to(device))
        cells.append(draw_poses(image, _truth(batch, index), spec.keypoints, classes=spec.classes))
        found = decode(heads, WHOLE_INPUT)
        cells.append(draw_poses(image, found, spec.keypoints, sigma=True, classes=spec.classes))
    predicted = "prediction, sigma as ellipses" if spec.keypoints.names else "prediction"
    titles = ["truth", predicted] * (len(cells) // 2)
    return contact_sheet(cells, 4, (CELL_PX, round(CELL_PX * spec.input.height / spec.input.width)), titles)


def _truth(batch: Batch, index: int) -> Poses:
    """Return the persons of an image in pixels of the input, NaN where a keypoint is not labelled."""
    if batch.boxes_xyxy is not None and batch.classes is not None:
        return _true_boxes(batch.boxes_xyxy[index].numpy(), batch.classes[index].numpy())
    seen = batch.labelled[index]
    persons = seen.any(dim=1)
    keypoints_xy = torch.where(seen[persons, :, None], batch.keypoints_xy[index, persons], torch.nan).numpy()
    return Poses(keypoints_xy, np.ones(len(keypoints_xy), np.float32), np.zeros_like(keypoints_xy))


def _true_boxes(boxes_xyxy: NDArray[np.float32], classes: NDArray[np.int64]) -> Poses:
    shown = (boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(axis=1)
    nothing = np.zeros((int(shown.sum()), 0, 2), np.float32)
    return Poses(nothing, np.ones(len(nothing), np.float32), nothing.copy(), boxes_xyxy[shown], classes[shown])
