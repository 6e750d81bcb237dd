"""curves.png: how a run went, drawn with OpenCV, so that no plotting library is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

PANEL_WH = (560, 260)
COLUMNS = 2
LEFT, RIGHT, TOP, BOTTOM = 70, 16, 34, 28
GROUND, GRID, TEXT = (255, 255, 255), (225, 225, 225), (60, 60, 60)
LINES = ((178, 114, 0), (0, 94, 213))
"""Blue and vermilion of Okabe & Ito's palette, BGR."""
SMOOTH_SHARE = 50
"""A curve is smoothed over 1/50 of its points."""
_FONT = cv2.FONT_HERSHEY_SIMPLEX

Rows = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Panel:
    """One diagram."""

    title: str
    columns: tuple[str, ...]
    """One curve each, two at most."""
    log: bool = False
    """A logarithmic axis."""
    along: str = "iteration"
    """The column of the horizontal axis."""
    legend: tuple[str, ...] = ()
    """What each of two curves is called, in their order; none where the title says it."""


_PANELS = (
    Panel("loss", ("loss",)),
    Panel("learning rate", ("lr",), log=True),
    Panel("gradient norm before clipping", ("grad_norm",), log=True),
    Panel("images per second", ("images_per_s",)),
    Panel("share of time", ("data_wait", "gpu_use"), legend=("data wait", "GPU use")),
)


def draw_curves(
    log: Rows, evaluations: Rows, figures: Mapping[str, tuple[str, ...]] | None = None
) -> NDArray[np.uint8]:
    """Draw a run.

    Args:
        log: lines of log.csv.
        evaluations: lines of eval.csv; without any, their panel is left out.
        figures: columns of the log that get a panel of their own, by its title.

    Returns:
        (H, W, 3) uint8 BGR: a panel for each quantity over the iterations. A thin line is the log, a thick one its
        running mean; of two curves the first is blue, the second vermilion, as the legend says.
    """
    own = (Panel(title, columns, legend=columns) for title, columns in (figures or {}).items())
    drawn = [_draw_panel(panel, log) for panel in (*_PANELS, *own)]
    if evaluations:
        names = tuple(evaluations[0])[1:3]  # a protocol names its first figures first
        drawn.insert(1, _draw_panel(Panel("accuracy on the validation split", names, legend=names), evaluations))
    return _tiled(drawn)


def draw_panels(panels: Sequence[Panel], rows: Rows) -> NDArray[np.uint8]:
    """Draw diagrams of one table: (H, W, 3) uint8 BGR."""
    return _tiled([_draw_panel(panel, rows) for panel in panels])


