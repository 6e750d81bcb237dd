import numpy as np
import pytest

from mdpose_edge.poses import Poses


def _arrays(people=3, keypoints=17):
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 100, (people, keypoints, 2)).astype(np.float32)
    return xy, np.linspace(0.9, 0.1, people, dtype=np.float32), np.ones_like(xy)


def test_boxes_are_the_extent_of_the_keypoints():
    poses = Poses(*_arrays())
    assert len(poses) == 3
    assert (poses.boxes_xyxy[:, :2] == poses.keypoints_xy.min(axis=1)).all()
    assert (poses.boxes_xyxy[:, 2:] == poses.keypoints_xy.max(axis=1)).all()


def test_empty_has_no_people_and_still_has_boxes():
    poses = Poses.empty(17)
    assert len(poses) == 0
    assert poses.keypoints_xy.shape == (0, 17, 2)
    assert poses.boxes_xyxy.shape == (0, 4)


@pytest.mark.parametrize("field", [0, 1, 2], ids=["keypoints_xy", "scores", "sigma_xy"])
def test_arrays_that_do_not_fit_together_are_refused(field):
    arrays = list(_arrays())
    arrays[field] = arrays[field][..., None]
    with pytest.raises(ValueError, match=["keypoints_xy", "scores", "sigma_xy"][field]):
        Poses(*arrays)


def _found(**changes):
    xy, scores, sigma = _arrays(people=2)
    fields = {
        "model_boxes_xyxy": np.float32([[0, 0, 10, 20], [5, 5, 9, 9]]),
        "classes": np.array([3, 0]),
        "keypoints_3d": np.ones((2, 17, 3), np.float32),
        "metric": True,
    }
    return Poses(xy, scores, sigma, **{**fields, **changes})


def test_boxes_of_the_model_take_the_place_of_those_around_the_keypoints():
    poses = _found()
    assert poses.boxes_xyxy.tolist() == [[0, 0, 10, 20], [5, 5, 9, 9]]


def test_a_model_of_boxes_alone_has_no_keypoints():
    nothing = np.zeros((2, 0, 2), np.float32)
    poses = Poses(nothing, np.float32([0.9, 0.8]), nothing, np.ones((2, 4), np.float32))
    assert len(poses) == 2 and len(Poses.empty(0)) == 0 and Poses.empty(0).boxes_xyxy.shape == (0, 4)
    with pytest.raises(ValueError, match="model_boxes_xyxy: expected boxes where there are no keypoints, got none"):
        Poses(nothing, poses.scores, nothing)


@pytest.mark.parametrize("chosen", [np.array([1]), np.array([False, True])], ids=["indices", "mask"])
def test_some_are_taken_with_all_that_is_known_of_them(chosen):
    one = _found().take(chosen)
    assert len(one) == 1 and one.metric
    assert (one.boxes_xyxy.tolist(), one.classes.tolist(), one.keypoints_3d.shape) == ([[5, 5, 9, 9]], [0], (1, 17, 3))


def test_a_larger_frame_moves_pixels_and_not_metres():
    poses, twice = _found(), _found().scaled(2)
    assert (twice.keypoints_xy == 2 * poses.keypoints_xy).all() and (twice.sigma_xy == 2 * poses.sigma_xy).all()
    assert twice.boxes_xyxy[0].tolist() == [0, 0, 20, 40]
    assert (twice.keypoints_3d == poses.keypoints_3d).all()


@pytest.mark.parametrize(
    "change",
    [
        {"model_boxes_xyxy": np.ones((1, 4), np.float32)},
        {"classes": np.zeros((2, 1), np.int64)},
        {"keypoints_3d": np.ones((2, 16, 3), np.float32)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_a_model_adds_must_fit_too(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        _found(**change)
