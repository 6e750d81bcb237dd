"""The decoder against plain loops in float64, and against figures of the authors' code."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mdpose_edge.errors import EngineError, SpecError
from mdpose_edge.families.alternatives import AlternativesDecoder
from mdpose_edge.families.mixture_dense.decode import MixtureDenseDecoder
from mdpose_edge.families.mixture_dense.heads import Constants, mixture_dense_spec
from mdpose_edge.families.registry import make_decoder
from mdpose_edge.preprocess import FrameGeometry
from mdpose_edge.spec import COCO_KEYPOINTS, DecodeSpec, HeadSpec, InputSpec, ModelSpec

Heads = dict[str, NDArray[np.float32]]
GOLDENS = Path(__file__).parents[3] / "goldens"
IDENTITY = FrameGeometry((1.0, 1.0), (0.0, 0.0))
LETTERBOX = FrameGeometry((0.5, 0.5), (0.0, 12.0))
STRETCH = FrameGeometry((0.3, 1.7), (0.0, 0.0))
NEAR_TIE = 1e-4
"""Decisions closer to a bound than this are not float32's to make."""


def make_spec(width: int, height: int, components: int = 2, heatmaps: bool = True, floor: float = 1.0) -> ModelSpec:
    return mixture_dense_spec(InputSpec(height, width), Constants(components, floor, heatmaps))


def random_heads(spec: ModelSpec, seed: int, batch: int = 1) -> Heads:
    """Head tensors with several people, plateaus of equal logits, and keypoints that have heat maps to go to."""
    rng = np.random.default_rng(seed)
    scales = {"centre": 2.0, "alpha": 1.0, "offset": 0.5, "heat": 1.5, "heat_offset": 0.3, "size": 6.0}
    heads = {}
    for head in spec.heads:
        values = rng.normal(0.0, scales.get(head.name, 3.0), (batch, *spec.head_shape(head)))
        if head.name in ("centre", "heat"):
            values = np.round(values * 2) / 2 - 1.5  # plateaus
        heads[head.name] = values.astype(np.float32)
    return heads


def flat_heads(spec: ModelSpec, logit: float) -> Heads:
    """Head tensors of zeros, one plateau of scores."""
    heads = {head.name: np.zeros((1, *spec.head_shape(head)), np.float32) for head in spec.heads}
    heads["centre"][:] = logit
    return heads


@dataclass
class Person:
    score: np.float32
    keypoints: list[list[float]]
    sigma: list[list[float]]
    box: list[float]


def score_of(logit: float) -> np.float32:
    return np.float32(1.0 / (1.0 + math.exp(-logit)))


def peaks_by_loops(logits: list[list[float]], threshold: float) -> list[tuple[int, int]]:
    """Return the (row, column) of peaks; of a plateau's cells that touch, the first."""
    rows, columns = len(logits), len(logits[0])
    found = []
    for row in range(rows):
        for column in range(columns):
            value = logits[row][column]
            around = [
                (r, c)
                for r in range(max(0, row - 1), min(rows, row + 2))
                for c in range(max(0, column - 1), min(columns, column + 2))
                if (r, c) != (row, column)
            ]
            beaten = any(logits[r][c] > value or (logits[r][c] == value and (r, c) < (row, column)) for r, c in around)
            if score_of(value) > np.float32(threshold) and not beaten:
                found.append((row, column))
    return found


def person_by_loops(spec: ModelSpec, maps: dict[str, NDArray[np.float32]], row: int, column: int) -> Person:
    constants = spec.constants
    alpha = maps["alpha"][:, row, column].tolist()
    spoke = alpha.index(max(alpha)) + 1
    mu, raw = maps[f"mu_{spoke}"][:, row, column].tolist(), maps[f"sigma_{spoke}"][:, row, column].tolist()
    center = (column + 0.5, row + 0.5)
    spread = [(r if r > 0 else math.expm1(r)) + 1.0 + constants["sigma_floor"] for r in raw]
    keypoints = [[4 * (center[d] + mu[2 * k + d]) for d in (0, 1)] for k in range(17)]
    sigma = [[4 * spread[d] * COCO_KEYPOINTS.sigmas[k] for d in (0, 1)] for k in range(17)]
    offset, size = maps["offset"][:, row, column].tolist(), maps["size"][:, row, column].tolist()
    middle = [4 * (center[d] + offset[d]) for d in (0, 1)]
    half = [2 * max(0.0, size[d]) for d in (0, 1)]
    box = [middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1]]
    return Person(score_of(maps["centre"][0, row, column]), keypoints, sigma, box)