def _tiled(panels: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    if len(panels) % COLUMNS:
        panels.append(np.full_like(panels[0], 255))
    rows = [np.hstack(panels[i : i + COLUMNS]) for i in range(0, len(panels), COLUMNS)]
    return np.vstack(rows)


def _draw_panel(panel: Panel, rows: Rows) -> NDArray[np.uint8]:
    canvas = np.full((PANEL_WH[1], PANEL_WH[0], 3), GROUND, np.uint8)
    cv2.putText(canvas, panel.title, (LEFT, 22), _FONT, 0.5, TEXT, 1, cv2.LINE_AA)
    curves = [_points(rows, panel, column) for column in panel.columns]
    drawn = [curve for curve in curves if len(curve)]
    if not drawn:
        cv2.putText(canvas, "nothing recorded", (LEFT + 8, PANEL_WH[1] // 2), _FONT, 0.45, TEXT, 1, cv2.LINE_AA)
        return canvas
    low, high = _bounds(np.concatenate(drawn))
    _draw_axes(canvas, low, high, panel.log)
    named = zip(panel.legend, LINES, curves, strict=False)
    _draw_legend(canvas, [(name, color) for name, color, curve in named if len(curve)])
    for curve, color in zip(curves, LINES, strict=False):
        if len(curve):
            pale = tuple((2 * channel + 3 * 255) // 5 for channel in color)
            _draw_line(canvas, curve, low, high, pale, 1)
            _draw_line(canvas, _smoothed(curve), low, high, color, 2)
    return canvas


def _points(rows: Rows, panel: Panel, column: str) -> NDArray[np.float64]:
    """Return (n, 2): places along the axis and values, without gaps, and without what a logarithm cannot take."""
    pairs = [(float(row[panel.along]), float(row[column])) for row in rows if row.get(column)]
    points = np.array(pairs, np.float64).reshape(-1, 2)
    points = points[np.isfinite(points[:, 1]) & ((points[:, 1] > 0) | (not panel.log))]
    if panel.log:
        points[:, 1] = np.log10(points[:, 1])
    return points


def _bounds(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the corners of what is drawn; spikes beyond the 99.5th percentile are cut off."""
    low, high = points.min(axis=0), points.max(axis=0)
    low[1], high[1] = np.percentile(points[:, 1], [0.5, 99.5])
    margin = 0.06 * (high[1] - low[1]) or 0.5 * (abs(high[1]) or 1.0)
    low[1], high[1] = low[1] - margin, high[1] + margin
    high[0] = max(high[0], low[0] + 1)
    return low, high


def _smoothed(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    width = max(1, len(curve) // SMOOTH_SHARE)
    kernel = np.ones(width) / width
    return np.column_stack([np.convolve(curve[:, column], kernel, "valid") for column in (0, 1)])


def _draw_legend(canvas: NDArray[np.uint8], entries: Sequence[tuple[str, tuple[int, int, int]]]) -> None:
    """Name curves in the corner over the diagram, each behind a stroke of its colour."""
    right = PANEL_WH[0] - RIGHT
    for name, color in reversed(entries):
        (width, _), _ = cv2.getTextSize(name, _FONT, 0.4, 1)
        cv2.putText(canvas, name, (right - width, 22), _FONT, 0.4, TEXT, 1, cv2.LINE_AA)
        cv2.line(canvas, (right - width - 26, 18), (right - width - 6, 18), color, 2, cv2.LINE_AA)
        right -= width + 42


def _draw_axes(canvas: NDArray[np.uint8], low: NDArray[np.float64], high: NDArray[np.float64], log: bool) -> None:
    for part in np.linspace(0, 1, 5):
        value = low[1] + part * (high[1] - low[1])
        y = round(PANEL_WH[1] - BOTTOM - part * (PANEL_WH[1] - BOTTOM - TOP))
        cv2.line(canvas, (LEFT, y), (PANEL_WH[0] - RIGHT, y), GRID, 1)
        label = f"{10**value if log else value:.3g}"
        (width, _), _ = cv2.getTextSize(label, _FONT, 0.4, 1)
        cv2.putText(canvas, label, (LEFT - 8 - width, y + 4), _FONT, 0.4, TEXT, 1, cv2.LINE_AA)
    for part in (0.0, 0.5, 1.0) if high[0] - low[0] > 1 else (0.0, 1.0):  # halfway between neighbours is no iteration
        label = f"{low[0] + part * (high[0] - low[0]):.0f}"
        (width, _), _ = cv2.getTextSize(label, _FONT, 0.4, 1)
        x = round(LEFT + part * (PANEL_WH[0] - RIGHT - LEFT) - part * width)
        cv2.putText(canvas, label, (x, PANEL_WH[1] - 8), _FONT, 0.4, TEXT, 1, cv2.LINE_AA)


def _draw_line(
    canvas: NDArray[np.uint8],
    curve: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    color: Sequence[int],
    thickness: int,
) -> None:
    part = np.clip((curve - low) / (high - low), 0, 1)
    corner = np.array([LEFT, PANEL_WH[1] - BOTTOM])
    pixels = corner + part * [PANEL_WH[0] - RIGHT - LEFT, TOP + BOTTOM - PANEL_WH[1]]
    cv2.polylines(canvas, [pixels.round().astype(np.int32)], False, list(color), thickness, cv2.LINE_AA)
    if len(curve) == 1:
        cv2.circle(canvas, [int(v) for v in pixels[0].round()], 3, list(color), cv2.FILLED, cv2.LINE_AA)
