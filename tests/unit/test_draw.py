from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge.draw import BOX_BGR, CENTRE_BGR, LEFT_BGR, RIGHT_BGR, SHEET_BGR, contact_sheet, draw_poses
from mdpose_edge.poses import Poses
from mdpose_edge.spec import COCO_KEYPOINTS, KeypointSpec

THREE = KeypointSpec(
    names=("head", "left_hand", "right_hand"),
    flip_pairs=((1, 2),),
    skeleton=((0, 1), (0, 2), (1, 2)),
    sigmas=(0.1,) * 3,
)
GREEN = (0, 128, 0)


def plain(height: int = 240, width: int = 320) -> NDArray[np.uint8]:
    return np.full((height, width, 3), GREEN, np.uint8)


def one_pose(points: list[tuple[float, float]], sigma: float = 10.0) -> Poses:
    xy = np.array([points], np.float32)
    return Poses(xy, np.array([0.9], np.float32), np.full_like(xy, sigma))


TRIANGLE = [(160.5, 60.5), (220.5, 180.5), (100.5, 180.5)]


def pixel(image: NDArray[np.uint8], x: float, y: float) -> tuple[int, ...]:
    return tuple(image[int(y), int(x)].tolist())


def test_sides_have_their_colours() -> None:
    painted = draw_poses(plain(), one_pose(TRIANGLE), THREE)
    assert pixel(painted, *TRIANGLE[0]) == CENTRE_BGR
    assert pixel(painted, *TRIANGLE[1]) == LEFT_BGR
    assert pixel(painted, *TRIANGLE[2]) == RIGHT_BGR
    assert pixel(painted, 190, 120) == LEFT_BGR  # the limb from the head to the left
    assert pixel(painted, 130, 120) == RIGHT_BGR
    assert pixel(painted, 160, 180) == CENTRE_BGR  # from the left to the right


def test_boxes_of_a_model_are_drawn_by_class_also_without_keypoints() -> None:
    nothing = np.zeros((2, 0, 2), np.float32)
    boxes = np.float32([[40.5, 100.5, 140.5, 200.5], [180.5, 100.5, 280.5, 200.5]])
    poses = Poses(nothing, np.float32([0.9, 0.8]), nothing, boxes, np.array([0, 1]))
    painted = draw_poses(plain(), poses, KeypointSpec((), (), (), ()), sigma=True)
    assert pixel(painted, 40, 150) == BOX_BGR[0] and pixel(painted, 280, 150) == BOX_BGR[1]
    assert pixel(painted, 90, 150) == GREEN


def test_the_frame_is_not_touched_and_far_pixels_stay() -> None:
    frame = plain()
    painted = draw_poses(frame, one_pose(TRIANGLE), THREE, sigma=True)
    assert (frame == plain()).all()
    assert (painted[:10] == GREEN).all()
    assert (painted[:, :40] == GREEN).all()


def test_nobody_leaves_the_frame_as_it_is() -> None:
    painted = draw_poses(plain(), Poses.empty(17), COCO_KEYPOINTS, sigma=True)
    assert (painted == plain()).all()


def test_a_dot_is_centred_on_its_pixel_and_moves_by_fractions() -> None:
    def centre(x: float) -> float:
        alone = one_pose([(x, 100.5), (np.nan, np.nan), (np.nan, np.nan)])
        painted = draw_poses(plain(), alone, THREE)[95:106].astype(int)
        weight = np.abs(painted - GREEN).sum(axis=(0, 2))
        return float((weight * (np.arange(320) + 0.5)).sum() / weight.sum())

    assert centre(150.5) == pytest.approx(150.5, abs=0.02)
    assert centre(150.75) == pytest.approx(150.75, abs=0.15)


def test_ellipses_are_as_wide_as_sigma_and_translucent() -> None:
    pose = one_pose(TRIANGLE)
    pose.sigma_xy[0, 1] = (30, 15)
    changed = (draw_poses(plain(), pose, THREE, sigma=True) != draw_poses(plain(), pose, THREE)).any(axis=2)
    rows, columns = np.nonzero(changed[:, 195:])
    assert columns.max() + 195 == pytest.approx(220 + 30, abs=1)
    assert rows.max() == pytest.approx(180 + 15, abs=1)
    blended = draw_poses(plain(), pose, THREE, sigma=True)[180, 245]
    assert all(min(a, b) < c < max(a, b) for a, b, c in zip(GREEN[1:], LEFT_BGR[1:], blended[1:], strict=True))


def test_an_ellipses_rim_is_seen_where_its_inside_is_under_the_dot() -> None:
    painted = draw_poses(plain(), pose := one_pose(TRIANGLE, sigma=10.0), THREE, sigma=True)
    x, y = pose.keypoints_xy[0, 1]
    rim, inside = (np.array(pixel(painted, x + dx, y + dy)) for dx, dy in ((0.0, 10.0), (3.0, 7.0)))
    assert np.abs(rim - LEFT_BGR).sum() < 0.5 * np.abs(inside - LEFT_BGR).sum()


def test_a_keypoint_that_is_nan_is_left_out_with_its_limbs() -> None:
    points = [*TRIANGLE[:2], (np.nan, np.nan)]
    painted = draw_poses(plain(), one_pose(points), THREE, sigma=True)
    assert pixel(painted, 190, 120) != GREEN
    assert pixel(painted, 130, 120) == GREEN
    assert (painted[:20, :20] == GREEN).all()


@pytest.mark.parametrize("value", [-1e9, -500.0, 1e9, np.inf, np.nan])
def test_points_outside_the_frame_do_no_harm(value: float) -> None:
    painted = draw_poses(plain(), one_pose([TRIANGLE[0], (value, value), (value, 5.0)], 1e9), THREE, sigma=True)
    assert painted.shape == (240, 320, 3)


def test_large_people_get_wider_limbs() -> None:
    def painted_pixels(size: float) -> int:
        pose = one_pose([(20, 300), (20 + size, 300), (np.nan, np.nan)])
        column = draw_poses(plain(600, 800), pose, THREE)[:, int(20 + size / 2)]
        return int((column != GREEN).any(axis=1).sum())

    assert 1 <= painted_pixels(60) < painted_pixels(400)


def test_a_contact_sheet_keeps_proportions_order_and_captions() -> None:
    colors = [(10, 20, 250), (250, 20, 10), (20, 250, 20)]
    images = [np.full((50, 100, 3), color, np.uint8) for color in colors]
    sheet = contact_sheet(images, 2, (160, 120), ["one", "two", "three"])
    boxes = []
    for color in colors:
        rows, columns = np.nonzero((sheet == color).all(axis=2))
        boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    assert all((right - left, bottom - top) == (160, 80) for left, top, right, bottom in boxes)
    assert boxes[0][0] == boxes[2][0] < boxes[1][0]
    assert boxes[0][1] == boxes[1][1] < boxes[2][1]
    assert pixel(sheet, 0, 0) == SHEET_BGR
    bare = contact_sheet(images, 2, (160, 120))
    assert sheet.shape[0] > bare.shape[0]
    assert (sheet.max(axis=2) > 200).sum() > sum((b[2] - b[0]) * (b[3] - b[1]) for b in boxes)  # there is lettering


def test_a_contact_sheet_needs_images_and_a_title_each() -> None:
    with pytest.raises(ValueError, match="got 0"):
        contact_sheet([], 2, (160, 120))
    with pytest.raises(ValueError, match="got 1 and 2"):
        contact_sheet([plain()], 2, (160, 120), ["a", "b"])
