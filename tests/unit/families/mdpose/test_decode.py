"""The decoder against plain loops in float64, and against figures of the authors' code."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mdpose_edge.errors import EngineError, SpecError
from mdpose_edge.families.mdpose.heads import constants_of, mdpose_spec
from mdpose_edge.families.registry import make_decoder
from mdpose_edge.poses import Poses
from mdpose_edge.preprocess import FrameGeometry
from mdpose_edge.spec import (
    COCO_KEYPOINTS,
    DecodeSpec,
    InputSpec,
    ModelSpec,
)

Heads = dict[str, NDArray[np.float32]]
GOLDENS = Path(__file__).parents[3] / "goldens"
IDENTITY = FrameGeometry((1.0, 1.0), (0.0, 0.0))
LETTERBOX = FrameGeometry((0.5, 0.5), (0.0, 12.0))
STRETCH = FrameGeometry((0.3, 1.7), (0.0, 0.0))
KEEP_ALL = DecodeSpec(score_threshold=0.0, nms_threshold=1.0, pre_nms=100_000, max_poses=100_000)
NEAR_TIE = 1e-4
"""Decisions closer to a threshold than this are not float32's to make."""


def make_spec(width: int, height: int, levels: tuple[str, ...] = ("p3", "p4", "p5")) -> ModelSpec:
    return mdpose_spec(InputSpec(height, width), levels=levels)


def random_heads(spec: ModelSpec, seed: int, batch: int = 1) -> Heads:
    """Head tensors in which many cells show the same few people, and scores are often equal."""
    rng = np.random.default_rng(seed)
    size = np.array([spec.input.width, spec.input.height])
    people = rng.integers(1, 40)
    poses = rng.uniform(-0.1, 1.1, (people, 1, 2)) * size + rng.normal(0, 1, (people, 17, 2)) * rng.uniform(
        1, size.min() / 3, (people, 1, 1)
    )
    heads = {}
    for level in constants_of(spec).levels:
        rows, columns = spec.cells(level.stride)
        row, column = np.indices((rows, columns))
        center = (np.stack([column, row], axis=-1) + 0.5) * level.stride
        shown = poses[rng.integers(0, people, (batch, rows, columns))]
        shown = shown + rng.normal(0, rng.choice([0.0, 0.5, 3.0]), shown.shape)
        raw = (shown - center[:, :, None]) / size * constants_of(spec).coordinate_extent / level.scale
        heads[f"o_{level.name}"] = np.round(rng.normal(-2, 3, (batch, 1, rows, columns)) * 4) / 4
        heads[f"mu_{level.name}"] = raw.reshape(batch, rows, columns, 34).transpose(0, 3, 1, 2)
        heads[f"gamma_{level.name}"] = rng.normal(-3, 3, (batch, 34, rows, columns))
    return {name: tensor.astype(np.float32, order="C") for name, tensor in heads.items()}


def flat_heads(spec: ModelSpec, logit: float) -> Heads:
    """Head tensors of zeros, all scores equal."""
    heads = {}
    for level in constants_of(spec).levels:
        for kind, channels in (("o", 1), ("mu", 34), ("gamma", 34)):
            value = logit if kind == "o" else 0.0
            heads[f"{kind}_{level.name}"] = np.full((1, channels, *spec.cells(level.stride)), value, np.float32)
    return heads


@dataclass
class Candidate:
    """What one cell says, in pixels of the network input."""

    score: np.float32
    keypoints: list[tuple[float, float]]
    sigma: list[tuple[float, float]]


def score_of(logit: float) -> np.float32:
    return np.float32(1.0 / (1.0 + math.exp(-logit)))


def candidates_by_loops(spec: ModelSpec, heads: Heads, index: int, threshold: float) -> list[Candidate]:
    found = []
    sizes = (spec.input.width, spec.input.height)
    for level in constants_of(spec).levels:
        o, mu, gamma = (heads[f"{kind}_{level.name}"][index].tolist() for kind in ("o", "mu", "gamma"))
        rows, columns = spec.cells(level.stride)
        for row in range(rows):
            for column in range(columns):
                score = score_of(o[0][row][column])
                if score <= np.float32(threshold):
                    continue
                cell = ((column + 0.5) / columns * 5, (row + 0.5) / rows * 5)
                units = [[cell[c] + level.scale * mu[2 * k + c][row][column] for c in (0, 1)] for k in range(17)]
                extent = [max(u[c] for u in units) - min(u[c] for u in units) for c in (0, 1)]
                scales = [
                    [max(math.log1p(math.exp(gamma[2 * k + c][row][column])), 0.05 * extent[c]) for c in (0, 1)]
                    for k in range(17)
                ]
                found.append(
                    Candidate(
                        score,
                        [(u[0] / 5 * sizes[0], u[1] / 5 * sizes[1]) for u in units],
                        [(s[0] / 5 * sizes[0], s[1] / 5 * sizes[1]) for s in scales],
                    )
                )
    return found


