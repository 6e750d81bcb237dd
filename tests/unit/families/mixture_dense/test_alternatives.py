"""What the components say beside the one that spoke, as a program asks for it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from mdpose_edge.errors import ConfigError
from mdpose_edge.estimator import PoseEstimator
from tests.artifacts import Artifacts

FRAME = np.random.default_rng(3).integers(0, 256, (90, 120, 3), np.uint8)


@pytest.mark.parametrize("family", ["mixture_dense", "mixture_dense_boxes"])
def test_a_program_asks_for_the_alternatives_of_each_pose(artifacts: Artifacts, family: str) -> None:
    with PoseEstimator(artifacts.of(family).bundle("onnx"), threads=1, threshold=0.5) as estimator:
        poses, said = estimator(FRAME), estimator.alternatives(FRAME)
        again = estimator(FRAME)
    assert len(poses) == len(said.weights) > 1 and len(said.poses) == said.weights.shape[1] == 2
    for person, component in enumerate(said.spoke.tolist()):
        np.testing.assert_array_equal(said.poses[component].boxes_xyxy[person], poses.boxes_xyxy[person])
        np.testing.assert_array_equal(said.poses[component].sigma_xy[person], poses.sigma_xy[person])
    np.testing.assert_array_equal(again.scores, poses.scores)
    second = [poses.take(said.likely(0.2)[:, component]) for component, poses in enumerate(said.poses)]
    assert sum(map(len, second)) == said.likely(0.2).sum()


def test_suppression_and_the_bound_leave_both_the_same(artifacts: Artifacts) -> None:
    from dataclasses import replace

    model = artifacts.of("mixture_dense_boxes").bundle("onnx")
    with PoseEstimator(model, threads=1) as plain:
        options = replace(plain.spec.decode, score_threshold=0.1, nms_threshold=0.3, max_poses=6)
    with PoseEstimator(model, threads=1, decode=options) as estimator:
        poses, said = estimator(FRAME), estimator.alternatives(FRAME)
    assert len(poses) == 6
    np.testing.assert_array_equal(said.poses[0].scores, poses.scores)
    np.testing.assert_array_equal(said.poses[1].classes, poses.classes)  # type: ignore[arg-type]


def test_a_model_that_says_one_thing_has_none(artifacts: Artifacts) -> None:
    with (
        PoseEstimator(artifacts.bundle("onnx"), threads=1) as estimator,
        pytest.raises(ConfigError, match="expected a model whose components give alternatives, got one of mdpose"),
    ):
        estimator.alternatives(FRAME)
