"""The decoder against plain loops in float64, and against figures of the authors' codes."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mdpose_edge.errors import BundleError, EngineError, SpecError
from mdpose_edge.families.adaptive.decode import AdaptiveDecoder
from mdpose_edge.families.adaptive.heads import Constants, adaptive_spec, first_constants, published_constants
from mdpose_edge.families.adaptive.scorer import layout_of, num_features
from mdpose_edge.families.heat_sigma import SigmaTable
from mdpose_edge.families.registry import make_decoder
from mdpose_edge.preprocess import FrameGeometry
from mdpose_edge.spec import COCO_KEYPOINTS, DecodeSpec, HeadSpec, InputSpec, KeypointSpec, ModelSpec

Heads = dict[str, NDArray[np.float32]]
GOLDENS = Path(__file__).parents[3] / "goldens"
IDENTITY = FrameGeometry((1.0, 1.0), (0.0, 0.0))
LETTERBOX = FrameGeometry((0.5, 0.5), (0.0, 12.0))
NEAR_TIE = 1e-3
"""Decisions closer to a bound than this are not float32's to make."""
FIVE = KeypointSpec(tuple("abcde"), (), ((0, 1), (1, 2), (2, 3)), (0.05, 0.1, 0.1, 0.2, 0.02))


def make_spec(width: int, height: int, constants: Constants | None = None) -> ModelSpec:
    return adaptive_spec(InputSpec(height, width), FIVE, constants)


def random_heads(spec: ModelSpec, seed: int) -> Heads:
    """Two images with people, plateaus of equal heights, near duplicates, and peaks to go to."""
    rng = np.random.default_rng(seed)
    heads = {}
    for head in spec.heads:
        values = rng.normal(0.0, 3.0, (2, *spec.head_shape(head)))
        if head.name == "offset":  # two people alone in each image, whom many cells know
            values = np.repeat(rng.normal(0.0, 4.0, (2, head.channels, 1, 1)), values.shape[3], axis=3)
            values = values + rng.normal(0.0, 0.05, (2, *spec.head_shape(head)))
            rows, columns = np.indices(spec.head_shape(head)[1:])
            values[:, 0::2] -= columns - columns.mean()
            values[:, 1::2] -= rows - rows.mean()
            values[..., : values.shape[3] // 2] += rng.normal(0.0, 6.0, (2, head.channels, 1, 1))
        else:
            values = np.round(values * 4) / 40  # plateaus
        heads[head.name] = values.astype(np.float32)
    return heads


@dataclass
class Person:
    centre: float
    regressed: list[list[float]]
    heat: list[float]
    keypoints: list[list[float]]
    absorbed: list[bool]

    @property
    def score(self) -> float:
        return self.centre * sum(self.heat) / len(self.heat)


def peaks_by_loops(heights: list[list[float]], threshold: float) -> list[tuple[int, int]]:
    """Give the (row, column) of peaks; of a plateau's cells that touch, the first."""
    rows, columns, found = len(heights), len(heights[0]), []
    for row in range(rows):
        for column in range(columns):
            value = heights[row][column]
            around = [
                (r, c)
                for r in range(max(0, row - 1), min(rows, row + 2))
                for c in range(max(0, column - 1), min(columns, column + 2))
                if (r, c) != (row, column)
            ]
            beaten = any(
                heights[r][c] > value or (heights[r][c] == value and (r, c) < (row, column)) for r, c in around
            )
            if value > threshold and not beaten:
                found.append((row, column))
    return found


def read_by_loops(heights: list[list[float]], x: float, y: float) -> float:
    """Read a map between cells, whose values lie at whole numbers."""
    rows, columns = len(heights), len(heights[0])
    x, y = min(max(x, 0.0), columns - 1.0), min(max(y, 0.0), rows - 1.0)
    total = 0.0
    for row in range(int(y), min(rows, int(y) + 2)):
        for column in range(int(x), min(columns, int(x) + 2)):
            total += max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row)) * heights[row][column]
    return total


def step_by_loops(heights: list[list[float]], row: int, column: int, down: int, right: int) -> float:
    r0, c0, r1, c1 = row - down, column - right, row + down, column + right
    if min(r0, c0) < 0 or r1 >= len(heights) or c1 >= len(heights[0]):
        return 0.0
    before, here, after = (math.log(max(heights[r][c], 1e-6)) for r, c in ((r0, c0), (row, column), (r1, c1)))
    curvature = before + after - 2 * here
    return min(0.5, max(-0.5, (before - after) / (2 * curvature))) if curvature < 0 else 0.0


def diagonal(points: list[list[float]]) -> float:
    xs, ys = zip(*points, strict=True)
    return math.hypot(max(xs) - min(xs), max(ys) - min(ys))


