"""Errors in metres against figures that were computed apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mdpose_edge.pose_errors import joint_errors, share_correct

GOLDENS = Path(__file__).parents[1] / "goldens"


def test_errors_and_shares_are_those_of_the_protocol() -> None:
    golden = np.load(GOLDENS / "das_metrics.npz")
    pairs, root = golden["plain_pairs"], [int(golden["root"])]
    found = pairs[pairs[:, 1] >= 0]
    assert len(found) == 2
    errors = joint_errors(golden["prediction_mm"][found[:, 1]] / 1000, golden["gt_mm"][found[:, 0]] / 1000, root)
    np.testing.assert_allclose(errors.relative_mm, golden["plain_rel_errors_mm"], rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(errors.absolute_mm, golden["plain_abs_errors_mm"], rtol=1e-9, atol=1e-6)
    assert errors.relative_mm.mean() == pytest.approx(float(golden["plain_mpjpe_matched_mm"]), rel=1e-9)
    for kind, values in (("rel", errors.relative_mm), ("abs", errors.absolute_mm)):
        assert share_correct(values[:, :14]) == pytest.approx(float(golden[f"plain_pck_{kind}_matched"]))
        assert share_correct(values[:, :14], undetected=1) == pytest.approx(float(golden[f"plain_pck_{kind}_all"]))


def test_nobody_found_is_all_wrong_and_nobody_there_is_no_figure() -> None:
    errors = np.array([[10.0, 149.9], [150.0, 1000.0]])
    assert share_correct(errors) == 0.5
    assert share_correct(errors, undetected=2) == 0.25
    assert share_correct(np.zeros((0, 17)), undetected=1) == 0.0
    assert share_correct(np.zeros((0, 17))) is None


def test_the_root_may_be_the_middle_of_joints() -> None:
    true = np.array([[[-1.0, 0.0, 4.0], [1.0, 0.0, 4.0], [0.0, 1.0, 4.0]]])
    errors = joint_errors(true + np.array([0.0, 0.0, 0.5]), true, (0, 1))
    np.testing.assert_allclose(errors.relative_mm, 0.0, atol=1e-9)
    np.testing.assert_allclose(errors.absolute_mm, 500.0)
    assert errors.root_depth_mm.tolist() == [500.0] and errors.root_depth_true_mm.tolist() == [4000.0]
