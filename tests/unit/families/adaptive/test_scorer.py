"""The scoring net against figures of the authors' code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mdpose_edge.families.adaptive.scorer import Scorer, features_of, layout_of
from mdpose_edge.spec import COCO_KEYPOINTS, KeypointSpec

GOLDEN = np.load(Path(__file__).parents[3] / "goldens" / "adaptive_scorer.npz")


def test_features_and_scores_are_the_authors() -> None:
    layout = layout_of(COCO_KEYPOINTS)
    assert [list(link) for link in layout.links] == GOLDEN["links"].tolist()
    assert list(layout.torso) == GOLDEN["torso_links"].tolist()
    points, heat = GOLDEN["poses"][..., :2], GOLDEN["poses"][..., 2]
    np.testing.assert_allclose(features_of(layout, points, heat), GOLDEN["feature"], rtol=1e-6)
    net = {name.removeprefix("state."): GOLDEN[name] for name in GOLDEN.files if name.startswith("state.")}
    np.testing.assert_allclose(Scorer(layout, net, 17)(points, heat), GOLDEN["prediction"][:, 0], rtol=1e-5)


def test_lengths_are_divided_by_the_torso_where_the_authors_code_takes_legs() -> None:
    """Of CrowdPose's links, the two at the positions of COCO's torso are of the legs."""
    names = (
        "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip",
        "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "head", "neck",
    )  # fmt: skip
    links = tuple((int(a), int(b)) for a, b in GOLDEN["crowdpose_links"])
    layout = layout_of(KeypointSpec(names, (), links, (0.1,) * 14))
    ends = [{names[end] for end in links[index]} for index in layout.torso]
    assert ends == [{"left_shoulder", "left_hip"}, {"right_shoulder", "right_hip"}]
    points, heat = GOLDEN["crowdpose_poses"][..., :2], GOLDEN["crowdpose_poses"][..., 2]
    found, theirs = features_of(layout, points, heat), GOLDEN["crowdpose_feature"]
    ratio = theirs[:, :30] / found[:, :30]
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-4)  # but for the divisor
    np.testing.assert_allclose(found[:, 45:], theirs[:, 45:], rtol=1e-6)


def test_any_set_of_keypoints_has_a_layout() -> None:
    layout = layout_of(KeypointSpec(("tip",), (), (), (0.1,)))
    assert features_of(layout, np.zeros((2, 1, 2)), np.ones((2, 1))).shape == (2, 4)
    assert layout_of(KeypointSpec(("a", "b"), (), (), (0.1, 0.1))).links == ((0, 1),)
    with pytest.raises(IndexError):
        features_of(layout, np.zeros((1, 0, 2)), np.zeros((1, 0)))
