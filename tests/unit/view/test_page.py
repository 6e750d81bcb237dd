"""The page in headless Chromium: frames arrive, switches switch, the token is asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from mdpose_edge.view.hub import Hub
from mdpose_edge.view.server import ViewServer
from tests.chromium import Chromium
from tests.unit.view.conftest import KEYPOINT_XY, Playing

FRAME_NUMBER = "Number((document.getElementById('frame').textContent.match(/frame (\\d+)/) || [0, -1])[1])"
NOSE_XY = tuple(int(value) for value in KEYPOINT_XY[0])
SHOULDER_XY = tuple(int(value) for value in KEYPOINT_XY[5])
GREY = 90
SLIDER_START = "0.25"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


def pixel(browser: Chromium, x: int, y: int) -> list[int]:
    """RGB on the canvas, in pixels of the frame."""
    code = f"[...document.getElementById('picture').getContext('2d').getImageData({x}, {y}, 1, 1).data].slice(0, 3)"
    value: list[int] = browser.run(code)
    return value


def is_grey(rgb: list[int]) -> bool:
    return max(abs(value - GREY) for value in rgb) <= 3


def click(browser: Chromium, element: str) -> None:
    browser.run(f"document.getElementById('{element}').click()")


def watch(browser: Chromium, server: ViewServer) -> None:
    """Open the page and wait for a frame."""
    browser.events.clear()
    browser.open(server.url)
    browser.wait_for(f"document.getElementById('frame') && {FRAME_NUMBER} >= 0")
    browser.wait_for("Number.isFinite(parseInt(document.getElementById('people').textContent))")


def test_frames_arrive_and_nothing_else_is_loaded(browser: Chromium, hub: Hub, server: ViewServer) -> None:
    with Playing(hub, fps=20):
        watch(browser, server)
        first = browser.run(FRAME_NUMBER)
        assert browser.wait_for(f"{FRAME_NUMBER} > {first} + 5")
        assert browser.run("document.getElementById('status').textContent") == "live"
        assert browser.run("(({ width, height }) => [width, height])(document.getElementById('picture'))") == [320, 240]
        assert is_grey(pixel(browser, 300, 220))
        assert browser.run("document.getElementById('stage-1').textContent") == "20.0"
        assert browser.run("document.getElementById('source').textContent") == "test"
        assert float(browser.run("document.getElementById('fps').textContent")) > 1
    assert set(browser.requested()) - {"data:,"} == {server.url, f"{server.url}stream"}
    assert browser.complaints() == []


def test_each_switch_shows_and_hides_its_own(browser: Chromium, hub: Hub, server: ViewServer) -> None:
    with Playing(hub, fps=20):
        watch(browser, server)
        assert browser.run("document.getElementById('ids').checked")  # since there are some
        click(browser, "ids")
        click(browser, "scores")
        assert not is_grey(pixel(browser, *SHOULDER_XY))
        click(browser, "skeleton")
        assert is_grey(pixel(browser, *SHOULDER_XY))
        click(browser, "sigma")
        assert not is_grey(pixel(browser, SHOULDER_XY[0] + 4, SHOULDER_XY[1]))
        click(browser, "sigma")
        above = (NOSE_XY[0] + 56, NOSE_XY[1] - 12)  # the label is over the middle of the person
        click(browser, "ids")
        assert not is_grey(pixel(browser, *above))
        click(browser, "ids")
        assert is_grey(pixel(browser, *above))
        click(browser, "pixels")
        assert pixel(browser, 300, 220) == [0, 0, 0]


def test_the_threshold_hides_weak_poses(browser: Chromium, hub: Hub, server: ViewServer) -> None:
    with Playing(hub, fps=20):
        watch(browser, server)
        assert browser.run("document.getElementById('people').textContent") == "2"
        assert browser.run("document.getElementById('threshold').value") == SLIDER_START
        for threshold, people in (("0.5", "1"), ("0.95", "0"), ("0.1", "2")):
            code = f"threshold.value = '{threshold}'; threshold.dispatchEvent(new Event('input'))"
            browser.run(f"(() => {{ const threshold = document.getElementById('threshold'); {code} }})()")
            assert browser.run("document.getElementById('people').textContent") == people
        assert browser.run("document.getElementById('threshold').min") == "0.1"


def test_a_snapshot_is_the_frame_with_what_is_drawn(browser: Chromium, hub: Hub, server: ViewServer) -> None:
    folder = browser.keep_downloads()
    with Playing(hub, fps=20):
        watch(browser, server)
        click(browser, "snapshot")
        deadline = time.monotonic() + 30
        while not (files := list(folder.glob("*.png"))):
            assert time.monotonic() < deadline, "no file was saved"
            time.sleep(0.05)
    image = cv2.imread(str(files[0]))
    assert image.shape == (240, 320, 3)
    assert abs(int(image[220, 300].max()) - GREY) <= 3
    assert np.ptp(image[SHOULDER_XY[1], SHOULDER_XY[0]].astype(int)) > 50  # orange


def test_a_pause_holds_the_picture(browser: Chromium, hub: Hub, server: ViewServer) -> None:
    with Playing(hub, fps=20):
        watch(browser, server)
        click(browser, "pause")
        held = browser.run(FRAME_NUMBER)
        time.sleep(0.5)
        assert browser.run(FRAME_NUMBER) == held
        click(browser, "pause")
        browser.wait_for(f"{FRAME_NUMBER} > {held}")


def test_the_end_is_said(browser: Chromium, hub: Hub, server: ViewServer) -> None:
    with Playing(hub, fps=20):
        watch(browser, server)
    hub.end("the camera is gone")
    browser.wait_for("document.getElementById('status').textContent === 'the camera is gone'")


def test_the_token_is_asked_for_and_leaves_the_address(browser: Chromium, hub: Hub) -> None:
    with ViewServer(hub, port=0, token="correct-horse-battery") as server, Playing(hub, fps=20):
        browser.open(server.url)
        browser.wait_for("document.body && document.body.innerText.includes('?token=')")
        assert browser.run("document.getElementById('picture')") is None
        browser.open(f"{server.url}?token=correct-horse-battery")
        browser.wait_for(f"document.getElementById('frame') && {FRAME_NUMBER} >= 0")
        assert browser.run("location.href") == server.url
        hub.end("the test is over")
