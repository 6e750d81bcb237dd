"""The decoder against plain loops in float64, and against figures of the authors' code."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mdpose_edge.camera import Camera
from mdpose_edge.errors import EngineError, SpecError
from mdpose_edge.families.das.decode import DASDecoder
from mdpose_edge.families.das.heads import Constants, Level, das_spec, pyramid
from mdpose_edge.families.das.update import updated
from mdpose_edge.families.registry import make_decoder
from mdpose_edge.geometry import FrameGeometry
from mdpose_edge.spec import DecodeSpec, HeadSpec, InputSpec, KeypointSpec, ModelSpec

Heads = dict[str, NDArray[np.float32]]
GOLDENS = Path(__file__).parents[3] / "goldens"
CAMERA = Camera(60.0, 50.0, 30.0, 20.0)
IDENTITY = FrameGeometry((1.0, 1.0), (0.0, 0.0), CAMERA)
LETTERBOX = FrameGeometry((0.5, 0.5), (0.0, 12.0), CAMERA)
STRETCH = FrameGeometry((0.3, 1.7), (0.0, 0.0), CAMERA)
EVERYTHING = DecodeSpec(score_threshold=0.0, nms_threshold=1.0)


def make_spec(width: int = 64, height: int = 64, **constants: Any) -> ModelSpec:
    input_spec = InputSpec(height, width)
    levels = pyramid(input_spec, ("p3", "p4", "p5"))
    return das_spec(input_spec, Constants(levels, (11, 12), **constants))


def random_heads(spec: ModelSpec, seed: int, batch: int = 1) -> Heads:
    """Head tensors with several people, some of whose joints lie outside the map."""
    rng = np.random.default_rng(seed)
    scales = {"o": 2.0, "c": 1.0, "depth": 0.5, "uv": 2.5, "dz": 0.8, "sigma": 1.0}
    heads = {}
    for head in spec.heads:
        values = rng.normal(0.0, scales[head.name.partition("_")[0]], (batch, *spec.head_shape(head)))
        if head.name.startswith("o_"):
            values = np.round(values * 2) / 2 - 2.0
        heads[head.name] = values.astype(np.float32)
    return heads


def flat_heads(spec: ModelSpec, logit: float) -> Heads:
    heads = {head.name: np.zeros((1, *spec.head_shape(head)), np.float32) for head in spec.heads}
    for name in heads:
        if name.startswith("o_"):
            heads[name][:] = logit
    return heads


def sigmoid(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-logit))


def read_by_loops(plane: NDArray[np.float32], x: float, y: float) -> tuple[float, float]:
    """Read a map at a point in cells; also give how much of the weight lies on it."""
    rows, columns = plane.shape
    left, top = math.floor(x - 0.5), math.floor(y - 0.5)
    total = inside = 0.0
    for row in (top, top + 1):
        for column in (left, left + 1):
            weight = (1 - abs(x - 0.5 - column)) * (1 - abs(y - 0.5 - row))
            if 0 <= row < rows and 0 <= column < columns:
                total += weight * float(plane[row, column])
                inside += weight
    return total, inside


def pose_by_loops(spec: ModelSpec, maps: Heads, level: dict[str, Any], row: int, column: int) -> dict[str, Any]:
    name, stride, constants = level["name"], level["stride"], spec.constants
    uv, dz, raw = maps[f"uv_{name}"], maps[f"dz_{name}"], maps[f"sigma_{name}"]
    keypoints, depths, sigma = [], [], []
    for k in range(17):
        u, v = (float(uv[2 * k + axis, row, column]) for axis in (0, 1))
        depth = float(dz[k, row, column])
        for _ in range(constants["updates"]):
            x, y = column + 0.5 + u, row + 0.5 + v
            more_u, inside = read_by_loops(uv[2 * k], x, y)
            more_v, _ = read_by_loops(uv[2 * k + 1], x, y)
            depth = read_by_loops(dz[k], x, y)[0] + (1 - inside) * depth
            u, v = u + more_u, v + more_v
        keypoints.append([stride * (column + 0.5 + u), stride * (row + 0.5 + v)])
        depths.append(constants["z_norm"] * depth)
        sigma.append(
            [
                math.sqrt(2) * stride * constants["sigma_factors"][axis] * sigmoid(raw[3 * k + axis, row, column])
                for axis in (0, 1)
            ]
        )
    return {
        "keypoints": keypoints,
        "depths": depths,
        "sigma": sigma,
        "depth": float(maps[f"depth_{name}"][0, row, column]),
    }


def decode_by_loops(spec: ModelSpec, heads: Heads, options: DecodeSpec, index: int) -> list[dict[str, Any]]:
    maps, found = {name: tensor[index] for name, tensor in heads.items()}, []
    for level in spec.constants["levels"]:
        rows, columns = spec.cells(level["stride"])
        for row in range(rows):
            for column in range(columns):
                logits = (maps[f"{kind}_{level['name']}"][0, row, column] for kind in ("o", "c"))
                o, c = (np.float32(sigmoid(logit)) for logit in logits)
                if o * c > np.float32(options.score_threshold):
                    found.append({"score": o * c, **pose_by_loops(spec, maps, level, row, column)})
    return sorted(found, key=lambda pose: -pose["score"])[: options.pre_nms][: options.max_poses]


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([(32, 32), (64, 32), (32, 64)]),
    updates=st.integers(0, 2),
    depth=st.sampled_from(["log", "linear"]),
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
    updates: int,
    depth: str,
    options: DecodeSpec,
    geometry: FrameGeometry,
    index: int,
) -> None:
    spec = make_spec(*size, updates=updates, depth=depth, sigma_factors=(1.5, 0.5, 2.0), reference_focal=100.0)
    heads = random_heads(spec, seed, batch=2)
    for tensor in heads.values():
        tensor.flags.writeable = False
    expected = decode_by_loops(spec, heads, options, index)
    poses = make_decoder(spec, options)(heads, geometry, index)
    offset, scale = np.array(geometry.offset_xy), np.array(geometry.scale_xy)
    np.testing.assert_allclose(poses.scores, [p["score"] for p in expected], rtol=1e-6)
    keypoints = (np.array([p["keypoints"] for p in expected]).reshape(-1, 17, 2) - offset) / scale
    np.testing.assert_allclose(poses.keypoints_xy, keypoints, rtol=1e-4, atol=2e-3)
    sigma = np.array([p["sigma"] for p in expected]).reshape(-1, 17, 2) / scale
    np.testing.assert_allclose(poses.sigma_xy, sigma, rtol=1e-4)
    focal = math.sqrt(60.0 * 50.0 * scale[0] * scale[1])
    points = []
    for person, seen in zip(expected, keypoints, strict=True):
        root = focal / 100.0 * (math.exp(person["depth"]) if depth == "log" else person["depth"])
        for (x, y), deeper in zip(seen, person["depths"], strict=True):
            z = root + deeper
            points.append([(x - 30.0) * z / 60.0, (y - 20.0) * z / 50.0, z])
    assert poses.metric and poses.keypoints_3d is not None
    np.testing.assert_allclose(poses.keypoints_3d, np.array(points).reshape(-1, 17, 3), rtol=1e-3, atol=1e-2)


def fifteen_joints() -> KeypointSpec:
    return KeypointSpec(tuple(f"joint{k}" for k in range(15)), (), (), (0.08,) * 15)


def test_post_processing_agrees_with_the_authors_code() -> None:
    """Its maps hold pixels and centimetres, ours cells and half metres; it sets the root's own dz to nothing."""
    golden = np.load(GOLDENS / "das_decode.npz")
    levels = (Level("p3", 8, 80.0), Level("p4", 16, None))
    spec = das_spec(InputSpec(80, 96), Constants(levels, (2,), depth="linear", updates=0), fifteen_joints())
    heads: Heads = {}
    for level in levels:
        maps = golden[f"pose_map_stride{level.stride}"]
        uvd = maps[:, 3:].reshape(1, 15, 3, *maps.shape[2:])
        heads[f"o_{level.name}"] = golden[f"class_logits_stride{level.stride}"]
        heads[f"c_{level.name}"] = golden[f"centerness_logits_stride{level.stride}"]
        heads[f"depth_{level.name}"] = 10.0 * maps[:, 2:3]
        heads[f"uv_{level.name}"] = uvd[:, :, :2].reshape(1, 30, *maps.shape[2:]) / np.float32(level.stride)
        dz = uvd[:, :, 2] / np.float32(50.0)
        dz[:, 2] = 0.0
        heads[f"dz_{level.name}"] = dz
        heads[f"sigma_{level.name}"] = np.zeros((1, 45, *maps.shape[2:]), np.float32)
    k = golden["K"]
    camera = Camera(k[0, 0], k[1, 1], k[0, 2], k[1, 2])
    geometry = FrameGeometry((0.8, 0.8), (0.0, 0.0), camera)
    options = DecodeSpec(score_threshold=0.07, nms_threshold=1.0)
    everybody = make_decoder(spec, options)(heads, geometry)
    np.testing.assert_allclose(everybody.scores, golden["before_nms_scores"], rtol=1e-5)
    np.testing.assert_allclose(everybody.keypoints_xy, golden["before_nms_poses_image"][..., :2], atol=1e-3)
    kept = make_decoder(spec, dataclasses.replace(options, nms="oks", nms_threshold=0.9))(heads, geometry)
    np.testing.assert_allclose(kept.scores, golden["kept_scores"], rtol=1e-5)
    assert kept.keypoints_3d is not None
    np.testing.assert_allclose(kept.keypoints_3d, golden["camera_xyz_cm"] / 100, atol=1e-4)


