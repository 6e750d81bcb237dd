"""The scene in three dimensions, in a browser: there for models that know metres, and turned by the mouse."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mdpose_edge.view.hub import Hub, InferredFrame
from mdpose_edge.view.server import ViewServer
from tests.chromium import Chromium
from tests.unit.view.conftest import shown

COUNTED = "Number.isFinite(parseInt(document.getElementById('people').textContent))"
WATCHED = f"document.getElementById('people') && {COUNTED}"
INKED = (
    "(() => { const c = document.getElementById('scene'); if (!c.width || !c.height) return 0;"
    " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;"
    " for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n; })()"
)
HIDDEN = "document.getElementById('scene-section').hidden"
DRAG = (
    "(() => { const c = document.getElementById('scene');"
    " c.dispatchEvent(new PointerEvent('pointermove', { buttons: 1, movementX: 40, movementY: -20, bubbles: true }));"
    " return [c.dataset.yaw, c.dataset.pitch]; })()"
)


def solid(index: int, *, metric: bool = False) -> InferredFrame:
    frame = shown(index)
    rng = np.random.default_rng(0)
    joints = rng.normal(0.0, 0.3, (2, 17, 3)) + np.array([[[-0.5, 0, 3.0]], [[0.5, 0, 5.0]]])
    poses = dataclasses.replace(frame.poses, keypoints_3d=joints.astype(np.float32), metric=metric)
    return dataclasses.replace(frame, poses=poses)


@pytest.fixture
def browser(tmp_path_factory: pytest.TempPathFactory) -> object:
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


def test_people_in_metres_are_seen_from_elsewhere(browser: Chromium, hub: Hub, server: ViewServer) -> None:
    browser.open(server.url)
    hub.show(shown(0))
    browser.wait_for(WATCHED)
    assert browser.run(HIDDEN) is True
    hub.show(solid(1))
    assert browser.wait_for(f"!{HIDDEN}")
    assert browser.wait_for(f"{INKED} > 200")
    assert "not to scale" in browser.run("document.getElementById('scale').textContent")
    assert browser.run(DRAG) == ["55", "15"]
    hub.show(solid(2, metric=True))
    browser.wait_for("document.getElementById('scale').textContent === ''")
    assert browser.complaints() == []