def refine_by_loops(maps: dict[str, NDArray[np.float32]], person: Person) -> None:
    x1, y1, x2, y2 = person.box
    reach = 0.3 * max(x2 - x1, y2 - y1)
    for k, point in enumerate(person.keypoints):
        peaks = [
            [4 * (c + 0.5 + float(maps["heat_offset"][0, r, c])), 4 * (r + 0.5 + float(maps["heat_offset"][1, r, c]))]
            for r, c in peaks_by_loops(maps["heat"][k].tolist(), 0.1)
        ]
        if not peaks:
            continue
        ranked = sorted(math.dist(point, peak) for peak in peaks)
        assume(len(ranked) == 1 or ranked[1] - ranked[0] > NEAR_TIE)
        x, y = min(peaks, key=lambda peak: math.dist(point, peak))
        margins = [x - x1, x2 - x, y - y1, y2 - y, reach - ranked[0]]
        assume(all(abs(margin) > NEAR_TIE for margin in margins))
        if all(margin > 0 for margin in margins):
            person.keypoints[k] = [x, y]


def decode_by_loops(spec: ModelSpec, heads: Heads, options: DecodeSpec, index: int) -> list[Person]:
    maps = {name: tensor[index] for name, tensor in heads.items()}
    cells = peaks_by_loops(maps["centre"][0].tolist(), options.score_threshold)
    found = sorted((person_by_loops(spec, maps, *cell) for cell in cells), key=lambda p: -p.score)
    found = found[: options.pre_nms][: options.max_poses]
    if spec.constants["heatmaps"]:
        for person in found:
            refine_by_loops(maps, person)
    return found


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([(32, 32), (64, 32), (32, 64)]),
    components=st.integers(1, 5),
    heatmaps=st.booleans(),
    options=st.builds(
        DecodeSpec,
        score_threshold=st.sampled_from([0.0, 0.05, 0.3, 0.9]),
        nms_threshold=st.just(1.0),
        pre_nms=st.sampled_from([1, 5, 1000]),
        max_poses=st.sampled_from([1, 3, 100]),
    ),
    geometry=st.sampled_from([IDENTITY, LETTERBOX, STRETCH]),
    index=st.integers(0, 1),
)
def test_decodes_as_plain_loops_do(
    seed: int,
    size: tuple[int, int],
    components: int,
    heatmaps: bool,
    options: DecodeSpec,
    geometry: FrameGeometry,
    index: int,
) -> None:
    spec = make_spec(*size, components, heatmaps, floor=0.5)
    heads = random_heads(spec, seed, batch=2)
    for tensor in heads.values():
        tensor.flags.writeable = False
    expected = decode_by_loops(spec, heads, options, index)
    poses = make_decoder(spec, options)(heads, geometry, index)
    offset, scale = np.array(geometry.offset_xy), np.array(geometry.scale_xy)
    np.testing.assert_array_equal(poses.scores, [p.score for p in expected])
    keypoints = (np.array([p.keypoints for p in expected]).reshape(-1, 17, 2) - offset) / scale
    np.testing.assert_allclose(poses.keypoints_xy, keypoints, rtol=1e-5, atol=1e-3)
    sigma = np.array([p.sigma for p in expected]).reshape(-1, 17, 2) / scale
    np.testing.assert_allclose(poses.sigma_xy, sigma, rtol=1e-5, atol=2e-5)
    boxes = (np.array([p.box for p in expected]).reshape(-1, 2, 2) - offset) / scale
    np.testing.assert_allclose(poses.boxes_xyxy, boxes.reshape(-1, 4), rtol=1e-5, atol=1e-3)