def test_the_update_is_that_of_the_authors_code() -> None:
    """But for joints off the map: there it takes a depth of 0, and we keep what was said."""
    golden = np.load(GOLDENS / "das_recursive.npz")
    uvd = golden["uvd"][0].reshape(3, 3, 7, 9).astype(np.float32)
    wanted = golden["single_source"][0].reshape(3, 3, 63)
    uv, dz = np.ascontiguousarray(uvd[:, :2]), np.ascontiguousarray(uvd[:, 2])
    offsets, depths = updated(uv, dz, np.arange(63), 1)
    np.testing.assert_allclose(offsets, wanted[:, :2], atol=1e-5)
    rows, columns = np.indices((7, 9)).reshape(2, -1)
    x, y = columns + uvd[:, 0].reshape(3, -1), rows + uvd[:, 1].reshape(3, -1)
    inside = (x >= 0) & (x <= 8) & (y >= 0) & (y <= 6)
    assert 20 < inside.sum() < 189
    np.testing.assert_allclose(depths[inside], wanted[:, 2][inside], atol=1e-5)
    far = (x < -1) | (x > 9) | (y < -1) | (y > 7)
    np.testing.assert_array_equal(depths[far], dz.reshape(3, -1)[far])


def test_without_a_camera_it_is_guessed_and_no_metre_is_claimed() -> None:
    spec = make_spec(64, 32)
    heads = random_heads(spec, 4)
    decoder = make_decoder(spec)
    stretch, letterbox = FrameGeometry((0.5, 0.25), (0.0, 0.0)), FrameGeometry((0.25, 0.25), (0.0, 6.0))
    for geometry, width, height in ((stretch, 128, 128), (letterbox, 256, 80)):
        guessed = decoder(heads, geometry)
        focal = 1.2 * max(width, height)
        camera = Camera(focal, focal, width / 2, height / 2)
        known = decoder(heads, dataclasses.replace(geometry, camera=camera))
        assert len(known) > 1 and known.metric and not guessed.metric
        assert known.keypoints_3d is not None and guessed.keypoints_3d is not None
        np.testing.assert_allclose(guessed.keypoints_3d, known.keypoints_3d, rtol=1e-6)


