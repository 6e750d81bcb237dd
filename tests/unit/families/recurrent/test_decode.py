"""The decoder against plain loops in float64, and against figures by the authors' rules."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mdpose_edge.errors import EngineError, SpecError
from mdpose_edge.families.heat_sigma import SigmaTable
from mdpose_edge.families.recurrent.decode import RecurrentDecoder
from mdpose_edge.families.recurrent.heads import HEAT_THRESHOLD, STOP_THRESHOLD, Constants, recurrent_spec
from mdpose_edge.families.registry import make_decoder
from mdpose_edge.preprocess import FrameGeometry
from mdpose_edge.spec import DecodeSpec, HeadSpec, InputSpec, KeypointSpec, ModelSpec

Heads = dict[str, NDArray[np.float32]]
GOLDENS = Path(__file__).parents[3] / "goldens"
IDENTITY = FrameGeometry((1.0, 1.0), (0.0, 0.0))
LETTERBOX = FrameGeometry((0.5, 0.5), (0.0, 12.0))
STRETCH = FrameGeometry((0.3, 1.7), (0.0, 0.0))
ALL = DecodeSpec(score_threshold=0.0, nms_threshold=1.0)


def constants(people: int = 3, num_keypoints: int = 17) -> Constants:
    offsets = tuple(np.linspace(-3.0, -2.0, num_keypoints).tolist())
    return Constants(people, STOP_THRESHOLD, HEAT_THRESHOLD, SigmaTable(offsets, (1.5,)))


def make_spec(width: int = 64, height: int = 32, people: int = 3) -> ModelSpec:
    return recurrent_spec(InputSpec(height, width), constants(people))


def random_heads(spec: ModelSpec, seed: int, batch: int = 1) -> Heads:
    """Head tensors with some steps that are people, maps that reach too little, and ties."""
    rng = np.random.default_rng(seed)
    heads = {}
    for head in spec.heads:
        values = rng.normal(0.0, 0.3, (batch, *spec.head_shape(head)))
        values *= rng.choice([0.01, 1.0], (batch, head.channels, 1, 1))
        heads[head.name] = (np.round(values * 16) / 16).astype(np.float32)
    heads["stop"] = rng.normal(0.5, 1.5, heads["stop"].shape).astype(np.float32)
    return heads


@dataclass
class Person:
    score: np.float32
    keypoints: list[list[float]]
    sigma: list[float]
    area: float


def vertex(before: float, peak: float, after: float) -> float:
    low, middle, high = (math.log(max(value, 1e-6)) for value in (before, peak, after))
    bend = 2 * middle - low - high
    return min(0.5, max(-0.5, (high - low) / (2 * bend))) if bend > 1e-9 else 0.0


def keypoint_by_loops(heat: list[list[float]]) -> tuple[list[float], float]:
    rows, columns = len(heat), len(heat[0])
    row, column = max(
        ((r, c) for r in range(rows) for c in range(columns)), key=lambda at: (heat[at[0]][at[1]], -at[0], -at[1])
    )
    right, left = heat[row][min(column + 1, columns - 1)], heat[row][max(column - 1, 0)]
    below, above = heat[min(row + 1, rows - 1)][column], heat[max(row - 1, 0)][column]
    peak = heat[row][column]
    across = vertex(left, peak, right) if 0 < column < columns - 1 else 0.0
    down = vertex(above, peak, below) if 0 < row < rows - 1 else 0.0
    return [4 * (column + 0.5 + across), 4 * (row + 0.5 + down)], peak


def decode_by_loops(spec: ModelSpec, heads: Heads, threshold: float, index: int) -> list[Person]:
    people = []
    for step in range(spec.constants["people"]):
        p = np.float32(1 / (1 + math.exp(-heads["stop"][index, step, 0, 0])))
        if p < np.float32(STOP_THRESHOLD):
            break
        found = [keypoint_by_loops(heat.tolist()) for heat in heads[f"heat_{step + 1}"][index]]
        seen = [(point, min(max(heat, 0), 1)) for point, heat in found if heat >= np.float32(HEAT_THRESHOLD)]
        if not seen:
            continue
        sides = [max(1.0, max(point[d] for point, _ in seen) - min(point[d] for point, _ in seen)) for d in (0, 1)]
        size = math.sqrt(sides[0] * sides[1])
        spreads = [
            size * math.exp(a + 1.5 * (1 - min(max(heat, 0), 1)))
            for a, (_, heat) in zip(spec.constants["sigma"]["offsets"], found, strict=True)
        ]
        score = p * np.float32(sum(heat for _, heat in seen) / len(seen))
        if score > threshold:
            people.append(Person(score, [point for point, _ in found], spreads, size**2))
    return sorted(people, key=lambda person: -person.score)


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([(32, 32), (64, 32), (32, 64)]),
    people=st.integers(1, 5),
    threshold=st.sampled_from([0.0, 0.3]),
    most=st.sampled_from([1, 2, 100]),
    geometry=st.sampled_from([IDENTITY, LETTERBOX, STRETCH]),
    index=st.integers(0, 1),
)
def test_decodes_as_plain_loops_do(
    seed: int, size: tuple[int, int], people: int, threshold: float, most: int, geometry: FrameGeometry, index: int
) -> None:
    spec = make_spec(*size, people)
    heads = random_heads(spec, seed, batch=2)
    for tensor in heads.values():
        tensor.flags.writeable = False
    expected = decode_by_loops(spec, heads, threshold, index)[:most]
    options = dataclasses.replace(ALL, score_threshold=threshold, max_poses=most)
    poses = make_decoder(spec, options)(heads, geometry, index)
    offset, scale = np.array(geometry.offset_xy), np.array(geometry.scale_xy)
    np.testing.assert_allclose(poses.scores, [p.score for p in expected], rtol=1e-5)
    keypoints = (np.array([p.keypoints for p in expected]).reshape(-1, 17, 2) - offset) / scale
    np.testing.assert_allclose(poses.keypoints_xy, keypoints, rtol=1e-5, atol=1e-3)
    sigma = np.array([p.sigma for p in expected]).reshape(-1, 17, 1) / scale
    np.testing.assert_allclose(poses.sigma_xy, sigma, rtol=1e-4)


def test_peaks_scores_and_the_stop_agree_with_the_authors_rules() -> None:
    """They go a quarter of a cell from the highest cell to the higher neighbour; here the keypoint is on that side.

    Between equal neighbours, of which the reference takes the lower, and at the map's edge it stays in the middle.
    """
    golden = dict(np.load(GOLDENS / "recurrent_decode.npz"))
    names = tuple("abcde")
    spec = recurrent_spec(
        InputSpec(4 * 7, 4 * 9),
        Constants(3, float(golden["omega"]), float(golden["tau"]), SigmaTable((-2.0,) * 5, (1.0,))),
        KeypointSpec(names, (), (), (0.1,) * 5),
    )
    heads = {f"heat_{step + 1}": maps[None].astype(np.float32) for step, maps in enumerate(golden["heatmaps"])}
    heads["stop"] = golden["stop_logits"].astype(np.float32).reshape(1, 3, 1, 1)
    decoder = RecurrentDecoder(spec, ALL)
    poses = decoder(heads, FrameGeometry((4.0, 4.0), (0.0, 0.0)))
    assert decoder.count(heads) == golden["steps_read"] == len(poses)
    np.testing.assert_allclose(poses.scores, golden["house_score"], rtol=1e-6)
    kept = golden["joints_xyv"][..., 2] > 0
    cell = np.floor(golden["joints_xyv"][..., :2])
    theirs, ours = (points - cell - 0.5 for points in (golden["joints_xyv"][..., :2], poses.keypoints_xy))
    assert (np.abs(ours[kept]) <= 0.5 + 1e-6).all()
    inside = (cell > 0) & (cell < (8, 6))
    side = (np.sign(ours) == np.sign(theirs)) | (np.abs(ours) < 1e-6)
    assert side[kept].all() and not ours[kept & ~inside.all(axis=2)][~inside[kept & ~inside.all(axis=2)]].any()
    assert (np.sign(ours) == np.sign(theirs))[kept[..., None] & inside].mean() > 0.7


def test_the_centre_of_a_gaussian_is_found_exactly() -> None:
    spec = make_spec(64, 64)
    heads = {head.name: np.zeros((1, *spec.head_shape(head)), np.float32) for head in spec.heads}
    points = np.random.default_rng(0).uniform(3, 13, (17, 2))
    at = np.arange(16) + 0.5
    squares = (at[:, None] - points[:, None, None, 1]) ** 2 + (at - points[:, None, None, 0]) ** 2
    heads["heat_1"][0] = 0.7 * np.exp(-squares / 2)
    heads["stop"][0, :, 0, 0] = (3.0, -3.0, 0.0)
    found = RecurrentDecoder(spec, ALL)(heads, IDENTITY).keypoints_xy[0]
    np.testing.assert_allclose(found, 4 * points, atol=1e-3)


def test_a_probability_at_the_threshold_goes_on_and_one_below_ends() -> None:
    spec = make_spec()
    heads = {head.name: np.ones((1, *spec.head_shape(head)), np.float32) for head in spec.heads}
    decoder = RecurrentDecoder(spec, ALL)
    for logits, count in (((-1.0, -1.0, -1.0), 3), ((-1.0, -1.001, 9.0), 1), ((-1.001, 9.0, 9.0), 0)):
        heads["stop"][0, :, 0, 0] = logits
        assert decoder.count(heads) == count == len(decoder(heads, IDENTITY))


def test_what_comes_after_the_stop_is_not_read() -> None:
    spec = make_spec()
    heads = random_heads(spec, 1)
    heads["stop"][0, :, 0, 0] = (2.0, -2.0, 2.0)
    heads["heat_2"][:] = np.nan
    assert len(RecurrentDecoder(spec, ALL)(heads, IDENTITY)) == 1


def test_a_person_given_twice_is_one() -> None:
    spec = make_spec()
    heads = random_heads(spec, 3)
    heads["heat_1"] = np.abs(heads["heat_1"]) + 0.1
    heads["heat_3"] = heads["heat_1"] * np.float32(1.01)
    heads["stop"][:] = 3.0
    for nms, threshold in (("oks", 0.9), ("box", 0.99)):
        kept = make_decoder(spec, DecodeSpec(score_threshold=0.0, nms=nms, nms_threshold=threshold))(heads, IDENTITY)
        everybody = make_decoder(spec, ALL)(heads, IDENTITY)
        assert (len(everybody), len(kept)) == (3, 2)
        assert kept.scores[0] == everybody.scores[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e38])
@pytest.mark.parametrize("name", ["heat_1", "heat_3", "stop"])
def test_what_is_not_finite_is_refused_by_name(name: str, value: float) -> None:
    spec = make_spec()
    heads = {head.name: np.ones((1, *spec.head_shape(head)), np.float32) for head in spec.heads}
    heads[name][0, -1, 0, 0] = value
    with pytest.raises(EngineError, match=rf"finite head tensors.* in {name}"):
        make_decoder(spec)(heads, IDENTITY)


@pytest.mark.parametrize("extreme", [-1e30, 1e4, 1e30])
def test_extreme_but_finite_tensors_decode_without_a_warning(extreme: float) -> None:
    spec = make_spec()
    heads = {head.name: np.full((1, *spec.head_shape(head)), extreme, np.float32) for head in spec.heads}
    poses = make_decoder(spec)(heads, LETTERBOX)
    assert len(poses) == (extreme > 0) and np.isfinite(poses.sigma_xy).all()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"people": 0}, r"constants.people: expected a whole number in 1..16, got 0"),
        ({"people": 17}, r"constants.people: expected a whole number in 1..16, got 17"),
        ({"people": 4}, r"heads: expected the output heat_4"),
        ({"stop_threshold": 1.0}, r"constants.stop_threshold: expected a number in \(0, 1\), got 1.0"),
        ({"heat_threshold": -0.1}, r"constants.heat_threshold: expected a number in \(0, 1\), got -0.1"),
        ({"sigma": {"offsets": [0.0], "slopes": [1.0]}}, r"constants.sigma.offsets: expected 17 numbers, got 1"),
        ({"sigma": {"offsets": [0.0] * 17, "slopes": []}}, r"constants.sigma.slopes: expected 1 numbers, got 0"),
    ],
)
def test_constants_out_of_range_are_refused(change: dict[str, object], expected: str) -> None:
    spec = make_spec()
    with pytest.raises(SpecError, match=expected):
        make_decoder(dataclasses.replace(spec, constants={**spec.constants, **change}))


def test_a_spec_without_an_output_is_refused() -> None:
    spec = make_spec()
    heads = tuple(head for head in spec.heads if head.name != "stop")
    with pytest.raises(SpecError, match="heads: expected the output stop"):
        make_decoder(dataclasses.replace(spec, heads=(*heads, HeadSpec("stop_9", 3, None))))
