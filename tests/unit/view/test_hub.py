"""Inference never waits; viewers get the newest frame, whole."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import pytest

from mdpose_edge.spec import COCO_KEYPOINTS
from mdpose_edge.view.hub import Hub
from tests.unit.view.conftest import KEYPOINT_XY, Playing, about, shown


def parts(message: bytes) -> tuple[dict[str, object], bytes]:
    json_length, jpeg_length = struct.unpack("!II", message[:8])
    assert len(message) == 8 + json_length + jpeg_length
    return json.loads(message[8 : 8 + json_length]), message[8 + json_length :]


def next_index(messages: Iterator[bytes]) -> int:
    return int(str(parts(next(messages))[0]["index"]))


def test_a_viewer_is_told_what_this_is_then_shown_frames(hub: Hub) -> None:
    messages = hub.watch()
    described = parts(next(messages))[0]["about"]
    assert described == about()
    assert [limb[:2] for limb in described["limbs"]] == [list(pair) for pair in COCO_KEYPOINTS.skeleton]
    assert described["dots"][5] == "rgb(230,159,0)"  # the left shoulder is orange
    with Playing(hub):
        facts, jpeg = parts(next(messages))
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (240, 320, 3)
    assert (facts["width"], facts["height"], facts["stages_ms"]) == (320, 240, [1.0, 20.0, 0.5])
    first = facts["poses"][0]
    assert (first["score"], first["id"]) == (0.9, 7)
    assert first["box_xyxy"] is first["class"] is first["keypoints_3d"] is first["metric"] is None
    np.testing.assert_allclose(first["keypoints_xy"], KEYPOINT_XY.ravel())
    messages.close()


def test_coordinates_stay_those_of_the_frame_when_the_picture_is_sent_smaller() -> None:
    hub = Hub(about(), max_side=160)
    messages = hub.watch()
    next(messages)
    with Playing(hub):
        facts, jpeg = parts(next(messages))
    hub.end("over")
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (120, 160, 3)
    assert (facts["width"], facts["poses"][0]["keypoints_xy"][0]) == (320, 100.0)


def test_a_slow_viewer_misses_frames_and_sees_new_ones(hub: Hub) -> None:
    messages = hub.watch()
    next(messages)
    with Playing(hub) as playing:
        first = next_index(messages)
        while playing.index < first + 20:
            pass
        next_index(messages)  # the message that was current when it last looked is at most one behind
        assert next_index(messages) > first + 10


def test_without_viewers_nothing_is_encoded(hub: Hub) -> None:
    encoded = threading.Event()
    encode = hub._encode
    hub._encode = lambda *arguments: (encoded.set(), encode(*arguments))[1]  # type: ignore[method-assign]
    with Playing(hub) as playing:
        while playing.index < 10:
            pass
    assert not encoded.is_set()
    messages = hub.watch()
    next(messages)
    next(messages)
    assert encoded.is_set()


def test_the_end_reaches_everyone_with_its_reason(hub: Hub) -> None:
    messages = hub.watch()
    next(messages)
    hub.end("the camera is gone")
    hub.end("a second word")
    assert [parts(message)[0] for message in messages] == [{"ended": "the camera is gone"}]
    assert [parts(message)[0] for message in hub.watch()][-1] == {"ended": "the camera is gone"}
    assert hub.viewers == 0


def test_a_pose_that_is_not_finite_is_left_out(hub: Hub) -> None:
    frame = shown(0)
    broken = frame.poses.keypoints_xy.copy()
    broken[0, 3, 0] = np.nan
    messages = hub.watch()
    next(messages)
    hub.show(replace(frame, poses=replace(frame.poses, keypoints_xy=broken)))
    facts, _ = parts(next(messages))
    assert [pose["id"] for pose in facts["poses"]] == [8]


@pytest.mark.parametrize("metric", [True, False])
def test_points_in_space_say_whether_their_scale_is_true(hub: Hub, metric: bool) -> None:
    frame = shown(0)
    points = np.full((2, 17, 3), (0.5, -0.25, 3.0), np.float32)
    messages = hub.watch()
    next(messages)
    hub.show(replace(frame, poses=replace(frame.poses, keypoints_3d=points, metric=metric)))
    facts, _ = parts(next(messages))
    assert [(pose["keypoints_3d"][:3], pose["metric"]) for pose in facts["poses"]] == [([0.5, -0.25, 3.0], metric)] * 2


def test_frames_per_second_are_those_of_inference(hub: Hub) -> None:
    messages = hub.watch()
    next(messages)
    with Playing(hub, fps=40) as playing:
        while playing.index < 30:
            next(messages)
        rate = parts(next(messages))[0]["fps"]
    assert 10 < float(str(rate)) <= 41
