"""The report: one page that is whole without a network."""

from __future__ import annotations

import base64
import itertools
import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge.check.charts import gauge, histogram
from mdpose_edge.check.gate import Check, check
from mdpose_edge.check.report import render, write_report
from tests.chromium import FLAGS, find_browser
from tests.unit.check.faults import edited_bundle, scale_one_layer

VOID_TAGS = {"meta", "img", "br", "link", "hr", "input"}
GOOD_BGR, BAD_BGR = (92, 115, 0), (30, 38, 179)
"""--good and --bad of the style sheet in light mode: the band at the top."""


@pytest.fixture(scope="module")
def held(bundle: Path, data: Path) -> Check:
    return check(bundle, bundle, data, threads=1)


@pytest.fixture(scope="module")
def fell(bundle: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Check:
    broken = edited_bundle(bundle, tmp_path_factory.mktemp("fault") / "a<b>&c", scale_one_layer(4.0))
    return check(broken, bundle, data, threads=1)


class Page(HTMLParser):
    """Collects what a page says and what it would load, and checks that its tags nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.loads, self.tags, self._open = "", [], set(), []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data", "poster"}]
        self.loads += re.findall(r"url\(([^)]*)\)", dict(attrs).get("style") or "")
        if tag not in VOID_TAGS:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", ["held", "fell"])
def test_the_page_loads_nothing_but_itself(name: str, request: pytest.FixtureRequest) -> None:
    html = render(request.getfixturevalue(name))
    page = Page(html)
    assert all(load.startswith("data:image/jpeg;base64,") for load in page.loads)
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "base"}
    assert "@import" not in html and "url(" not in html and 'http-equiv="refresh' not in html
    assert "default-src 'none'" in html


def test_a_verdict_that_fell_is_shown_with_its_pictures(fell: Check) -> None:
    page = Page(render(fell))
    assert "✗ Fell short" in page.text
    assert "a<b>&c" in page.text
    assert fell.verdict.sentence()[1:] in page.text
    for finding in fell.verdict.findings:
        assert finding.label in page.text
    pictures = [base64.b64decode(load.partition(",")[2]) for load in page.loads]
    assert len(pictures) == 2 * len(fell.measurement.images)
    shapes = {cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape for data in pictures}
    assert shapes == {(360, 480, 3)}


def test_each_head_tensor_is_listed_under_its_stride(fell: Check) -> None:
    text = Page(render(fell)).text
    text = text[text.index("Error by output") :]
    listed = [text.index(f"stride {stride}") for stride in (8, 16, 32)]
    for level, (start, stop) in enumerate(itertools.pairwise([*listed, len(text)])):
        assert all(f"{kind}_p{level + 3}" in text[start:stop] for kind in ("o", "mu", "gamma"))


def test_the_histograms_of_every_measure_are_shown(fell: Check) -> None:
    html = render(fell)
    assert len(fell.measurement.histograms) == 2
    for found in fell.measurement.histograms:
        assert found.caption in html and f"histogram of {found.unit}" in html


def test_images_come_worst_first(fell: Check) -> None:
    shown = [float(value) for value in re.findall(r"disagreement (\d\.\d+)<", render(fell))]
    assert shown == sorted(shown, reverse=True)
    assert shown[0] > 0


def test_equal_artifacts_differ_in_no_image(held: Check) -> None:
    page = Page(render(held))
    assert "✓ Held" in page.text
    assert "None differs." in page.text
    assert page.loads == []


def test_without_annotations_the_page_says_so(bundle: Path, data: Path) -> None:
    page = Page(render(check(bundle, bundle, data / "val2017", threads=1)))
    assert "accuracy was not measured" in page.text
    assert "AP50" not in page.text
    assert "Figures of only 3 images scatter" in page.text


def test_the_page_is_written_whole(fell: Check, tmp_path: Path) -> None:
    path = write_report(fell, tmp_path / "report")
    assert path == tmp_path / "report" / "index.html"
    assert path.read_text(encoding="utf-8") == render(fell)
    assert [file.name for file in path.parent.iterdir()] == ["index.html"]


def test_a_histogram_counts_everything() -> None:
    svg = histogram([("candidate", np.array([-5.0, 0.1, 0.1, 9.0]))], (0.0, 1.0), "score")
    (outline,) = re.findall(r'class="series candidate" d="([^"]+)"', svg)
    base = float(outline.split()[1].partition("H")[0])
    tops = [base - float(y) for y in re.findall(r"V([\d.]+)(?!Z)", outline.removesuffix("Z"))][:-1]
    full = max(tops)
    assert sum(top / full * 2 for top in tops) == pytest.approx(4, abs=0.05)
    assert Page(svg).tags >= {"svg", "path", "text"}


@pytest.mark.parametrize(
    ("used", "state", "width"), [(0.0, "within", 0.0), (1.0, "within", 66.7), (9.0, "over", 100.0)]
)
def test_a_gauge_shows_the_limit_at_two_thirds(used: float, state: str, width: float) -> None:
    assert f'class="{state}" width="{width:.1f}"' in gauge(used)


def screenshot(page: Path, folder: Path) -> tuple[NDArray[np.uint8], list[str]]:
    """Show a page in headless Chromium without a network; give its picture, and what it asked the network for."""
    picture, log = folder / "page.png", folder / "net.json"
    command = [
        find_browser(),
        *FLAGS,
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--window-size=1100,4000",
        f"--log-net-log={log}",
        f"--screenshot={picture}",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert picture.is_file(), done.stderr
    image = cv2.imread(str(picture))
    requests = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    # The browser's own requests, for updates and the time, have no origin.
    asked = [r["url"] for r in requests if "url" in r and r.get("initiator", "not an origin") != "not an origin"]
    return np.asarray(image, np.uint8), asked


def test_a_page_that_loads_something_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text('<!doctype html><img src="http://example.test/picture.png">')
    _, asked = screenshot(tmp_path / "page.html", tmp_path)
    assert set(asked) == {"http://example.test/picture.png"}


@pytest.mark.parametrize(("name", "band_bgr"), [("held", GOOD_BGR), ("fell", BAD_BGR)])
def test_the_page_opens_in_chromium_without_a_network(
    name: str, band_bgr: tuple[int, int, int], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    found: Check = request.getfixturevalue(name)
    path = write_report(found, tmp_path / "report")
    image, asked = screenshot(path, tmp_path)
    assert (image[2, 550] == band_bgr).all(), image[2, 550]
    assert asked == []
    # Pictures have many colours, and text on paper few.
    colours = len(np.unique(image.reshape(-1, 3) // 16, axis=0))
    assert (colours > 300) is (name == "fell")
