"""The report of a check: one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge import __version__
from mdpose_edge.check.charts import bar, gauge, histogram
from mdpose_edge.check.gate import Check, SideInfo
from mdpose_edge.check.layers import LayerErrors, layer_name
from mdpose_edge.check.measure import ImagePair
from mdpose_edge.check.measures import outputs
from mdpose_edge.check.measures.outputs import TensorError
from mdpose_edge.common.files import name_text, write_whole
from mdpose_edge.common.outputs import MADE_BY
from mdpose_edge.draw import draw_poses
from mdpose_edge.families.measure import Finding, Histogram
from mdpose_edge.poses import Poses

REPORT_FILE = "index.html"
WORST_IMAGES = 6
"""Shown side by side."""
PICTURE_WIDTH = 480
"""px; a picture of this size is about 40 kB."""
PICTURE_QUALITY = 85
WHOLE_IMAGE = math.inf
"""In place of the stride of a head tensor that has none."""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""For the browser: whatever the page says, load nothing."""


def write_report(check: Check, directory: str | Path, more: str = "") -> Path:
    """Write the report of a check, whole or not at all.

    Args:
        check: what was found.
        directory: made where missing; the page is its index.html.
        more: HTML of the caller's own, shown below the figures.

    Returns:
        The page.

    Raises:
        InputError: an image of the check can no longer be read.
    """
    path = Path(directory) / REPORT_FILE
    write_whole(path, name_text(render(check, more)).encode())
    return path


def render(check: Check, more: str = "") -> str:
    """Return the page as HTML: see `write_report`."""
    style = (files("mdpose_edge") / "assets" / "report.css").read_text(encoding="utf-8")
    title = f"{'held' if check.verdict.held else 'fell short'}: {Path(check.candidate.name).name}"
    body = "\n".join(_sections(check, more))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="generator" content="{MADE_BY}">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n"
        "</html>\n"
    )


def _sections(check: Check, more: str) -> Iterator[str]:
    yield _header(check)
    yield _facts(check)
    yield _figures(check)
    yield more
    yield _charts(check)
    yield _worst(check)
    yield _outputs(check)
    if check.layers is not None:
        yield _layers(check.layers)
    meaning = "What each figure means, and where its limit comes from, is in docs/gate.md."
    yield f"<footer>Made by mdpose-edge {__version__}. {meaning}</footer>"


def _header(check: Check) -> str:
    style, state = ("held", "✓ Held") if check.verdict.held else ("fell", "✗ Fell short")
    return (
        f'<header class="{style}"><div class="verdict">{state}</div>'
        f"<h1>{escape(Path(check.candidate.name).name)} against {escape(Path(check.reference.name).name)}</h1>"
        f"<p>{escape(_sentence_case(check.verdict.sentence()))}.</p></header>"
    )


def _facts(check: Check) -> str:
    labels = check.unmeasured and f", {check.unmeasured}"
    caution = check.verdict.caution and f" <strong>{escape(_sentence_case(check.verdict.caution))}.</strong>"
    return (
        '<div class="scroll"><table class="facts"><tr><th></th><th class="state">artifact</th>'
        '<th class="state">engine</th><th class="state">graph</th><th class="state">input</th></tr>'
        f"{_side('candidate', check.candidate)}{_side('reference', check.reference)}</table></div>"
        f'<p class="soft">{len(check.images)} images of {escape(check.images.where)}{labels}.{caution}</p>'
    )


def _side(role: str, side: SideInfo) -> str:
    cells = (side.name, side.engine, f"{side.target} {side.precision}", side.input)
    columns = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr><td><span class="key {role}"></span>{role}</td>{columns}</tr>'


def _figures(check: Check) -> str:
    rows = []
    for group, findings in groupby(check.verdict.findings, key=lambda finding: finding.group):
        rows.append(f'<tr class="group"><th colspan="7">{escape(group)}</th></tr>')
        rows += map(_figure_row, findings)
    head = "".join(f"<th>{name}</th>" for name in ("figure", "candidate", "reference", "change", "limit", "limit used"))
    remarks = [measured.remark for measured in check.measurement.measured if measured.remark]
    below = "".join(f"<p><small>{escape(remark)}</small></p>" for remark in remarks)
    return (
        '<h2>Figures</h2><div class="scroll"><table>'
        f'<tr>{head}<th class="state">verdict</th></tr>{"".join(rows)}</table></div>{below}'
    )


def _figure_row(finding: Finding) -> str:
    unit = "" if finding.unit == "settings" else finding.unit
    style, sign = {True: ("held", "✓ "), False: ("fell", "✗ "), None: ("note", "")}[finding.held]
    judged = finding.held is not None and finding.worse is not None
    used = gauge(finding.worse / finding.limit) if judged and finding.worse and finding.limit else ""
    return (
        f'<tr class="{style}"><td>{escape(finding.label)} <small>{escape(unit)}</small></td>'
        f"<td>{_number(finding.candidate)}</td><td>{_number(finding.reference)}</td>"
        f"<td>{_number(finding.change, signed=True)}</td><td>{finding.limit:g}</td><td>{used}</td>"
        f'<td class="state {style}">{sign}{escape(finding.state)}</td></tr>'
    )


