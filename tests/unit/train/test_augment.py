"""Random views: the matrix does what the steps would do one by one, and image and keypoints move together."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.pipeline import take_steps
from mdpose_edge.datasets.images import decode_image
from mdpose_edge.preprocess import preprocess
from mdpose_edge.spec import COCO_KEYPOINTS, InputSpec
from mdpose_edge.train.augment import (
    Steps,
    View,
    _crop,
    _expansion,
    _rotation,
    clipped_centers,
    compose,
    random_view,
    reduction,
    warp_image,
    warp_people,
)
from mdpose_edge.train.config import AugmentConfig

FRAME_WH = (320, 240)
INPUT = InputSpec(192, 256)
NONE = AugmentConfig(rotation_prob=0, expand_prob=0, crop_prob=0, flip_prob=0)
EVERYTHING = AugmentConfig(rotation_prob=1, expand_prob=1, crop_prob=1, flip_prob=0.5)
CENTERS = np.array([[160.0, 120.0]], np.float32)
BOXES = np.array([[150.0, 110.0, 20.0, 20.0]], np.float32)
"""Around CENTERS."""
CORNERS = np.array([[0, 0], [320, 0], [0, 240], [320, 240]], np.float64)
seeds = st.integers(0, 2**32 - 1)


def view_of(seed: int, config: AugmentConfig, input_spec: InputSpec = INPUT) -> View:
    return random_view(np.random.default_rng(seed), FRAME_WH, CENTERS, input_spec, config)


def apply(matrix: NDArray[np.float64], points: NDArray[np.floating]) -> NDArray[np.float64]:
    homogeneous = np.column_stack([points, np.ones(len(points))])
    return np.asarray((homogeneous @ matrix.T)[:, :2])


def test_without_augmentation_the_view_is_the_resize_of_the_device() -> None:
    view = view_of(0, NONE)
    np.testing.assert_allclose(view.matrix, np.diag([256 / 320, 192 / 240, 1.0]))
    assert not view.flipped


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("size", [(192, 256), (480, 480), (60, 100)], ids=["smaller", "larger", "much smaller"])
def test_plain_view_shows_what_the_device_sees(size: tuple[int, int], resize: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (15, 20, 3), np.uint8)
    frame = np.asarray(cv2.resize(noise, FRAME_WH, interpolation=cv2.INTER_CUBIC), np.uint8)
    spec = InputSpec(*size, resize=resize)  # type: ignore[arg-type]
    seen, geometry = preprocess(frame, spec)
    warped = warp_image(frame, view_of(0, NONE, spec), spec)
    # Two pixels from the frame's edge on, where the resize repeats the edge and the warp blends in the mean colour.
    (left, top), (right, bottom) = geometry.to_network(np.float32([[0, 0], FRAME_WH])).round().astype(int)
    inner = np.s_[top + 2 : bottom - 2, left + 2 : right - 2]
    assert np.abs(seen[inner].astype(int) - warped[inner]).max() <= 2


@given(seeds)
def test_rotation_turns_about_the_centre_within_its_range(seed: int) -> None:
    view = view_of(seed, replace(NONE, rotation_prob=1), InputSpec(240, 320))
    np.testing.assert_allclose(apply(view.matrix, np.array([[160.0, 120.0]])), [[160.0, 120.0]], atol=1e-9)
    linear = view.matrix[:2, :2]
    np.testing.assert_allclose(linear @ linear.T, np.eye(2), atol=1e-12)
    assert abs(np.degrees(np.arctan2(linear[1, 0], linear[0, 0]))) <= 30


@given(seeds)
def test_expansion_keeps_the_whole_image_in_view_at_half_its_size_or_more(seed: int) -> None:
    view = view_of(seed, replace(NONE, expand_prob=1))
    corners = apply(view.matrix, CORNERS)
    assert (corners >= -1e-9).all() and (corners <= (256.5, 192.5)).all()  # a canvas is a whole number of pixels
    shrinkage = view.matrix[0, 0] / (256 / 320)
    assert 0.499 <= shrinkage <= 1.001


@given(seeds)
def test_crop_lies_in_the_image_is_large_enough_and_shows_a_centre(seed: int) -> None:
    view = view_of(seed, replace(NONE, crop_prob=1))
    x0, y0, x1, y1 = apply(np.linalg.inv(view.matrix), np.array([[0.0, 0.0], [256.0, 192.0]])).ravel()
    assert x0 >= -0.5 and y0 >= -0.5 and x1 <= 320.5 and y1 <= 240.5
    assert x1 - x0 >= 0.3 * 320 - 0.5 and y1 - y0 >= 0.3 * 240 - 0.5
    assert x0 - 0.5 <= 160 <= x1 + 0.5 and y0 - 0.5 <= 120 <= y1 + 0.5


def test_flip_mirrors() -> None:
    view = view_of(0, replace(NONE, flip_prob=1))
    assert view.flipped
    plain = apply(view_of(0, NONE).matrix, CORNERS)
    np.testing.assert_allclose(
        apply(view.matrix, CORNERS), np.column_stack([256 - plain[:, 0], plain[:, 1]]), atol=1e-9
    )


@given(seeds)
def test_matrix_equals_the_steps_taken_one_by_one(seed: int) -> None:
    view = view_of(seed, EVERYTHING)
    rng = np.random.default_rng(seed)
    rotation = _rotation(rng, *FRAME_WH, EVERYTHING)
    canvas = _expansion(rng, *FRAME_WH, EVERYTHING)
    x, y, crop_w, crop_h = _crop(rng, canvas, apply(rotation, CENTERS), EVERYTHING)
    angle = np.arctan2(rotation[0, 1], rotation[0, 0])  # cv2 turns counter-clockwise for positive angles, y being down
    points = np.array([[10.0, 200.0], [300.0, 5.0], [160.0, 120.0]])
    dx, dy = (points - (160, 120)).T
    turned = np.column_stack(
        [160 + dx * np.cos(angle) + dy * np.sin(angle), 120 - dx * np.sin(angle) + dy * np.cos(angle)]
    )
    cropped = turned - (x, y)
    resized = cropped * (256 / round(crop_w), 192 / round(crop_h))
    if view.flipped:
        resized[:, 0] = 256 - resized[:, 0]
    np.testing.assert_allclose(apply(view.matrix, points), resized, atol=1e-8)


def test_draws_reach_both_signs_and_every_step() -> None:
    views = [view_of(seed, AugmentConfig()) for seed in range(300)]
    angles = np.array([np.arctan2(v.matrix[1, 0], v.matrix[1, 1]) for v in views])
    assert 0.3 < np.mean(angles == 0) < 0.5  # rotation_prob 0.6
    assert (angles > 0.3).any() and (angles < -0.3).any()
    assert 0.4 < np.mean([v.flipped for v in views]) < 0.6


def test_same_seed_same_view() -> None:
    first, again, other = (view_of(seed, EVERYTHING) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.matrix, again.matrix)
    assert not np.array_equal(first.matrix, other.matrix)


def test_keypoints_land_on_what_they_mark() -> None:
    """A dot is drawn at a keypoint; after the warp the dot's centroid is where the keypoint went."""
    rng = np.random.default_rng(0)
    measured = 0
    for seed in range(60):
        marker = rng.integers(40, (280, 200))
        image = np.full((240, 320, 3), 90, np.uint8)
        cv2.circle(image, tuple(map(int, marker)), 4, (250, 250, 250), cv2.FILLED)
        keypoints = np.zeros((1, 17, 3), np.float32)
        keypoints[0, 9] = *(marker + 0.5), 2
        view = view_of(seed, EVERYTHING)
        people = warp_people(keypoints, BOXES, view, INPUT, COCO_KEYPOINTS)
        points, labelled = people.keypoints_xy, people.labelled
        if not len(points):
            continue
        index = 10 if view.flipped else 9  # a mirrored left wrist is a right one
        assert labelled[0].nonzero()[0].tolist() == [index]
        x, y = points[0, index]
        if not (15 < x < 241 and 15 < y < 177):
            continue  # the dot may be cut by the edge of the view
        weight = (warp_image(image, view, INPUT)[..., 0].astype(float) - 100).clip(0)
        rows, columns = np.indices(weight.shape) + 0.5
        centroid = (columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()
        assert np.hypot(centroid[0] - x, centroid[1] - y) < 0.75
        measured += 1
    assert measured >= 20


def test_outside_takes_the_mean_colour() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    image[:, :160] = (30, 60, 90)
    view = View(np.array([[1.0, 0, 500], [0, 1, 0], [0, 0, 1]]), False)
    assert np.abs(warp_image(image, view, INPUT).astype(int) - (15, 30, 45)).max() <= 1


def around(centers_xy: NDArray[np.float32]) -> NDArray[np.float32]:
    """Boxes (P, 4) of 20 px, x, y, w, h, around centres."""
    return np.column_stack([centers_xy - 10, np.full_like(centers_xy, 20)])


def persons(*rows: tuple[float, float, int]) -> NDArray[np.float32]:
    """One person for each row: all keypoints at x, y with the same v."""
    return np.stack([np.tile(np.float32(row), (17, 1)) for row in rows])


def test_only_persons_with_centre_and_a_labelled_keypoint_in_view_remain() -> None:
    people = persons((100, 100, 2), (100, 100, 0), (400, 100, 2), (100, 100, 1), (100, 100, 2))
    people[4, 0, :2] = -5, 100
    centers = np.float32([[100, 100], [100, 100], [100, 100], [100, 100], [330, 100]])
    found = warp_people(people, around(centers), view_of(0, NONE), INPUT, COCO_KEYPOINTS)
    # The first, and the fourth: v = 1 counts as labelled.
    assert found.keypoints_xy.shape == (2, 17, 2) and found.labelled.all()
    np.testing.assert_allclose(found.centers_xy, [[80, 80], [80, 80]])
    np.testing.assert_allclose(found.boxes_xyxy, [[72, 72, 88, 88]] * 2)


def test_a_box_is_cut_at_the_edge_of_the_view() -> None:
    boxes = np.float32([[280, 200, 60, 100]])
    view, everyone = view_of(0, NONE), persons((300, 220, 2))
    found = warp_people(everyone, boxes, view, INPUT, COCO_KEYPOINTS, centers_xy=np.float32([[300, 220]]))
    np.testing.assert_allclose(found.boxes_xyxy, [[224, 160, 256, 192]])


def test_keypoints_outside_the_view_count_as_unlabelled() -> None:
    people = persons((100, 100, 2))
    people[0, 3, :2] = -1, 100
    people[0, 4, :2] = 320, 100  # the right edge belongs to the outside
    labelled = warp_people(people, BOXES, view_of(0, NONE), INPUT, COCO_KEYPOINTS).labelled
    assert (~labelled[0]).nonzero()[0].tolist() == [3, 4]


def test_mirror_swaps_left_and_right_and_nothing_else() -> None:
    people = persons((0, 0, 2))
    people[0, :, 0] = np.arange(17) + 1
    people[0, 5, 2] = 0  # left shoulder
    found = warp_people(people, BOXES, View(np.eye(3), True), INPUT, COCO_KEYPOINTS)
    points, labelled = found.keypoints_xy, found.labelled
    swapped = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
    np.testing.assert_array_equal(points[0, :17, 0], np.array(swapped) + 1)
    assert (~labelled[0]).nonzero()[0].tolist() == [6]
    for left, right in COCO_KEYPOINTS.flip_pairs:
        assert COCO_KEYPOINTS.names[left].replace("left", "right") == COCO_KEYPOINTS.names[right]


def test_image_without_persons_gives_none() -> None:
    nobody = np.zeros((0, 17, 3), np.float32), np.zeros((0, 4), np.float32)
    view = random_view(np.random.default_rng(0), FRAME_WH, nobody[1][:, :2], INPUT, EVERYTHING)
    found = warp_people(*nobody, view, INPUT, COCO_KEYPOINTS)
    assert found.keypoints_xy.shape == (0, 17, 2) and found.labelled.shape == (0, 17)


def smooth_image(width: int, height: int) -> NDArray[np.uint8]:
    """Clouds of colour, 40 px across: resampling once or three times makes little difference to them."""
    noise = np.random.default_rng(1).integers(0, 256, (height // 40 + 2, width // 40 + 2, 3), np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def turned(degrees: float) -> NDArray[np.float64]:
    rotation = np.eye(3)
    rotation[:2] = cv2.getRotationMatrix2D((160, 120), degrees, 1.0)
    return rotation


WHOLE = (0.0, 0.0, 320.0, 240.0)
STEPS = {
    "nothing": Steps(np.eye(3), WHOLE, WHOLE, False),
    "rotation": Steps(turned(25), WHOLE, WHOLE, False),
    "expansion": Steps(np.eye(3), (-60.0, -90.0, 500.0, 400.0), (-60.0, -90.0, 500.0, 400.0), False),
    "crop": Steps(np.eye(3), WHOLE, (40.0, 30.0, 200.0, 150.0), False),
    "flip": Steps(np.eye(3), WHOLE, WHOLE, True),
    # Rotated and expanded at once, the warp shows the corners that a rotation before the expansion has cut off.
    "rotation, crop, flip": Steps(turned(-20), WHOLE, (20.0, 10.0, 250.0, 210.0), True),
    "expansion, crop, flip": Steps(np.eye(3), (-60.0, -90.0, 500.0, 400.0), (-20.0, 10.0, 300.0, 260.0), True),
}


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_one_warp_shows_what_the_steps_show_one_by_one(steps: Steps) -> None:
    image = smooth_image(*FRAME_WH)
    fused = warp_image(image, compose(steps, INPUT), INPUT).astype(int)
    stepwise = take_steps(image, steps, INPUT).astype(int)
    gap = np.abs(fused - stepwise)
    # The rim of the picture on its ground is cut off a pixel earlier or later.
    assert np.percentile(gap, 97) <= 3
    assert gap.mean() < 1.0


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("shrunk", [2, 4])
def test_a_view_of_a_shrunk_picture_is_the_view_of_the_whole(steps: Steps, shrunk: int) -> None:
    small = InputSpec(96, 128)
    image = smooth_image(320 * shrunk + 1, 240 * shrunk - 1)  # sides that the factor does not divide
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 98])
    matrix = compose(steps, small).matrix @ np.diag([1 / shrunk, 1 / shrunk, 1.0])
    view = View(matrix, steps.flipped)
    whole, less = (decode_image(jpeg.tobytes(), "jpeg", orient=False, shrink=by) for by in (1, shrunk))
    assert less.shape == (-(-image.shape[0] // shrunk), -(-image.shape[1] // shrunk), 3)
    gap = np.abs(warp_image(whole, view, small).astype(int) - warp_image(less, view, small, shrunk))
    assert np.percentile(gap, 97) <= 4
    assert gap.mean() < 1.0


def test_pictures_are_shrunk_only_as_far_as_the_view_has_no_use_for_the_rest() -> None:
    def at_scale(x: float, y: float) -> View:
        return View(turned(17) @ np.diag([x, y, 1.0]), False)

    scales = {
        (1.0, 1.0): 1,
        (0.5, 0.5): 2,
        (0.3, 0.51): 1,
        (0.49, 0.26): 2,
        (0.25, 0.2): 4,
        (0.1, 0.125): 8,
        (0.01, 0.01): 8,
    }
    assert {scale: reduction(at_scale(*scale), (1000, 1000)) for scale in scales} == scales
    assert reduction(at_scale(0.01, 0.01), (300, 1000)) == 4  # an eighth of 300 px would be too little to check
    assert reduction(at_scale(0.01, 0.01), (100, 1000)) == 1


def test_centre_of_a_box_that_the_view_cuts_is_that_of_what_it_shows() -> None:
    view = View(np.array([[1.0, 0, -50], [0, 1, 0], [0, 0, 1]]), False)  # from x = 50 on
    boxes = np.array([[30.0, 10, 40, 20], [60, 10, 20, 20], [0, 10, 52, 20]])
    centers = clipped_centers(boxes, view, INPUT)
    np.testing.assert_allclose(centers, [[60, 20], [70, 20], [26, 20]])  # cut, whole, nearly all cut off
    turned = View(np.array([[0.0, -1, 60], [1, 0, -50], [0, 0, 1]]), False)
    np.testing.assert_allclose(clipped_centers(boxes[:2], turned, INPUT), [[60, 20], [70, 20]])
