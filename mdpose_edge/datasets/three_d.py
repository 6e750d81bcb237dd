"""The third dimension of annotations, under keys beside COCO's own: joints in metres, and the camera of an image.

An annotation's `keypoints_3d` holds [x, y, z] of each keypoint in the camera's axes (x right, y down, z forward),
hidden ones and those outside the picture included. An image's `camera` holds `focal`, one length or [fx, fy], and
`principal_point`, px. People and images without them are of two dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.camera import Camera
from mdpose_edge.errors import ConfigError, DataError

FARTHEST = 1e5
"""m: what is farther is a mistake of units or worse."""
_NO_CAMERA = (np.nan,) * 4
_DO = "correct the file, or take the key away"


def third_dimension(
    people: Sequence[Mapping[str, Any]], images: Sequence[Mapping[str, Any]], num_keypoints: int, where: str
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Read what annotations and images say of the third dimension.

    Args:
        people: annotations, each of an image that is listed.
        images: records, with ids that differ.
        num_keypoints: of a person.
        where: the file, for messages.

    Returns:
        (people, K, 3) metres, NaN where nothing is said, and the images' fx, fy, cx, cy, (images, 4) px, likewise; None
        for both where no annotation has joints.

    Raises:
        DataError: joints or a camera are no numbers, or joints have no camera.
    """
    if all(person.get("keypoints_3d") is None for person in people):
        return None, None
    cameras = {image["id"]: _camera_of(image, where) for image in images}
    joints = np.full((len(people), num_keypoints, 3), np.nan)
    for row, person in enumerate(people):
        given = person.get("keypoints_3d")
        if given is None:
            continue
        if np.isnan(cameras[person["image_id"]]).any():
            got = f"none on image {person['image_id']}"
            raise DataError(where, expected="a camera with each image that has keypoints_3d", got=got, do=_DO)
        joints[row] = _joints_of(given, num_keypoints, person.get("id", row), where)
    return joints, np.array([cameras[image["id"]] for image in images], np.float64)


def camera_at(cameras: NDArray[np.float64] | None, index: int) -> Camera | None:
    """Return the camera of an image, or None where it is not known."""
    if cameras is None or np.isnan(cameras[index]).any():
        return None
    return Camera(*cameras[index].tolist())


def _joints_of(given: Any, num_keypoints: int, name: Any, where: str) -> NDArray[np.float64]:
    try:
        joints = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        joints = np.empty(0)
    if joints.shape != (num_keypoints, 3) or not (np.abs(joints) < FARTHEST).all():
        expected = f"keypoints_3d of {num_keypoints} finite [x, y, z] in metres"
        raise DataError(where, expected=expected, got=f"{str(given)[:60]} in annotation {name}", do=_DO)
    return joints


def _camera_of(image: Mapping[str, Any], where: str) -> tuple[float, ...]:
    given = image.get("camera")
    if given is None:
        return _NO_CAMERA
    try:
        focal, center = given["focal"], given["principal_point"]
        fx, fy = focal if isinstance(focal, list) else (focal, focal)
        camera = Camera(float(fx), float(fy), *map(float, center))
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        expected = "a camera with focal (above 0) and principal_point, px"
        raise DataError(where, expected=expected, got=f"{str(given)[:60]} on image {image['id']}", do=_DO) from error
    return camera.fx, camera.fy, camera.cx, camera.cy
