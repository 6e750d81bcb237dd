"""Merging: one pose for the candidates that show a person, against plain loops in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mdpose_edge.errors import SpecError
from mdpose_edge.families.mdpose.decode import EVALUATION, MERGED_FROM
from mdpose_edge.families.mdpose.heads import mdpose_spec
from mdpose_edge.families.mixture_dense.heads import Constants, mixture_dense_spec
from mdpose_edge.families.registry import evaluation_of, make_decoder
from mdpose_edge.spec import DecodeSpec, InputSpec
from tests.unit.families.mdpose.test_decode import (
    IDENTITY,
    LETTERBOX,
    NEAR_TIE,
    Candidate,
    candidates_by_loops,
    make_spec,
    overlap_by_loops,
    random_heads,
)

SPEC = make_spec(64, 64)


def merged_by_loops(heads: dict[str, np.ndarray], options: DecodeSpec) -> list[tuple[float, np.ndarray, np.ndarray]]:
    found = candidates_by_loops(SPEC, heads, 0, min(options.score_threshold, MERGED_FROM))
    groups: list[list[Candidate]] = []
    for candidate in sorted(found, key=lambda c: -c.score)[: options.pre_nms]:
        overlaps = [overlap_by_loops(SPEC, "oks", group[0], candidate) for group in groups]
        assume(all(abs(overlap - options.nms_threshold) > NEAR_TIE for overlap in overlaps))
        over = [position for position, overlap in enumerate(overlaps) if overlap > options.nms_threshold]
        if over:
            groups[over[0]].append(candidate)
        else:
            groups.append([candidate])
    poses = []
    for group in groups[: options.max_poses]:
        score = math.fsum(c.score for c in group)
        weights = np.array([c.score / score for c in group])[:, None, None]
        points, scales = np.array([c.keypoints for c in group]), np.array([c.sigma for c in group])
        mean = (weights * points).sum(axis=0)
        square = (weights * (2 * scales**2 + (points - mean) ** 2)).sum(axis=0)
        poses.append((min(score, 1.0), mean, np.sqrt(square)))
    return [pose for pose in sorted(poses, key=lambda pose: -pose[0]) if pose[0] > options.score_threshold]


@given(
    seed=st.integers(0, 2**32 - 1),
    threshold=st.sampled_from([1e-4, 0.05, 0.3]),
    overlap=st.sampled_from([0.3, 0.5, 0.8]),
    pre_nms=st.sampled_from([10, 25]),
    max_poses=st.sampled_from([3, 100]),
)
def test_merges_as_plain_loops_do(seed: int, threshold: float, overlap: float, pre_nms: int, max_poses: int) -> None:
    heads = random_heads(SPEC, seed)
    options = DecodeSpec(threshold, "merge", overlap, pre_nms, max_poses)
    expected = merged_by_loops(heads, options)
    assume(all(abs(score - threshold) > NEAR_TIE for score, _, _ in expected))
    found = make_decoder(SPEC, options)(heads, LETTERBOX)
    assert len(found.scores) == len(expected)
    assert np.all(np.diff(found.scores) <= 0)
    offset, scale = np.array(LETTERBOX.offset_xy), np.array(LETTERBOX.scale_xy)
    for wanted, mean, spread in expected:
        apart = np.abs(found.keypoints_xy - (mean - offset) / scale).max(axis=(1, 2)) + np.abs(found.scores - wanted)
        row = apart.argmin()
        assert math.isclose(found.scores[row], wanted, rel_tol=1e-5)
        np.testing.assert_allclose(found.keypoints_xy[row], (mean - offset) / scale, rtol=1e-4, atol=2e-3)
        np.testing.assert_allclose(found.sigma_xy[row], spread / scale, rtol=1e-3, atol=2e-3)


def test_an_artifact_that_merges_is_measured_so_and_another_by_its_family_alone() -> None:
    spec = mdpose_spec(InputSpec(64, 64))
    assert evaluation_of(spec) == EVALUATION
    merging = replace(spec, decode=DecodeSpec(0.4, "merge", 0.45))
    assert evaluation_of(merging) == replace(EVALUATION, nms="merge", nms_threshold=0.45)


def test_a_family_that_does_not_merge_refuses_to() -> None:
    spec = mixture_dense_spec(InputSpec(64, 64), Constants(1, 1.0, False))
    with pytest.raises(SpecError, match=r"decode\.nms: expected box or oks for mixture_dense, got merge"):
        make_decoder(spec, DecodeSpec(nms="merge"))


def test_of_nobody_nothing_is_merged() -> None:
    heads = random_heads(SPEC, 1)
    for name in ("o_p3", "o_p4", "o_p5"):
        heads[name][:] = -20.0
    assert not len(make_decoder(SPEC, DecodeSpec(0.1, "merge"))(heads, IDENTITY))