def overlap_by_loops(spec: ModelSpec, kind: str, a: Candidate, b: Candidate) -> float:
    boxes = []
    for pose in (a.keypoints, b.keypoints):
        x = [min(max(p[0], 0.0), spec.input.width - 1.0) for p in pose]
        y = [min(max(p[1], 0.0), spec.input.height - 1.0) for p in pose]
        boxes.append((min(x), min(y), max(x), max(y)))
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in boxes]
    if kind == "box":
        p, q = boxes
        intersection = max(0.0, min(p[2], q[2]) - max(p[0], q[0])) * max(0.0, min(p[3], q[3]) - max(p[1], q[1]))
        union = sum(areas) - intersection
        return intersection / union if union > 0.0 else 0.0
    similarity = 0.0
    for (xa, ya), (xb, yb), sigma in zip(a.keypoints, b.keypoints, COCO_KEYPOINTS.sigmas, strict=True):
        assume(sum(areas) > 1e-2)  # an OKS without area hangs on float32's last place
        similarity += math.exp(-((xa - xb) ** 2 + (ya - yb) ** 2) / (8 * sigma**2 * sum(areas) / 2))
    return similarity / 17


def decode_by_loops(spec: ModelSpec, heads: Heads, options: DecodeSpec, index: int) -> list[Candidate]:
    candidates = candidates_by_loops(spec, heads, index, options.score_threshold)
    kept: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: -c.score)[: options.pre_nms]:
        overlaps = [overlap_by_loops(spec, options.nms, better, candidate) for better in kept]
        assume(all(abs(overlap - options.nms_threshold) > NEAR_TIE for overlap in overlaps))
        if len(kept) < options.max_poses and all(overlap <= options.nms_threshold for overlap in overlaps):
            kept.append(candidate)
    return kept


def assert_same(poses: Poses, expected: list[Candidate], geometry: FrameGeometry) -> None:
    offset, scale = np.array(geometry.offset_xy), np.array(geometry.scale_xy)
    np.testing.assert_array_equal(poses.scores, [c.score for c in expected])
    keypoints = (np.array([c.keypoints for c in expected]).reshape(-1, 17, 2) - offset) / scale
    sigma = math.sqrt(2) * np.array([c.sigma for c in expected]).reshape(-1, 17, 2) / scale
    np.testing.assert_allclose(poses.keypoints_xy, keypoints, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(poses.sigma_xy, sigma, rtol=1e-5, atol=2e-5)


options_strategy = st.builds(
    DecodeSpec,
    score_threshold=st.sampled_from([0.0, 1e-4, 0.05, 0.3, 0.5, 0.9]),
    nms=st.sampled_from(["box", "oks"]),
    nms_threshold=st.sampled_from([0.2, 0.5, 0.7, 0.9]),
    pre_nms=st.sampled_from([1, 5, 40, 1000]),
    max_poses=st.sampled_from([1, 3, 20, 100]),
)


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([(64, 64), (96, 64), (32, 96)]),
    options=options_strategy,
    geometry=st.sampled_from([IDENTITY, LETTERBOX, STRETCH]),
    index=st.integers(0, 2),
)
def test_decodes_as_plain_loops_do(
    seed: int, size: tuple[int, int], options: DecodeSpec, geometry: FrameGeometry, index: int
) -> None:
    spec = make_spec(*size)
    heads = random_heads(spec, seed, batch=3)
    for tensor in heads.values():
        tensor.flags.writeable = False
    expected = decode_by_loops(spec, heads, options, index)
    assert_same(make_decoder(spec, options)(heads, geometry, index), expected, geometry)