def absorb_by_loops(spec: ModelSpec, heights: list[list[float]], person: Person, k: int) -> None:
    constants, origin = spec.constants, spec.constants["cell_origin"]
    reach = min(constants["reach"] * min(spec.input.width, spec.input.height),
                constants["reach_of_pose"] * diagonal(person.regressed))  # fmt: skip
    x, y = person.regressed[k]
    ranked = []
    for row, column in peaks_by_loops(heights, float(np.float32(constants["heat_threshold"]))):
        place = 4 * (column + origin), 4 * (row + origin)
        ranked.append((math.dist(place, (x, y)), -heights[row][column], row, column))
    if not ranked:
        return
    ranked.sort()
    assume(len(ranked) < 2 or ranked[1][0] - ranked[0][0] > NEAR_TIE)
    assume(abs(ranked[0][0] - reach) > NEAR_TIE)
    distance, _, row, column = ranked[0]
    if distance < reach:
        dx, dy = step_by_loops(heights, row, column, 0, 1), step_by_loops(heights, row, column, 1, 0)
        person.keypoints[k] = [4 * (column + origin + dx), 4 * (row + origin + dy)]
        person.absorbed[k] = True
        person.heat[k] = heights[row][column]


def group_by_loops(spec: ModelSpec, heads: Heads, options: DecodeSpec, index: int) -> list[Person]:
    maps = {name: tensor[index].astype(np.float64) for name, tensor in heads.items()}
    origin, centre = spec.constants["cell_origin"], maps["centre"][0].tolist()
    heat = [one.tolist() for one in maps["heat"]]
    cells = peaks_by_loops(centre, float(np.float32(max(0.01, options.score_threshold))))
    cells.sort(key=lambda cell: -centre[cell[0]][cell[1]])
    people = []
    for row, column in cells[: options.pre_nms]:
        offset = maps["offset"][:, row, column].tolist()
        pose = [[4 * (column + origin + offset[2 * k]), 4 * (row + origin + offset[2 * k + 1])] for k in range(5)]
        values = [read_by_loops(heat[k], pose[k][0] / 4 - origin, pose[k][1] / 4 - origin) for k in range(5)]
        people.append(Person(min(1.0, centre[row][column]), pose, values, [list(p) for p in pose], [False] * 5))
    ranked = sorted(people, key=lambda person: -person.score)
    scores = [person.score for person in ranked]
    assume(all(a - b > 1e-6 for a, b in itertools.pairwise(scores)))
    kept: list[Person] = []
    for person in ranked:
        shared = []
        for better in kept:
            distances = [math.dist(a, b) for a, b in zip(person.regressed, better.regressed, strict=True)]
            near = 0.05 * diagonal(better.regressed)
            assume(all(abs(d - near) > 1e-4 for d in distances))
            shared.append(sum(d < near for d in distances))
        if not any(count > 2 for count in shared):
            kept.append(person)
    people = [person for person in people if person in kept]
    for person in people:
        for k in range(5):
            absorb_by_loops(spec, heat[k], person, k)
        person.heat = [min(1.0, max(0.0, value)) for value in person.heat]
    return people


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([(32, 32), (64, 32), (32, 64)]),
    origin=st.sampled_from([0.0, 0.5]),
    reach=st.sampled_from([(0.15, 0.3), (0.5, 10.0), (0.0, 1.0)]),
    options=st.builds(
        DecodeSpec,
        score_threshold=st.sampled_from([0.0, 0.05, 0.2]),
        nms_threshold=st.just(1.0),
        pre_nms=st.sampled_from([1, 5, 100]),
        max_poses=st.sampled_from([1, 3, 100]),
    ),
    geometry=st.sampled_from([IDENTITY, LETTERBOX]),
    index=st.integers(0, 1),
)
def test_decodes_as_plain_loops_do(
    seed: int,
    size: tuple[int, int],
    origin: float,
    reach: tuple[float, float],
    options: DecodeSpec,
    geometry: FrameGeometry,
    index: int,
) -> None:
    constants = dataclasses.replace(
        first_constants(FIVE), cell_origin=origin, reach=reach[0], reach_of_pose=reach[1],
        sigma=SigmaTable((-3.0, -2.0, -2.5, -1.0, -4.0), (1.0, 2.0)),
    )  # fmt: skip
    spec = make_spec(*size, constants)
    heads = random_heads(spec, seed)
    for tensor in heads.values():
        tensor.flags.writeable = False
    people = group_by_loops(spec, heads, options, index)
    decoder = AdaptiveDecoder(spec, options)
    grouped = decoder.group(heads, index)
    assert len(grouped.centre) == len(people)
    np.testing.assert_array_equal(grouped.absorbed, np.array([p.absorbed for p in people]).reshape(-1, 5))
    expected = np.array([p.keypoints for p in people]).reshape(-1, 5, 2)
    np.testing.assert_allclose(grouped.keypoints_xy, expected, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(grouped.heat, np.array([p.heat for p in people]).reshape(-1, 5), atol=1e-5)

    poses = decoder(heads, geometry, index)
    assume(all(abs(p.score - options.score_threshold) > 1e-6 for p in people))
    best = sorted((p for p in people if p.score > options.score_threshold), key=lambda p: -p.score)
    scores = [p.score for p in best]
    assume(all(a - b > 1e-6 for a, b in itertools.pairwise(scores)))
    best = best[: options.max_poses]
    np.testing.assert_allclose(poses.scores, [p.score for p in best], atol=1e-6)
    offset, scale = np.array(geometry.offset_xy), np.array(geometry.scale_xy)
    keypoints = (np.array([p.keypoints for p in best]).reshape(-1, 5, 2) - offset) / scale
    np.testing.assert_allclose(poses.keypoints_xy, keypoints, rtol=1e-5, atol=2e-3)
    for row, person in enumerate(best):
        xs, ys = zip(*person.keypoints, strict=True)
        area = max(1.0, max(xs) - min(xs)) * max(1.0, max(ys) - min(ys))
        for k in range(5):
            slope = 1.0 if person.absorbed[k] else 2.0
            sigma = math.sqrt(area) * math.exp(constants.sigma.offsets[k] + slope * (1 - person.heat[k]))
            np.testing.assert_allclose(poses.sigma_xy[row, k], sigma / scale, rtol=1e-3)


def test_the_figures_of_dekr() -> None:
    """Regressed poses, equal but for what is wrong: its max-pooling makes two people of a plateau of two cells."""
    golden = np.load(GOLDENS / "adaptive_decode.npz")
    spec = adaptive_spec(InputSpec(128, 160), constants=published_constants())
    heads = {"heat": golden["heatmap"][None, :17], "centre": golden["heatmap"][None, 17:],
             "offset": -golden["offset"][None]}  # fmt: skip
    decoder = AdaptiveDecoder(spec, DecodeSpec(score_threshold=0.0, nms_threshold=1.0))
    found = decoder.group({name: np.ascontiguousarray(tensor) for name, tensor in heads.items()})
    theirs = golden["dekr_initial_poses"]
    first_of_equals = [1, 2, 4, 5, 6, 7]
    np.testing.assert_allclose(found.regressed_xy, theirs[first_of_equals, :, :2], atol=1e-5 * 200)
    np.testing.assert_allclose(found.centre, theirs[first_of_equals, 0, 2], rtol=1e-6)
    pose = golden["right_final_poses"][1]  # the second that they keep is our first
    sure = found.absorbed[0] & (found.heat[0] > 0.3)
    assert np.median(np.abs(found.keypoints_xy[0, sure] - pose[sure, :2])) < 1.0


def test_the_figures_of_mmpose() -> None:
    """Poses, and the heat there: its own are read half a cell off, so that the right ones are compared."""
    golden = np.load(GOLDENS / "adaptive_decode.npz")
    spec = adaptive_spec(InputSpec(128, 128), constants=dataclasses.replace(published_constants(), reach=0.0))
    maps = golden["mmpose_heatmaps"][None]
    heads = {"heat": maps[:, :17], "centre": maps[:, 17:], "offset": golden["mmpose_displacements"][None]}
    decoder = AdaptiveDecoder(spec, DecodeSpec(score_threshold=0.0, nms_threshold=1.0, pre_nms=3))
    found = decoder.group({name: np.ascontiguousarray(tensor) for name, tensor in heads.items()})
    rows = [0, 1, 3]  # the tie's first cell
    np.testing.assert_allclose(found.centre, golden["mmpose_root_scores"][rows], rtol=1e-6)
    np.testing.assert_allclose(found.regressed_xy, golden["mmpose_keypoints"][rows], atol=1e-3)
    np.testing.assert_allclose(found.heat, golden["right_keypoint_scores"][rows].clip(0, 1), atol=1e-5)


def test_a_gaussian_between_cells_is_found_exactly() -> None:
    spec = adaptive_spec(InputSpec(64, 64))
    heads = {head.name: np.zeros((1, *spec.head_shape(head)), np.float32) for head in spec.heads}
    rows, columns = np.indices((16, 16)) + 0.5
    truth = np.random.default_rng(0).uniform(16, 48, (17, 2))
    for k, (x, y) in enumerate(truth):
        heads["heat"][0, k] = np.exp(-((columns - x / 4) ** 2 + (rows - y / 4) ** 2) / (2 * 2.0**2))
    heads["centre"][0, 0, 8, 8] = 0.9
    heads["offset"][0, :, 8, 8] = (truth / 4 - 8.5).ravel() + np.random.default_rng(1).uniform(-0.4, 0.4, 34)
    poses = make_decoder(spec)(heads, IDENTITY)
    np.testing.assert_allclose(poses.keypoints_xy[0], truth, atol=2e-3)


def test_a_scoring_net_orders_people_by_what_it_expects_of_them() -> None:
    layout = layout_of(FIVE)
    spec = make_spec(64, 64, dataclasses.replace(first_constants(FIVE), scorer=layout))
    heads = random_heads(spec, 3)
    width = num_features(layout, 5)
    net = {
        "l1.weight": np.zeros((4, width), np.float32), "l1.bias": np.zeros(4, np.float32),
        "l2.weight": np.zeros((4, 4), np.float32), "l2.bias": np.zeros(4, np.float32),
        "l3.weight": np.zeros((1, 4), np.float32), "l3.bias": np.array([0.5], np.float32),
    }  # fmt: skip
    options = DecodeSpec(score_threshold=0.0, nms_threshold=1.0)
    plain = AdaptiveDecoder(make_spec(64, 64), options)(heads, IDENTITY)
    halved = AdaptiveDecoder(spec, options, {"scorer": net})(heads, IDENTITY)
    assert len(plain) >= 2
    np.testing.assert_allclose(halved.scores, 0.5 * plain.scores, rtol=1e-6)
    net["l3.bias"][:] = 7.0
    np.testing.assert_allclose(AdaptiveDecoder(spec, options, {"scorer": net})(heads, IDENTITY).scores, plain.scores)
    for side, word in (
        (None, "the side file"),
        ({"scorer": {**net, "l2.bias": np.zeros(3, np.float32)}}, "l2"),
        ({"scorer": {name: array for name, array in net.items() if name != "l1.bias"}}, "l1.bias"),
        ({"scorer": {**net, "l3.bias": np.array([np.nan], np.float32)}}, "finite"),
    ):
        with pytest.raises(BundleError, match=word):
            make_decoder(spec, options, side)


def test_nms_runs_where_it_is_asked_for() -> None:
    spec = make_spec(64, 64)
    heads, options = random_heads(spec, 1), DecodeSpec(score_threshold=0.0, nms_threshold=1.0)
    everybody = make_decoder(spec, options)(heads, IDENTITY)
    for kind in ("box", "oks"):
        fewer = make_decoder(spec, dataclasses.replace(options, nms=kind, nms_threshold=0.1))(heads, IDENTITY)
        assert 0 < len(fewer) < len(everybody)
        np.testing.assert_array_equal(fewer.scores[0], everybody.scores[0])


def test_an_empty_picture_has_nobody() -> None:
    spec = make_spec(64, 64)
    heads = {head.name: np.zeros((1, *spec.head_shape(head)), np.float32) for head in spec.heads}
    poses = make_decoder(spec)(heads, IDENTITY)
    assert poses.keypoints_xy.shape == (0, 5, 2)


@pytest.mark.parametrize("name", ["heat", "centre", "offset"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e31])
def test_values_that_are_no_numbers_are_refused(name: str, value: float) -> None:
    spec = make_spec(32, 32)
    heads = random_heads(spec, 0)
    heads[name][:] = value
    with pytest.raises(EngineError, match=name):
        make_decoder(spec)(heads, IDENTITY)


def test_a_spec_that_does_not_fit_is_refused() -> None:
    spec = make_spec(32, 32)
    fewer = dataclasses.replace(spec, heads=(HeadSpec("heat", 5, 4), HeadSpec("centre", 1, 4)))
    with pytest.raises(SpecError, match="offset"):
        make_decoder(fewer)
    bad: dict[str, dict[str, Any]] = {
        "cell_origin": {"cell_origin": 2.0},
        "offsets": {"sigma": {"offsets": [0.0] * 17, "slopes": [1.0, 1.0]}},
        "slopes": {"sigma": {"offsets": [0.0] * 5, "slopes": [1.0]}},
        "links": {"scorer": {"links": [[0, 7]], "torso": [0]}},
        "torso": {"scorer": {"links": [[0, 1]], "torso": [1]}},
    }
    for word, change in bad.items():
        with pytest.raises(SpecError, match=word):
            make_decoder(dataclasses.replace(spec, constants={**spec.constants, **change}))


def test_its_spec_survives_json() -> None:
    constants = dataclasses.replace(first_constants(), scorer=layout_of(COCO_KEYPOINTS))
    spec = adaptive_spec(InputSpec(64, 64), constants=constants)
    again = ModelSpec.from_json(spec.to_json())
    assert AdaptiveDecoder(dataclasses.replace(again, constants={**again.constants, "scorer": None}), again.decode)
    with pytest.raises(BundleError):
        make_decoder(again)