def test_the_size_of_the_frame_changes_no_distance() -> None:
    """A frame of twice as many pixels has a camera of twice the focal length; the person is where she was."""
    spec = make_spec()
    heads = random_heads(spec, 8)
    near = make_decoder(spec)(heads, FrameGeometry((0.5, 0.5), (0.0, 0.0), Camera(100.0, 100.0, 64.0, 64.0)))
    fine = make_decoder(spec)(heads, FrameGeometry((0.25, 0.25), (0.0, 0.0), Camera(200.0, 200.0, 128.0, 128.0)))
    assert near.keypoints_3d is not None and fine.keypoints_3d is not None and len(near) > 1
    np.testing.assert_allclose(fine.keypoints_3d, near.keypoints_3d, rtol=1e-4, atol=1e-5)


def test_nms_drops_the_weaker_of_two_that_overlap() -> None:
    spec = make_spec(updates=0)
    heads = flat_heads(spec, -9.0)
    for cell, logit in ((3, 2.0), (4, 3.0)):
        heads["o_p3"][0, 0, 3, cell] = logit
    heads["c_p3"][:] = 5.0
    heads["uv_p3"][0] = np.tile(np.linspace(-2, 2, 34)[:, None, None], (1, 8, 8))
    for nms, threshold in (("box", 0.3), ("oks", 0.1)):
        options = DecodeSpec(nms=nms, nms_threshold=threshold)  # type: ignore[arg-type]
        assert len(make_decoder(spec, options)(heads, IDENTITY)) == 1
    assert len(make_decoder(spec, EVERYTHING)(heads, IDENTITY)) > 2


