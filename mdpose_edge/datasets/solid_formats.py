"""MuPoTS-3D and CMU Panoptic rewritten in COCO's form, with joints in metres and cameras: see three_d.py.

MuPoTS-3D: the JSON in which its annotations circulate (images with `intrinsic`, annotations with `keypoints_cam` in mm
and `keypoints_img`), since the data set's own are Matlab files. CMU Panoptic: a sequence's folder as its toolbox
extracts it: the calibration, a file of bodies for each frame, in cm of the world, and the pictures of one HD camera,
which is the split. People of whom a joint is not known have no third dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.json_text import parse_json
from mdpose_edge.datasets.keypoints import MUPOTS_KEYPOINTS, PANOPTIC_KEYPOINTS
from mdpose_edge.errors import DataError

BODIES = "hdPose3d_stage1_coco19"
"""Panoptic's folder of bodies."""
MM, CM = 1e-3, 1e-2
"""In metres."""
SUFFIXES = (".jpg", ".png")
_DO = "use the data set's own files, or choose another --format"


def from_mupots(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Rewrite MuPoTS-3D.json; people whom it calls invalid become a crowd, which is not measured on.

    Raises:
        DataError: a record lacks what it should have.
    """
    try:
        images = [
            {**image, "camera": {"focal": image["intrinsic"][:2], "principal_point": image["intrinsic"][2:]}}
            for image in data["images"]
        ]
        sizes = {image["id"]: (image["width"], image["height"]) for image in images}
        annotations = [
            _person(
                number,
                person["image_id"],
                np.asarray(person["keypoints_img"], np.float64)[:, :2],
                MM * np.asarray(person["keypoints_cam"], np.float64),
                sizes[person["image_id"]],
                iscrowd=int(not person.get("is_valid", 1)),
            )
            for number, person in enumerate(data["annotations"], 1)
        ]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        expected = "images with intrinsic, width and height, annotations with keypoints_img and keypoints_cam"
        got = f"a record that lacks it: {type(error).__name__} {error}"
        raise DataError(where, expected=expected, got=got, do=_DO) from error
    return {"images": images, "annotations": annotations, "categories": [_category(MUPOTS_KEYPOINTS.names)]}


def from_panoptic(data: Mapping[str, Any], calibration_file: Path, camera_name: str) -> dict[str, Any]:
    """Rewrite the frames of a Panoptic sequence that one HD camera has pictures of.

    Args:
        data: the content of the calibration file.
        calibration_file: beside which the bodies and pictures are.
        camera_name: such as 00_16.

    Raises:
        DataError: there is no such camera, or a file is not as it should be.
    """
    camera = _panoptic_camera(data, str(calibration_file), camera_name)
    folder = calibration_file.parent / "hdImgs" / camera_name
    pictures = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES) if folder.is_dir() else []
    width, height = camera["resolution"]
    seen = {"focal": [camera["K"][0, 0], camera["K"][1, 1]], "principal_point": camera["K"][:2, 2].tolist()}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures, 1):
        frame = picture.stem.removeprefix(f"{camera_name}_")
        bodies = calibration_file.parent / BODIES / f"body3DScene_{frame}.json"
        if not bodies.is_file():
            continue  # the first and last frames of a sequence have none
        images.append({"id": number, "file_name": picture.name, "width": width, "height": height, "camera": seen})
        for world, known in _bodies(bodies):
            joints = world @ camera["R"].T + camera["t"]
            points, _ = cv2.projectPoints(joints, np.zeros(3), np.zeros(3), camera["K"], camera["distCoef"])
            known = known & (joints[:, 2] > 0)
            if known.any():
                size = (width, height)
                annotations.append(
                    _person(
                        len(annotations) + 1, number, points[:, 0].astype(np.float64), CM * joints, size, known=known
                    )
                )
    return {"images": images, "annotations": annotations, "categories": [_category(PANOPTIC_KEYPOINTS.names)]}


def _panoptic_camera(data: Mapping[str, Any], where: str, name: str) -> dict[str, Any]:
    try:
        named = {camera["name"]: camera for camera in data["cameras"] if camera.get("type") == "hd"}
        if name not in named:
            got, do = name, "name one of these with --split"
            raise DataError(where, expected=f"an HD camera of {', '.join(sorted(named)) or 'none'}", got=got, do=do)
        found = named[name]
        arrays = {key: np.asarray(found[key], np.float64) for key in ("K", "R", "t", "distCoef")}
        shapes = {"K": (3, 3), "R": (3, 3), "t": (3,), "distCoef": (5,)}
        arrays = {key: array.reshape(shapes[key]) for key, array in arrays.items()}
        width, height = map(int, found["resolution"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        expected, got = "cameras with name, K, R, t, distCoef and resolution", f"{type(error).__name__} {error}"
        raise DataError(where, expected=expected, got=got, do=_DO) from error
    return {**arrays, "resolution": (width, height)}


def _bodies(path: Path) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Return the joints (19, 3) cm of the world of each body of a frame, and which are known."""
    try:
        for body in parse_json(path.read_bytes())["bodies"]:
            joints = np.asarray(body["joints19"], np.float64).reshape(19, 4)
            yield joints[:, :3], joints[:, 3] > 0
    except (OSError, KeyError, TypeError, ValueError) as error:
        expected, got = "bodies with joints19, 19 x [x, y, z, c]", f"{type(error).__name__} {error}"
        raise DataError(str(path), expected=expected, got=got, do=_DO) from error


def _person(
    number: int,
    image_id: int,
    points: NDArray[np.float64],
    joints: NDArray[np.float64],
    size_wh: tuple[int, int],
    *,
    known: NDArray[np.bool_] | None = None,
    iscrowd: int = 0,
) -> dict[str, Any]:
    """Return an annotation: keypoints in the picture are labelled, and the box is around them."""
    everywhere = np.ones(len(points), np.bool_) if known is None else known
    inside = everywhere & ((points >= 0) & (points < size_wh)).all(axis=1)
    shown = points[inside] if inside.any() else np.zeros((1, 2))
    low, high = shown.min(axis=0), shown.max(axis=0)
    width, height = (high - low).tolist()
    keypoints = np.concatenate([np.where(inside[:, None], points, 0.0), 2.0 * inside[:, None]], axis=1)
    record = {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "keypoints": keypoints.ravel().tolist(),
        "num_keypoints": int(inside.sum()),
        "bbox": [*low.tolist(), width, height],
        "area": width * height,
        "iscrowd": iscrowd,
    }
    return {**record, "keypoints_3d": joints.tolist()} if everywhere.all() else record


def _category(names: tuple[str, ...]) -> dict[str, Any]:
    return {"id": 1, "name": "person", "keypoints": list(names)}