def golden_heads(golden: dict[str, NDArray[np.float32]], *, heatmaps: bool) -> tuple[ModelSpec, Heads]:
    """Put the reference's maps in our layout: it measures positions from a cell's corner, we from its centre."""
    spec = make_spec(96, 80, 3, heatmaps, floor=9.0)
    heads = {
        "centre": golden["hm_in"],
        "alpha": golden["mdn_logits_in"],
        "offset": golden["reg_in"] - 0.5,
        "size": golden["wh_in"],
    }
    for m in range(3):
        heads[f"mu_{m + 1}"] = golden["hps_in"][:, 34 * m : 34 * (m + 1)] - 0.5
        heads[f"sigma_{m + 1}"] = golden["mdn_sigma_in"][:, 2 * m : 2 * m + 2]
    if heatmaps:
        heads |= {"heat": golden["hm_hp_in"], "heat_offset": golden["hp_offset_in"] - 0.5}
    return spec, {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in heads.items()}


@pytest.mark.parametrize("kind", ["refined", "plain"])
def test_post_processing_agrees_with_the_authors_code(kind: str) -> None:
    """Columns of the reference: box, score, keypoints, class, component, sigma, mu, pi, cell; all in cells.

    Its cells (20, 12) and (21, 12) are equal: there both are peaks, here the first.
    """
    golden = dict(np.load(GOLDENS / "mixture_dense_decode.npz"))
    spec, heads = golden_heads(golden, heatmaps=kind == "refined")
    rows = golden[f"max_{kind}_dets"]
    rows = rows[~((rows[:, -2] == 21) & (rows[:, -1] == 12))]
    decoder = MixtureDenseDecoder(spec, dataclasses.replace(spec.decode, score_threshold=0.0, max_poses=len(rows)))
    cells = FrameGeometry((4.0, 4.0), (0.0, 0.0))
    poses, said = decoder(heads, cells), decoder.alternatives(heads, cells)
    np.testing.assert_allclose(poses.scores, rows[:, 4], atol=1e-5)
    np.testing.assert_allclose(poses.boxes_xyxy, rows[:, :4], atol=1e-4)
    np.testing.assert_allclose(poses.keypoints_xy.reshape(-1, 34), rows[:, 5:39], atol=1e-4)
    spread = poses.sigma_xy / np.array(COCO_KEYPOINTS.sigmas, np.float32)[:, None]
    np.testing.assert_allclose(spread, np.repeat(rows[:, None, 41:43], 17, axis=1), rtol=1e-5)
    np.testing.assert_array_equal(said.weights[: len(rows)].argmax(axis=1), rows[:, 40])
    np.testing.assert_allclose(said.weights[: len(rows)].max(axis=1), rows[:, 77], atol=1e-5)


def test_alternatives_hold_what_every_component_says() -> None:
    spec = make_spec(64, 64, components=3, heatmaps=False)
    heads = random_heads(spec, 5)
    decoder = MixtureDenseDecoder(spec, spec.decode)
    poses, said = decoder(heads, STRETCH), decoder.alternatives(heads, STRETCH)
    assert len(poses) > 3
    spoke = said.spoke
    assert isinstance(decoder, AlternativesDecoder) and set(spoke) == {0, 1, 2}
    people = np.arange(len(poses))
    for field in ("scores", "keypoints_xy", "sigma_xy", "boxes_xyxy"):
        whole = np.stack([getattr(one, field) for one in said.poses], axis=1)
        np.testing.assert_array_equal(getattr(poses, field), whole[people, spoke], err_msg=field)
    np.testing.assert_allclose(said.weights.sum(axis=1), 1.0, atol=1e-6)
    assert said.likely(0.2)[people, spoke].all() and not said.likely(0.2).all()


def test_a_threshold_below_one_suppresses_the_weaker_of_two_that_overlap() -> None:
    spec = make_spec(64, 64, heatmaps=False)
    heads = flat_heads(spec, -9.0)
    heads["size"][:] = 8.0
    for column, logit in ((4, 2.0), (6, 3.0)):
        heads["centre"][0, 0, 8, column] = logit
    heads["mu_1"][0, :, 8] = np.tile(np.linspace(-4, 4, 34)[:, None], 16)
    for nms, found in (("box", 0.5), ("oks", 0.1)):
        options = DecodeSpec(nms=nms, nms_threshold=found)
        assert make_decoder(spec, options)(heads, IDENTITY).scores.tolist() == [score_of(3.0)]
    assert len(make_decoder(spec)(heads, IDENTITY)) == 2