def test_the_mixture_is_read_at_the_peaks_of_the_other() -> None:
    spec = make_spec()
    heads = random_heads(spec, 3)
    moved = {**heads, **{f"o_{p}": np.roll(heads[f"o_{p}"], 1, axis=3) for p in ("p3", "p4", "p5")}}
    decoder = DASDecoder(spec, spec.decode)
    own, like = decoder.mixture(heads, LETTERBOX), decoder.mixture(moved, LETTERBOX, like=heads)
    assert own.law == "laplace" and 5 < len(own.log_scores) < 60
    np.testing.assert_array_equal(like.keypoints_xy, own.keypoints_xy)
    assert not np.array_equal(like.log_scores, own.log_scores)
    everybody = DASDecoder(spec, EVERYTHING)(heads, LETTERBOX)
    best = int(np.argmax(own.log_scores))
    np.testing.assert_allclose(own.keypoints_xy[best], everybody.keypoints_xy[0], rtol=1e-6)
    np.testing.assert_allclose(own.scales_xy[best] * math.sqrt(2), everybody.sigma_xy[0], rtol=1e-5)


def test_nobody_is_an_empty_result() -> None:
    spec = make_spec()
    nobody = make_decoder(spec)(flat_heads(spec, -9.0), IDENTITY)
    assert len(nobody) == 0 and nobody.keypoints_3d is not None and nobody.keypoints_3d.shape == (0, 17, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e38])
@pytest.mark.parametrize("name", ["o_p3", "c_p4", "depth_p5", "uv_p3", "dz_p4", "sigma_p5"])
def test_what_is_not_finite_is_refused_by_name(name: str, value: float) -> None:
    spec = make_spec()
    heads = flat_heads(spec, 2.0)
    heads[name][0, -1, 0, 0] = value
    with pytest.raises(EngineError, match=rf"finite head tensors.* in {name}"):
        make_decoder(spec)(heads, IDENTITY)


@pytest.mark.parametrize("extreme", [1e4, 1e30])
def test_extreme_but_finite_tensors_decode_without_a_warning(extreme: float) -> None:
    spec = make_spec()
    heads = {name: np.full_like(tensor, extreme) for name, tensor in flat_heads(spec, 0.0).items()}
    poses = make_decoder(spec)(heads, LETTERBOX)
    assert poses.keypoints_3d is not None and len(poses)
    assert np.isfinite(poses.sigma_xy).all() and np.isfinite(poses.keypoints_3d).all()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"updates": 4}, r"constants.updates: expected a whole number in 0..3, got 4"),
        ({"z_norm": 0.0}, r"constants: expected a focal length, z_norm and sigma_factors above 0"),
        ({"sigma_factors": [1.0, -1.0, 1.0]}, r"constants: expected a focal length, z_norm and sigma_factors above 0"),
        ({"root": [17]}, r"constants.root: expected indices below 17"),
        ({"depth": "cubic"}, r"constants: expected one of log, linear at depth"),
    ],
)
def test_constants_out_of_range_are_refused(change: dict[str, Any], expected: str) -> None:
    spec = make_spec()
    with pytest.raises(SpecError, match=expected):
        make_decoder(dataclasses.replace(spec, constants={**spec.constants, **change}))


def test_a_spec_without_an_output_is_refused() -> None:
    spec = make_spec()
    heads = tuple(head for head in spec.heads if head.name != "dz_p4")
    with pytest.raises(SpecError, match="heads: expected the output dz_p4"):
        make_decoder(dataclasses.replace(spec, heads=(*heads, HeadSpec("dz_p9", 17, 16))))