def _charts(check: Check) -> str:
    charts = "".join(map(_chart, check.measurement.histograms))
    if not charts:
        return ""
    legend = '<span class="key candidate"></span><span>candidate</span><span class="key reference"></span>reference'
    return f'<h2>Distributions</h2><p class="legend soft">{legend}</p><div class="charts">{charts}</div>'


def _chart(found: Histogram) -> str:
    series = [("reference", found.reference), ("candidate", found.candidate)]
    return _figure(found.caption, histogram(series, found.bounds, found.unit))


def _figure(caption: str, content: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{content}</figure>"


def _outputs(check: Check) -> str:
    """List the head tensors, those of one stride together."""
    title = "<h2>Error by output</h2>"
    if not check.measurement.outputs:
        (finding,) = (finding for finding in check.verdict.findings if finding.key == outputs.KEY)
        return f"{title}<p>Not known: {escape(finding.note)}.</p>"
    strides = {head.name: head.stride or WHOLE_IMAGE for head in check.spec.heads}
    by_stride = sorted(check.measurement.outputs, key=lambda error: strides[error.name])
    rows = []
    for stride, errors in groupby(by_stride, key=lambda error: strides[error.name]):
        group = "the whole image" if stride == WHOLE_IMAGE else f"stride {stride}"
        rows.append(f'<tr class="group"><th colspan="5">{group}</th></tr>')
        rows += map(_output_row, errors)
    head = "".join(f"<th>{name}</th>" for name in ("head tensor", "error", "rms", "spread", "largest"))
    return (
        f"{title}<p>Root mean square error of each head tensor, as a part of the spread of the "
        "reference's values.</p>"
        f'<div class="scroll"><table class="outputs"><tr>{head}</tr>{"".join(rows)}</table></div>'
    )


def _output_row(output: TensorError) -> str:
    strength = min(60.0, 100.0 * output.relative)
    style = f"background: color-mix(in srgb, var(--bad) {strength:.0f}%, transparent)"
    numbers = "".join(f"<td>{value:.3g}</td>" for value in (output.rms, output.spread, output.largest))
    return f'<tr><td>{escape(output.name)}</td><td style="{style}">{output.relative:.2%}</td>{numbers}</tr>'


def _layers(layers: LayerErrors) -> str:
    """List the convolutions in the order of the graph, each with a bar as long as its error."""
    title = "<h2>Error by layer</h2>"
    if not layers.errors:
        return f"{title}<p>Not known: {escape(layers.note.rstrip('.'))}.</p>"
    relative = [error.relative for error in layers.errors]
    longest = max((value for value in relative if np.isfinite(value)), default=0.0) or 1.0
    rows = "".join(map(_layer_row, layers.errors, (min(value / longest, 1.0) for value in relative)))
    return (
        f"{title}<p>Root mean square error of each convolution's output, before the activation, as a part of the "
        f"spread of the reference's values, over the first {layers.images} images, in the order of the graph. What the "
        "layers before passed on is in it: look for where it leaps.</p>"
        '<div class="scroll"><table class="layers"><tr><th>convolution</th><th>error</th><th></th></tr>'
        f"{rows}</table></div>"
    )


def _layer_row(error: TensorError, part: float) -> str:
    title = f"rms {error.rms:.3g}, largest {error.largest:.3g}, spread {error.spread:.3g}"
    return (
        f'<tr title="{title}"><td>{escape(layer_name(error.name))}</td><td>{error.relative:.2%}</td>'
        f"<td>{bar(part)}</td></tr>"
    )


def _worst(check: Check) -> str:
    shown = check.measurement.by_difference()[:WORST_IMAGES]
    if not shown:
        return "<h2>Images that differ most</h2><p>None differs.</p>"
    pairs = "".join(_image_pair(check, pair) for pair in shown)
    return (
        "<h2>Images that differ most</h2><p>Poses above the threshold of use. Disagreement is 0 where both sides find "
        "the same people in the same places and 1 where they have nobody in common.</p>"
        f'<div class="pairs">{pairs}</div>'
    )


def _image_pair(check: Check, pair: ImagePair) -> str:
    image = check.images[pair.index]
    sides = (("candidate", pair.candidate), ("reference", pair.reference))
    pictures = "".join(
        f'<div><small><span class="key {role}"></span>{role}, {_poses(len(poses))}</small>'
        f'<img alt="poses of the {role}" src="{_picture(image.pixels, poses, check)}"></div>'
        for role, poses in sides
    )
    caption = f"{Path(image.name).name}, disagreement {pair.disagreement:.2f}"
    return _figure(caption, f'<div class="pair">{pictures}</div>')


def _picture(frame: NDArray[np.uint8], poses: Poses, check: Check) -> str:
    """Paint poses on a picture of the report's size and return it as a data URL."""
    scale = PICTURE_WIDTH / frame.shape[1]
    size = (PICTURE_WIDTH, max(1, round(frame.shape[0] * scale)))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    spec = check.spec
    painted = draw_poses(np.asarray(small, np.uint8), poses.scaled(scale), spec.keypoints, classes=spec.classes)
    _, data = cv2.imencode(".jpg", painted, [cv2.IMWRITE_JPEG_QUALITY, PICTURE_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def _poses(count: int) -> str:
    return f"{count} pose{'' if count == 1 else 's'}"


def _number(value: float | None, signed: bool = False) -> str:
    if value is None:
        return "—"
    if not value:
        return "0"
    digits = 1 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3
    return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]