@pytest.mark.parametrize("name", ["three_level_96", "five_level_256"])
def test_parameters_agree_with_the_authors_code(name: str) -> None:
    golden = np.load(GOLDENS / f"parameters_{name}.npz")
    sizes = golden["level_sizes"].tolist()
    side = sizes[0][0] * 8
    spec = make_spec(side, side, tuple(f"p{3 + i}" for i in range(len(sizes))))
    heads = {
        f"{kind}_{level.name}": part.reshape(1, -1, *shape)
        for kind in ("o", "mu", "gamma")
        for level, shape, part in zip(
            constants_of(spec).levels, sizes, split_levels(golden[f"raw_{kind}"], sizes), strict=True
        )
    }
    poses = make_decoder(spec, KEEP_ALL)(heads, FrameGeometry((side / 5, side / 5), (0.0, 0.0)))
    order = np.argsort(-golden["raw_o"][0, 0], kind="stable")
    assert_close(poses.scores, golden["o"][0, 0, order])
    assert_close(poses.keypoints_xy, golden["mu"][0].T[order].reshape(-1, 17, 2))
    assert_close(poses.sigma_xy, math.sqrt(2) * golden["gamma"][0].T[order].reshape(-1, 17, 2))


def test_post_processing_agrees_with_the_authors_code() -> None:
    golden = np.load(GOLDENS / "post_processing.npz")
    side = int(golden["input_px"])
    spec = make_spec(side, side)
    sizes = [spec.cells(level.stride) for level in constants_of(spec).levels]
    o, mu = golden["o"].astype(np.float64), golden["mu"].astype(np.float64)
    heads = flat_heads(spec, 0.0)
    for level, (rows, columns), o_part, mu_part in zip(
        constants_of(spec).levels, sizes, split_levels(np.log(o / (1 - o)), sizes), split_levels(mu, sizes), strict=True
    ):
        row, column = np.indices((rows, columns)).reshape(2, -1)
        center = np.tile(np.stack([(column + 0.5) / columns, (row + 0.5) / rows]) * 5, (17, 1))
        heads[f"o_{level.name}"][:] = o_part.reshape(1, 1, rows, columns)
        heads[f"mu_{level.name}"][:] = ((mu_part - center) / level.scale).reshape(1, 34, rows, columns)
    poses = make_decoder(spec, DecodeSpec(score_threshold=1e-4, nms_threshold=0.7))(heads, IDENTITY)
    assert_close(poses.scores, golden["kept_scores"])
    assert_close(poses.keypoints_xy.clip(0, side - 1), golden["kept_keypoints_xy"])


def split_levels(tensor: NDArray[np.floating], sizes: list[tuple[int, int]]) -> list[NDArray[np.floating]]:
    return np.split(tensor, np.cumsum([rows * columns for rows, columns in sizes])[:-1], axis=2)


def assert_close(got: NDArray[np.float32], want: NDArray[np.float32]) -> None:
    """Parity of the issue: 1e-5, relative to the largest value."""
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("threshold", [0.0, 1e-30, 1e-4, 0.05, 0.3, 0.5, 0.7, 0.999, 1 - 2**-24, 1.0])
def test_the_threshold_is_exact_to_the_last_float(threshold: float) -> None:
    spec = make_spec(128, 128)
    around = -110.0 if threshold == 0.0 else 20.0 if threshold == 1.0 else math.log(threshold) - math.log1p(-threshold)
    steps = np.arange(-128, 128) * np.spacing(np.float32(max(abs(around), 1e-3)))
    logits = np.unique(np.concatenate([np.float32(around) + steps.astype(np.float32), np.linspace(-110, 25, 50)]))
    logits = logits[:256].astype(np.float32)
    heads = flat_heads(spec, -1000.0)
    heads["o_p3"].reshape(-1)[: len(logits)] = logits
    expected = [score for score in (score_of(x) for x in logits.tolist()) if score > np.float32(threshold)]
    poses = make_decoder(spec, dataclasses.replace(KEEP_ALL, score_threshold=threshold))(heads, IDENTITY)
    np.testing.assert_array_equal(poses.scores, sorted(expected, reverse=True))


