import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdpose_edge.errors import InputError
from mdpose_edge.preprocess import MAX_ASPECT, MIN_SIDE, check_frame, frame_geometry, preprocess
from mdpose_edge.spec import InputSpec

POLICIES = ("stretch", "letterbox")
sides = st.integers(MIN_SIDE, 4000)


@given(width=sides, height=sides, policy=st.sampled_from(POLICIES), net=st.tuples(sides, sides))
def test_frame_to_network_to_frame_is_below_a_hundredth_of_a_pixel(width, height, policy, net):
    geometry = frame_geometry((width, height), InputSpec(height=net[1], width=net[0], resize=policy))
    points = np.random.default_rng(0).uniform(-0.2, 1.2, (50, 2)).astype(np.float32) * np.float32([width, height])
    assert np.abs(geometry.to_frame(geometry.to_network(points)) - points).max() < 0.01


@given(width=sides, height=sides, policy=st.sampled_from(POLICIES))
def test_the_frame_fills_the_input_and_nothing_lies_outside(width, height, policy):
    spec = InputSpec(height=256, width=192, resize=policy)
    geometry = frame_geometry((width, height), spec)
    corners = geometry.to_network(np.float32([[0, 0], [width, height]]))
    assert (corners >= -1e-3).all() and (corners <= np.float32([192, 256]) + 1e-3).all()
    covered = corners[1] - corners[0]
    filled = covered >= np.float32([191, 255])
    assert filled.all() if policy == "stretch" else filled.any()


@given(width=st.integers(200, 2000), height=st.integers(200, 2000))
def test_letterbox_keeps_the_aspect_to_within_a_pixel(width, height):
    geometry = frame_geometry((width, height), InputSpec(height=512, width=512, resize="letterbox"))
    new_wh = np.float32(geometry.scale_xy) * np.float32([width, height])
    scale = min(512 / width, 512 / height)
    assert np.abs(new_wh - scale * np.float32([width, height])).max() <= 0.51


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("frame_wh", [(640, 360), (360, 640), (97, 203)], ids=str)
def test_a_marker_in_the_frame_lands_where_the_geometry_says(policy, frame_wh):
    frame = np.zeros((frame_wh[1], frame_wh[0], 3), np.uint8)
    x, y = frame_wh[0] // 3, frame_wh[1] // 2
    frame[y - 4 : y + 4, x - 4 : x + 4] = 255
    spec = InputSpec(height=256, width=320, mean=(0.0, 0.0, 0.0), resize=policy)
    image, geometry = preprocess(frame, spec)
    rows, columns = np.indices(image.shape[:2]) + 0.5
    mass = image[:, :, 0].astype(np.float64)
    centroid = np.float64([(columns * mass).sum(), (rows * mass).sum()]) / mass.sum()
    assert np.abs(centroid - geometry.to_network(np.float32([x, y]))).max() < 0.1


def test_letterbox_pads_with_the_mean_colour():
    spec = InputSpec(height=64, width=64, resize="letterbox")
    image, _ = preprocess(np.full((32, 64, 3), 255, np.uint8), spec)
    assert (image[0, 0] == np.round(spec.mean)).all()
    assert (image[32, 32] == 255).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_out_is_written_and_the_frame_is_not(policy):
    spec = InputSpec(height=64, width=96, resize=policy)
    frame = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    before, out = frame.copy(), np.zeros((64, 96, 3), np.uint8)
    image, _ = preprocess(frame, spec, out)
    assert image is out
    assert (frame == before).all()
    assert (out == preprocess(frame, spec)[0]).all()


@pytest.mark.parametrize(
    ("frame", "got"),
    [
        pytest.param(np.zeros((48, 48), np.uint8), r"uint8 \(48, 48\)", id="grey"),
        pytest.param(np.zeros((48, 48, 4), np.uint8), r"uint8 \(48, 48, 4\)", id="RGBA"),
        pytest.param(np.zeros((48, 48, 3), np.uint16), r"uint16 \(48, 48, 3\)", id="16 bit"),
        pytest.param(np.zeros((48, 48, 3), np.float32), r"float32 \(48, 48, 3\)", id="float"),
        pytest.param([[0]], "list", id="a list"),
        pytest.param(np.zeros((1, 1, 3), np.uint8), "1x1", id="one pixel"),
        pytest.param(np.zeros((0, 48, 3), np.uint8), "48x0", id="empty"),
        pytest.param(np.zeros((20, 20000, 3), np.uint8), "20000x20", id="a strip"),
    ],
)
def test_unusable_frames_are_refused(frame, got):
    with pytest.raises(InputError, match=f"^camera: expected .*, got {got}; .*\\.$"):
        check_frame(frame, "camera")


def test_the_least_and_the_longest_frame_pass():
    check_frame(np.zeros((MIN_SIDE, MIN_SIDE, 3), np.uint8))
    check_frame(np.zeros((MIN_SIDE, int(MIN_SIDE * MAX_ASPECT), 3), np.uint8))
