"""Things that stand around and in the way: chairs, tables, crates, poles, bushes."""

from __future__ import annotations

import numpy as np

from mdpose_edge.synth.body import Figure
from mdpose_edge.synth.solids import NOBODY, Array, Colour, Material, Solids, rot_x, rot_y

UPRIGHT = np.eye(3)


def add_seat(rng: np.random.Generator, solids: Solids, figure: Figure, shift: Array) -> None:
    """Put a stool, a box or a chair under someone who sits."""
    h = figure.build.height
    top = float(figure.pelvis[1] + shift[1]) - 0.085 * h
    if top < 0.1:
        return
    heading = figure.pelvis_frame[:, 2] * (1, 0, 1)
    frame = rot_y(float(np.degrees(np.arctan2(heading[0], heading[2]))))
    place = (figure.pelvis + shift) * (1, 0, 1) + frame @ np.array((0.0, 0.0, 0.04 * h))
    material = _surface(rng)
    half = 0.13 * h
    if rng.random() < 0.4:
        solids.box(_above(place, 0.5 * top), frame, (half, 0.5 * top, half), material)
        return
    solids.box(_above(place, top - 0.02), frame, (half, 0.02, half), material)
    for x in (-1, 1):
        for z in (-1, 1):
            foot = place + frame @ np.array((x * 0.85 * half, 0.0, z * 0.85 * half))
            solids.cone(NOBODY, foot, UPRIGHT, top, (0.018, 0.018), 1.0, material)
    if rng.random() < 0.5:
        back = place + frame @ np.array((0.0, top + 0.2, -half))
        solids.box(back, frame, (half, 0.2, 0.015), material)


def add_prop(rng: np.random.Generator, solids: Solids, place: Array) -> str:
    """Put something on the ground at `place`, (3,) m; return what it is: one of `instances.CATEGORIES`."""
    frame = rot_y(float(rng.uniform(0, 360)))
    material = _surface(rng)
    kind = rng.random()
    if kind < 0.3:
        half = (rng.uniform(0.12, 0.5), rng.uniform(0.12, 0.55), rng.uniform(0.12, 0.5))
        solids.box(_above(place, half[1]), frame, half, material)
        return "box"
    if kind < 0.5:
        _table(rng, solids, place, frame, material)
        return "table"
    if kind < 0.7:
        radius = rng.uniform(0.02, 0.1)
        solids.cone(NOBODY, place, UPRIGHT, rng.uniform(1.6, 4.0), (radius, radius), rng.uniform(0.6, 1.0), material)
        return "pole"
    if kind < 0.9:
        _bush(rng, solids, place)
        return "bush"
    radius = rng.uniform(0.08, 0.3)
    solids.ball(NOBODY, _above(place, radius), frame @ rot_x(rng.uniform(0, 360)), radius, material)
    return "ball"


def _table(rng: np.random.Generator, solids: Solids, place: Array, frame: Array, material: Material) -> None:
    top, half = rng.uniform(0.5, 0.95), (rng.uniform(0.35, 0.9), 0.025, rng.uniform(0.25, 0.5))
    solids.box(_above(place, top), frame, half, material)
    for x in (-1, 1):
        for z in (-1, 1):
            foot = place + frame @ np.array((x * 0.9 * half[0], 0.0, z * 0.9 * half[2]))
            solids.cone(NOBODY, foot, UPRIGHT, top, (0.025, 0.025), 1.0, material)


def _bush(rng: np.random.Generator, solids: Solids, place: Array) -> None:
    size = rng.uniform(0.2, 0.5)
    green = rng.uniform(0.15, 0.5)
    for _ in range(9):
        tone = float(green * rng.uniform(0.7, 1.3))
        leaf = Material((0.35 * tone, tone, float(rng.uniform(0.4, 0.9)) * tone), wrinkle=1.0)
        middle = place + size * np.array((rng.normal(0, 0.5), rng.uniform(0.2, 1.6), rng.normal(0, 0.5)))
        radii = (size * rng.uniform(0.25, 0.5), size * rng.uniform(0.2, 0.45), size * rng.uniform(0.25, 0.5))
        solids.ellipsoid(NOBODY, middle, rot_y(float(rng.uniform(0, 180))), radii, leaf)


def _above(place: Array, height: float) -> Array:
    return np.asarray(place + np.array((0.0, height, 0.0)))


def _surface(rng: np.random.Generator) -> Material:
    base: Colour
    if rng.random() < 0.4:
        tone = rng.uniform(0.25, 0.8)
        base = (0.42 * tone, 0.68 * tone, tone)
    else:
        b, g, r = (float(c) for c in np.clip(rng.uniform(0.1, 0.9) + rng.normal(0, 0.2, 3), 0.04, 1))
        base = (b, g, r)
    alt = (0.7 * base[0], 0.7 * base[1], 0.7 * base[2])
    if rng.random() < 0.4:
        pitch = float(rng.uniform(15, 60))
        return Material(
            base, alt=alt, freq_yx=(pitch, pitch), weight_yx=(1.0, float(rng.integers(2))), threshold=0.6, wrinkle=0.3
        )  # fmt: skip
    return Material(base, alt=alt, gloss=float(rng.uniform(0, 0.3)), wrinkle=0.3)
