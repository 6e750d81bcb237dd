"""Results as text: JSON, CSV and COCO records."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.files import name_text
from mdpose_edge.datasets.coco import results_of
from mdpose_edge.datasets.image_ids import ImageIds
from mdpose_edge.poses import Poses
from mdpose_edge.stream.result import FrameResult

PIXEL_DECIMALS = 2
"""Of coordinates and sigmas."""
METRE_DECIMALS = 4
TIME_DECIMALS = 4
"""Of seconds."""
MS_DECIMALS = 3
_KEYPOINT_COLUMNS = ("x", "y", "sigma_x", "sigma_y")
"""Of CSV, after the keypoint's name."""
_BOX_COLUMNS = ("box_x1", "box_y1", "box_x2", "box_y2", "class", "class_name")
"""Of CSV, in place of keypoints where a model has none."""


def pose_records(
    poses: Poses, track_ids: NDArray[np.int64] | None = None, classes: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return each pose as {"score", "keypoints_xy", "sigma_xy"}, px, and what else there is.

    "box_xyxy", px, where the model itself gives boxes; "class", an index into `ModelSpec.classes`, where it knows
    several, and "class_name" where `classes` are these; "keypoints_3d" and "metric" where it knows the third dimension;
    "track_id" where somebody tracks.
    """
    keypoints = poses.keypoints_xy.astype(np.float64).round(PIXEL_DECIMALS).tolist()
    sigmas = poses.sigma_xy.astype(np.float64).round(PIXEL_DECIMALS).tolist()
    records = [
        # str() of a float32 is the shortest decimal that reads back as the same float32.
        {"score": float(str(score)), "keypoints_xy": points, "sigma_xy": lengths}
        for score, points, lengths in zip(poses.scores, keypoints, sigmas, strict=True)
    ]
    for key, values in _optional_fields(poses, track_ids, classes):
        for record, value in zip(records, values, strict=True):
            record[key] = value
    return records


def _optional_fields(
    poses: Poses, track_ids: NDArray[np.int64] | None, classes: Sequence[str]
) -> Iterator[tuple[str, list[Any]]]:
    if poses.model_boxes_xyxy is not None:
        yield "box_xyxy", poses.model_boxes_xyxy.astype(np.float64).round(PIXEL_DECIMALS).tolist()
    if poses.classes is not None:
        yield "class", poses.classes.tolist()
        if classes:
            yield "class_name", class_names(poses, classes)
    if poses.keypoints_3d is not None:
        yield "keypoints_3d", poses.keypoints_3d.astype(np.float64).round(METRE_DECIMALS).tolist()
        yield "metric", [poses.metric] * len(poses)
    if track_ids is not None:
        yield "track_id", track_ids.tolist()


def class_names(poses: Poses, classes: Sequence[str]) -> list[str]:
    """Return the name of each pose's class; nothing where there is none."""
    if poses.classes is None or not classes:
        return [""] * len(poses)
    return [classes[number] for number in poses.classes.tolist()]


def frame_record(result: FrameResult, classes: Sequence[str] = ()) -> dict[str, Any]:
    """Return a frame as the JSONL sink writes it."""
    frame = result.frame
    height, width = frame.image_bgr.shape[:2]
    return {
        "frame": frame.index,
        "time_s": round(frame.time_s, TIME_DECIMALS),
        "source": name_text(frame.name),
        "width": width,
        "height": height,
        "poses": pose_records(result.poses, result.track_ids, classes),
        "stage_ms": {stage: round(ms, MS_DECIMALS) for stage, ms in result.stage_ms.items()},
        "latency_ms": round(result.latency_ms, MS_DECIMALS),
    }


def csv_header(names: Sequence[str]) -> str:
    """Return the first line of a CSV file for keypoints of these names, or for boxes where there are none."""
    keypoints = [f"{name}_{part}" for name in names for part in _KEYPOINT_COLUMNS]
    return _csv_line(["frame", "time_s", "source", "track_id", "score", *(keypoints or _BOX_COLUMNS)])


def csv_lines(result: FrameResult, classes: Sequence[str] = ()) -> str:
    """Return a line for each pose of a frame."""
    poses, frame = result.poses, result.frame
    rows = _keypoint_cells(poses) if poses.keypoints_xy.shape[1] else _box_cells(poses, classes)
    ids = [""] * len(poses) if result.track_ids is None else result.track_ids.tolist()
    time_s = round(frame.time_s, TIME_DECIMALS)
    return "".join(
        _csv_line([frame.index, time_s, name_text(frame.name), track_id, score, *row])
        for track_id, score, row in zip(ids, poses.scores, rows, strict=True)
    )


def _keypoint_cells(poses: Poses) -> list[list[Any]]:
    values = np.concatenate([poses.keypoints_xy, poses.sigma_xy], axis=2).astype(np.float64).round(PIXEL_DECIMALS)
    cells: list[list[Any]] = values.reshape(len(poses), 4 * values.shape[1]).tolist()
    return cells


def _box_cells(poses: Poses, names: Sequence[str]) -> list[list[Any]]:
    boxes = poses.boxes_xyxy.astype(np.float64).round(PIXEL_DECIMALS).tolist()
    classes = [""] * len(poses) if poses.classes is None else poses.classes.tolist()
    rows = zip(boxes, classes, class_names(poses, names), strict=True)
    return [[*box, number, name] for box, number, name in rows]


def coco_records(result: FrameResult, ids: ImageIds | None = None) -> list[dict[str, Any]]:
    """Return the poses of a frame as COCO results, and each one's track_id where somebody tracks.

    Args:
        result: the frame's.
        ids: of image files; None, and any other frame, has its number as its id, counted from 1.
    """
    frame = result.frame
    if ids is not None and frame.is_file:
        records = results_of(ids.by_name[frame.name], result.poses, ids.category_ids)
    else:
        records = results_of(frame.index + 1, result.poses)
    if result.track_ids is not None:
        for record, track_id in zip(records, result.track_ids.tolist(), strict=True):
            record["track_id"] = track_id
    return records


def _csv_line(values: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()