def test_equal_scores_keep_the_order_of_components() -> None:
    spec = make_spec(64, 64)
    heads = flat_heads(spec, 2.0)
    for pre_nms in (84, 70, 3):
        options = dataclasses.replace(KEEP_ALL, pre_nms=pre_nms)
        poses = make_decoder(spec, options)(heads, IDENTITY)
        centers = [
            ((column + 0.5) * level.stride, (row + 0.5) * level.stride)
            for level in constants_of(spec).levels
            for row in range(64 // level.stride)
            for column in range(64 // level.stride)
        ]
        np.testing.assert_array_equal(poses.keypoints_xy[:, 0], centers[:pre_nms])


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_which_cell_shows_a_person_does_not_matter(seed: int) -> None:
    """The same poses at distinct scores, dealt to the cells in another way, decode to the same result."""
    spec, rng = make_spec(64, 64, ("p3",)), np.random.default_rng(seed)
    heads = random_heads(spec, seed)
    cells = rng.permutation(64)
    heads["o_p3"].reshape(-1)[:] = rng.permutation(np.linspace(-3, 3, 64))
    centers = (np.stack([np.arange(64) % 8, np.arange(64) // 8]) + 0.5) * 8
    moved = {name: tensor.reshape(1, -1, 64)[..., cells].reshape(tensor.shape) for name, tensor in heads.items()}
    shift = np.tile(centers[:, cells] - centers, (17, 1)) / 64 * 5 / constants_of(spec).levels[0].scale
    moved["mu_p3"] += shift.reshape(1, 34, 8, 8).astype(np.float32)
    decode_by_loops(spec, heads, spec.decode, 0)  # assumes that no overlap is too near the threshold
    decoder = make_decoder(spec)
    before, after = decoder(heads, IDENTITY), decoder(moved, IDENTITY)
    np.testing.assert_array_equal(after.scores, before.scores)
    np.testing.assert_allclose(after.keypoints_xy, before.keypoints_xy, atol=1e-3)


def test_nobody_there_is_an_empty_result() -> None:
    spec = make_spec(64, 64)
    poses = make_decoder(spec)(flat_heads(spec, -20.0), IDENTITY)
    assert len(poses) == 0
    assert poses.keypoints_xy.shape == poses.sigma_xy.shape == (0, 17, 2)


@pytest.mark.parametrize("extreme", [1e4, 1e30])
def test_extreme_but_finite_tensors_decode_without_a_warning(extreme: float) -> None:
    spec = make_spec(64, 64)
    heads = flat_heads(spec, -extreme)
    heads["o_p4"][0, 0, 1, 1] = extreme
    heads["mu_p4"][0, ::2, 1, 1] = np.linspace(-extreme, extreme, 17)
    heads["gamma_p4"][0, :, 1, 1] = np.linspace(-extreme, extreme, 34)
    for nms in ("box", "oks"):
        poses = make_decoder(spec, DecodeSpec(nms=nms))(heads, LETTERBOX)
        assert poses.scores.tolist() == [1.0]
        assert np.isfinite(poses.keypoints_xy).all() and np.isfinite(poses.sigma_xy).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.parametrize("name", ["o_p3", "mu_p4", "gamma_p5"])
def test_what_is_not_finite_is_refused_by_name(name: str, value: float) -> None:
    spec = make_spec(64, 64)
    heads = flat_heads(spec, 2.0)
    heads[name][0, -1, 1, 0] = value
    with pytest.raises(EngineError, match=rf"finite head tensors.* in {name}"):
        make_decoder(spec, KEEP_ALL)(heads, IDENTITY)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(None, id="missing"),
        pytest.param(np.zeros((1, 34, 8, 7), np.float32), id="other grid"),
        pytest.param(np.zeros((1, 36, 8, 8), np.float32), id="a keypoint too many"),
        pytest.param(np.zeros((34, 8, 8), np.float32), id="no batch axis"),
        pytest.param(np.zeros((1, 34, 8, 8), np.float16), id="half precision"),
    ],
)
@pytest.mark.parametrize("kind", ["o", "mu", "gamma"])
def test_a_misshapen_head_tensor_is_refused_by_name(kind: str, wrong: NDArray[np.floating] | None) -> None:
    spec = make_spec(64, 64)
    heads = flat_heads(spec, 2.0)
    if wrong is None:
        del heads[f"{kind}_p3"]
    else:
        heads[f"{kind}_p3"] = wrong
    with pytest.raises(EngineError, match=f"^{kind}_p3: expected"):
        make_decoder(spec, KEEP_ALL)(heads, IDENTITY)


def test_an_unknown_family_is_refused() -> None:
    spec = dataclasses.replace(make_spec(64, 64), family="heatmap")
    with pytest.raises(SpecError, match=r"family: expected one of mdpose, .*got heatmap"):
        make_decoder(spec)


def test_a_spec_without_an_output_the_family_needs_is_refused() -> None:
    spec = make_spec(64, 64)
    with pytest.raises(SpecError, match="heads: expected the output o_p3"):
        make_decoder(dataclasses.replace(spec, heads=spec.heads[1:]))