def test_the_mixture_is_what_all_components_say_at_peaks() -> None:
    spec = make_spec(32, 64, components=2, heatmaps=False)
    heads = random_heads(spec, 3)
    mixture = MixtureDenseDecoder(spec, spec.decode).mixture(heads, LETTERBOX)
    said = MixtureDenseDecoder(spec, DecodeSpec(score_threshold=0.0, nms_threshold=1.0)).alternatives(heads, LETTERBOX)
    assert mixture.law == "gaussian" and 10 < len(said.weights) < 60
    joint = (said.poses[0].scores[:, None] * said.weights).T
    np.testing.assert_allclose(np.exp(mixture.log_scores), joint.ravel(), rtol=1e-5)
    np.testing.assert_array_equal(mixture.keypoints_xy, np.concatenate([one.keypoints_xy for one in said.poses]))
    np.testing.assert_array_equal(mixture.scales_xy, np.concatenate([one.sigma_xy for one in said.poses]))


def test_two_artifacts_are_compared_at_the_peaks_of_one() -> None:
    """INT8 moves a peak to the next cell: read each at its own, their components would be those of other cells."""
    spec = make_spec(32, 64, components=2, heatmaps=False)
    heads = random_heads(spec, 3)
    moved = {**heads, "centre": np.roll(heads["centre"], 1, axis=3)}
    decoder = MixtureDenseDecoder(spec, spec.decode)
    reference = decoder.mixture(heads, LETTERBOX)
    own, like = decoder.mixture(moved, LETTERBOX), decoder.mixture(moved, LETTERBOX, like=heads)
    np.testing.assert_array_equal(like.keypoints_xy, reference.keypoints_xy)
    assert not np.array_equal(like.log_scores, reference.log_scores)
    assert len(own.log_scores) != len(reference.log_scores) or not np.array_equal(own.keypoints_xy, like.keypoints_xy)


def test_a_plateau_is_one_person_and_nobody_is_an_empty_result() -> None:
    spec = make_spec(64, 64)
    one, nobody = (make_decoder(spec)(flat_heads(spec, logit), IDENTITY) for logit in (3.0, -9.0))
    assert len(one) == 1
    assert len(nobody) == 0 and nobody.keypoints_xy.shape == (0, 17, 2) and nobody.boxes_xyxy.shape == (0, 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e38])
@pytest.mark.parametrize("name", ["centre", "alpha", "offset", "mu_1", "sigma_1", "size", "heat", "heat_offset"])
def test_what_is_not_finite_is_refused_by_name(name: str, value: float) -> None:
    spec = make_spec(64, 64)
    heads = flat_heads(spec, 2.0)
    heads["heat"][:] = 1.0
    heads[name][0, -1, 0, 0] = value
    with pytest.raises(EngineError, match=rf"finite head tensors.* in {name}"):
        make_decoder(spec)(heads, IDENTITY)


@pytest.mark.parametrize("extreme", [1e4, 1e30])
def test_extreme_but_finite_tensors_decode_without_a_warning(extreme: float) -> None:
    spec = make_spec(64, 64)
    heads = {name: np.full_like(tensor, extreme) for name, tensor in flat_heads(spec, 0.0).items()}
    poses = make_decoder(spec)(heads, LETTERBOX)
    assert poses.scores.tolist() == [1.0]
    assert np.isfinite(poses.sigma_xy).all()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"components": 0}, r"constants.components: expected a whole number in 1..5, got 0"),
        ({"components": 6}, r"constants.components: expected a whole number in 1..5, got 6"),
        ({"sigma_floor": -1.0}, r"constants.sigma_floor: expected a number in \[0, 100\], got -1.0"),
        ({"components": 3}, r"heads: expected the output alpha"),
    ],
)
def test_constants_out_of_range_are_refused(change: dict[str, float], expected: str) -> None:
    spec = make_spec(64, 64)
    with pytest.raises(SpecError, match=expected):
        make_decoder(dataclasses.replace(spec, constants={**spec.constants, **change}))


def test_a_spec_without_an_output_is_refused() -> None:
    spec = make_spec(64, 64)
    heads = tuple(head for head in spec.heads if head.name != "mu_2")
    with pytest.raises(SpecError, match="heads: expected the output mu_2"):
        make_decoder(dataclasses.replace(spec, heads=(*heads, HeadSpec("mu_9", 34, 4))))
