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
