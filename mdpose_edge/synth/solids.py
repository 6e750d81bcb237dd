"""The solids that everything in a scene is made of: ellipsoids, elliptic cones and flat polygons.

World coordinates are metres, right-handed, y up. Camera coordinates are x right, y down, z forward. A solid lives in a
local frame of its own, scaled so that an ellipsoid is the unit ball and a cone is x² + z² = (1 + k·y)², 0 <= y <= 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Colour = tuple[float, float, float]
"""Blue, green, red in [0, 1]."""

ELLIPSOID, CONE, POLYGON = 0, 1, 2
PLAIN, TORSO, HEAD = 0, 1, 2
NOBODY = -1

NO_CUT = 1e9
"""No place along an axis lies beyond it."""
NO_PATTERN = 9.0
"""More than any sum of two waves."""


def rot_x(degrees: float) -> Array:
    """Return the rotation about x that leans y towards z."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array(((1.0, 0.0, 0.0), (0.0, c, -s), (0.0, s, c)))


def rot_y(degrees: float) -> Array:
    """Return the rotation about y that turns z towards x."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array(((c, 0.0, s), (0.0, 1.0, 0.0), (-s, 0.0, c)))


def rot_z(degrees: float) -> Array:
    """Return the rotation about z that turns x towards y."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array(((c, -s, 0.0), (s, c, 0.0), (0.0, 0.0, 1.0)))


def pick(rng: np.random.Generator, weights: Sequence[float]) -> int:
    """Draw an index with probability proportional to its weight; far cheaper than `rng.choice` on short lists."""
    left = rng.random() * sum(weights)
    for index, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return index
    return len(weights) - 1


def sign(rng: np.random.Generator) -> float:
    """Draw -1 or 1."""
    return 1.0 if rng.random() < 0.5 else -1.0


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: x_camera = rotation @ x_world + translation, pixels = focal * (x, y) / z + centre."""

    rotation: Array
    """(3, 3)."""
    translation: Array
    """(3,) m."""
    focal_px: float
    size_wh: tuple[int, int]

    @property
    def centre_xy(self) -> tuple[float, float]:
        """The principal point, in pixels."""
        return self.size_wh[0] / 2, self.size_wh[1] / 2

    def to_camera(self, points: Array) -> Array:
        """Map world points (..., 3) to camera coordinates."""
        return points @ self.rotation.T + self.translation

    def project(self, points: Array) -> Array:
        """Map world points (..., 3) to pixels (..., 2); the points must lie in front of the camera."""
        seen = self.to_camera(points)
        return np.asarray(self.focal_px * seen[..., :2] / seen[..., 2:] + self.centre_xy)


@dataclass(frozen=True)
class Material:
    """How a surface looks; lengths are in the solid's texture coordinates."""

    base: Colour
    alt: Colour = (0.0, 0.0, 0.0)
    """The second colour of a pattern."""
    bare: Colour = (0.0, 0.0, 0.0)
    """Beyond `cut` along the axis (skin below a sleeve), and the colour of front details."""
    cut: float = NO_CUT
    freq_yx: tuple[float, float] = (0.0, 0.0)
    weight_yx: tuple[float, float] = (0.0, 0.0)
    threshold: float = NO_PATTERN
    """`alt` shows where weight_y·sin(freq_y·y) + weight_x·sin(freq_x·x) exceeds it."""
    gloss: float = 0.0
    wrinkle: float = 0.0
    region: int = PLAIN
    style: int = 0
    """Front details of a torso, facial hair of a head: see shade.py."""

    @cached_property
    def row(self) -> tuple[float, ...]:
        """The fields as a row of the material table, in the order of the columns named in shade.py."""
        return (
            *self.base, *self.alt, *self.bare, self.cut, *self.freq_yx, *self.weight_yx, self.threshold, self.gloss,
            self.wrinkle, self.region, self.style,
        )  # fmt: skip


@dataclass
class Solids:
    """A growing list of solids in world coordinates; one entry per solid in every list."""

    kinds: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    """Index of the person, or NOBODY."""
    frames: list[Array] = field(default_factory=list)
    """(3, 3), columns are the local axes."""
    centres: list[Array] = field(default_factory=list)
    radii: list[tuple[float, float, float]] = field(default_factory=list)
    tapers: list[float] = field(default_factory=list)
    texture: list[tuple[float, ...]] = field(default_factory=list)
    """Texture coordinates are local * texture[:3] + texture[3:]."""
    materials: list[tuple[float, ...]] = field(default_factory=list)
    corners: dict[int, Array] = field(default_factory=dict)
    """(M, 3) world corners of each polygon, by its index."""

    def __len__(self) -> int:
        return len(self.kinds)

    def ellipsoid(
        self, owner: int, centre: Array, frame: Array, radii: tuple[float, float, float], material: Material,
        *, unit: float = 1.0, offset: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> None:  # fmt: skip
        """Add an ellipsoid; texture coordinates are metres along its axes divided by `unit`, plus `offset`."""
        self._add(ELLIPSOID, owner, centre, frame, radii, 0.0, material, unit, offset)

    def ball(self, owner: int, centre: Array, frame: Array, radius: float, material: Material) -> None:
        """Add a sphere."""
        self._add(ELLIPSOID, owner, centre, frame, (radius, radius, radius), 0.0, material, 1.0, (0.0, 0.0, 0.0))

    def cone(
        self, owner: int, start: Array, frame: Array, length: float, radii: tuple[float, float], end_ratio: float,
        material: Material, *, unit: float = 1.0, offset: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> None:  # fmt: skip
        """Add an open elliptic cone along the frame's y: `radii` at the start, times `end_ratio` at the end."""
        lengths = (radii[0], length, radii[1])
        self._add(CONE, owner, start, frame, lengths, end_ratio - 1.0, material, unit, offset)

    def polygon(self, corners: Array, normal: Array, frame: Array, material: Material) -> None:
        """Add a flat convex polygon, (M, 3) world corners, seen from the side its normal points to."""
        self.corners[len(self)] = corners
        self._add(POLYGON, NOBODY, normal, frame, (1.0, 1.0, 1.0), 0.0, material, 1.0, (0.0, 0.0, 0.0))

    def box(self, centre: Array, frame: Array, half: tuple[float, float, float], material: Material) -> None:
        """Add the six faces of a box."""
        scaled = frame * np.array(half)
        for axis in range(3):
            u, v = scaled[:, (axis + 1) % 3], scaled[:, (axis + 2) % 3]
            for sign in (-1.0, 1.0):
                middle = centre + sign * scaled[:, axis]
                corners = np.array((middle - u - v, middle + u - v, middle + u + v, middle - u + v))
                face = np.column_stack((frame[:, (axis + 1) % 3], frame[:, (axis + 2) % 3], frame[:, axis]))
                self.polygon(corners, sign * frame[:, axis], face, material)

    def _add(
        self, kind: int, owner: int, centre: Array, frame: Array, radii: tuple[float, float, float], taper: float,
        material: Material, unit: float, offset: tuple[float, float, float],
    ) -> None:  # fmt: skip
        self.kinds.append(kind)
        self.owners.append(owner)
        self.centres.append(centre)
        self.frames.append(frame)
        self.radii.append(radii)
        self.tapers.append(taper)
        self.texture.append((radii[0] / unit, radii[1] / unit, radii[2] / unit, *offset))
        self.materials.append(material.row)
