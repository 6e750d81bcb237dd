"""Charts of the report, as inline SVG: no script, no font, nothing to fetch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 520, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 8, 10, 34


def histogram(series: Sequence[tuple[str, NDArray[np.floating]]], bounds: tuple[float, float], axis: str) -> str:
    """Draw samples as overlaid histograms.

    Args:
        series: (CSS class, values) of each; values beyond the bounds are counted in the outermost bins.
        bounds: of the horizontal axis.
        axis: its title.
    """
    edges = np.linspace(*bounds, 26)
    counts = [np.histogram(np.clip(values, *bounds), edges)[0] for _, values in series]
    tallest = max(1, *(int(count.max()) for count in counts))
    bars = [
        f'<path class="series {name}" d="{_outline(count / tallest)}"/>'
        for (name, _), count in zip(series, counts, strict=True)
    ]
    ticks = "".join(_tick(position, bounds) for position in np.linspace(*bounds, 6))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="histogram of {axis}">'
        f'<line class="axis" x1="{_LEFT}" y1="{HEIGHT - _BOTTOM}" x2="{WIDTH - _RIGHT}" y2="{HEIGHT - _BOTTOM}"/>'
        f'<text x="{_LEFT - 6}" y="{_TOP + 8}" text-anchor="end">{tallest}</text>'
        f'<text x="{_LEFT - 6}" y="{HEIGHT - _BOTTOM}" text-anchor="end">0</text>'
        f'{"".join(bars)}{ticks}<text class="title" x="{(_LEFT + WIDTH) / 2}" y="{HEIGHT - 3}" '
        f'text-anchor="middle">{axis}</text></svg>'
    )


def gauge(used: float) -> str:
    """Draw how much of a limit is used up: 1 is the mark at two thirds, and what is beyond 1.5 ends there."""
    part = min(max(used, 0.0), 1.5) / 1.5 * 100.0
    state = "over" if used > 1.0 else "within"
    return (
        f'<svg class="gauge" viewBox="0 0 100 10" role="img" aria-label="{used:.0%} of the limit">'
        f'<rect class="track" width="100" height="6" y="2" rx="3"/>'
        f'<rect class="{state}" width="{part:.1f}" height="6" y="2" rx="3"/>'
        f'<line class="mark" x1="66.7" x2="66.7" y1="0" y2="10"/></svg>'
    )


def bar(part: float) -> str:
    """Draw a bar that is a part of the longest, in [0, 1]."""
    return (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{100.0 * part:.1f}" height="8" y="1"/></svg>'
    )


def _outline(heights: NDArray[np.floating]) -> str:
    """Trace the top of a histogram, heights in [0, 1], as a closed SVG path."""
    base, reach = HEIGHT - _BOTTOM, HEIGHT - _BOTTOM - _TOP
    xs = np.linspace(_LEFT, WIDTH - _RIGHT, len(heights) + 1)
    steps = [f"H{x:.1f}V{base - reach * height:.1f}" for x, height in zip(xs[:-1], heights, strict=True)]
    return f"M{_LEFT} {base}{''.join(steps)}H{xs[-1]:.1f}V{base}Z"


def _tick(value: float, bounds: tuple[float, float]) -> str:
    x = _LEFT + (value - bounds[0]) / (bounds[1] - bounds[0]) * (WIDTH - _RIGHT - _LEFT)
    return f'<text x="{x:.1f}" y="{HEIGHT - _BOTTOM + 13}" text-anchor="middle">{value:.3g}</text>'
