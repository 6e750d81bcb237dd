"""Clothes, hair and skin: a posed figure becomes solids with materials."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from mdpose_edge.synth.body import EAR, SIDES, Figure
from mdpose_edge.synth.solids import HEAD, NO_CUT, PLAIN, TORSO, Array, Colour, Material, Solids, pick, rot_x

SKIN_RGB = (
    (0.98, 0.83, 0.74), (0.95, 0.77, 0.65), (0.88, 0.68, 0.54), (0.78, 0.58, 0.43), (0.64, 0.45, 0.32),
    (0.48, 0.32, 0.22), (0.34, 0.22, 0.16),
)  # fmt: skip
HAIR_RGB = (
    (0.07, 0.06, 0.06), (0.13, 0.09, 0.07), (0.24, 0.15, 0.09), (0.38, 0.24, 0.13), (0.6, 0.45, 0.25),
    (0.75, 0.62, 0.4), (0.5, 0.2, 0.1), (0.6, 0.6, 0.6), (0.85, 0.84, 0.82),
)  # fmt: skip
HAIR_WEIGHTS = (0.2, 0.2, 0.2, 0.14, 0.08, 0.06, 0.04, 0.04, 0.04)
DENIM_RGB = (0.22, 0.3, 0.45)
SLEEVES, SLEEVE_WEIGHTS = (0.0, 0.45, 0.7, 1.6, 2.0), (0.1, 0.32, 0.16, 0.08, 0.34)
LEGS, LEG_WEIGHTS = (0.45, 0.8, 1.5, 2.0), (0.1, 0.18, 0.06, 0.66)
STYLE_WEIGHTS = (0.34, 0.2, 0.14, 0.12, 0.1, 0.1)
"""Plain, chest print, buttons, open jacket, V-neck, emblem: see shade.py."""


Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """What one person wears."""

    skin: Material
    top: Material
    sleeve: float
    """Share of the arm that is covered: 0 to 2, one per bone."""
    trousers: Material
    leg: float
    """Share of the leg that is covered: 0 to 2, one per bone."""
    skirt: float
    """Length of a skirt as a share of the thigh, or 0."""
    shoes: Material
    hair: Material | None
    hair_length: int
    """0 short, 1 to the neck, 2 to the shoulders, 3 tied back."""
    hat: Material | None
    backpack: Material | None
    beard: bool
    loose: float
    """Factor on the thickness of clothed limbs."""


def sample_look(rng: np.random.Generator) -> Look:
    """Draw clothes, hair and skin."""
    tone = np.array(SKIN_RGB[int(rng.integers(len(SKIN_RGB)))]) * rng.uniform(0.92, 1.05)
    skin = Material(_bgr(tone), gloss=0.12)
    hair_rgb = np.array(HAIR_RGB[pick(rng, HAIR_WEIGHTS)])
    hair = Material(_bgr(hair_rgb * rng.uniform(0.8, 1.2)), gloss=0.2, wrinkle=0.5)
    length = pick(rng, (0.5, 0.18, 0.2, 0.12))
    dress = rng.random() < 0.12
    top = _cloth(rng, skin)
    trousers = top if dress else _cloth(rng, skin, plain=0.8, legs=True)
    shoes = Material(_cloth_colour(rng), gloss=0.15)
    return Look(
        skin=skin, top=replace(top, region=TORSO), sleeve=SLEEVES[pick(rng, SLEEVE_WEIGHTS)],
        trousers=replace(trousers, region=PLAIN), leg=0.0 if dress else LEGS[pick(rng, LEG_WEIGHTS)],
        skirt=float(rng.uniform(0.5, 1.25)) if dress or rng.random() < 0.08 else 0.0, shoes=shoes,
        hair=None if length == 0 and rng.random() < 0.12 else hair, hair_length=length,
        hat=Material(_cloth_colour(rng), wrinkle=0.2) if rng.random() < 0.14 else None,
        backpack=_cloth(rng, skin, plain=0.9) if rng.random() < 0.12 else None,
        beard=bool(length == 0 and rng.random() < 0.3), loose=float(rng.uniform(1.0, 1.22)),
    )  # fmt: skip


def dress(figure: Figure, look: Look, solids: Solids, owner: int, shift: Array, fine: bool) -> None:
    """Add a person to a scene.

    Args:
        figure: the posed body, over the world's origin.
        look: what it wears.
        solids: grows.
        owner: index of the person.
        shift: (3,) m, where the origin goes.
        fine: draw ears, nose and jaw as well; pointless on a head of a few pixels.
    """
    tailor = _Tailor(figure, look, solids, owner, shift)
    tailor.torso()
    for i in (0, 1):
        tailor.arm(i)
        tailor.leg(i)
    tailor.head(fine)
    if look.skirt:
        tailor.skirt()
    if look.backpack is not None:
        tailor.backpack(look.backpack)


@dataclass
class _Tailor:
    """Knows where each solid of a body goes."""

    figure: Figure
    look: Look
    solids: Solids
    owner: int
    shift: Array

    def torso(self) -> None:
        f, h, g = self.figure, self.figure.build.height, self.figure.build.girth * (0.97 + 0.03 * self.look.loose)
        wide, hips = f.build.shoulders, f.build.hips
        chest, pelvis = f.chest + self.shift, f.pelvis + self.shift
        up, down = f.chest_frame, f.pelvis_frame
        top = self.look.top
        self._blob(
            pelvis + down @ np.array((0.0, 0.012 * h, -0.004 * h)), down,
            (0.093 * h * hips * g, 0.082 * h, 0.071 * h * g), self.look.trousers, (0.0, 0.0, 0.0),
        )  # fmt: skip
        waist = pelvis + 0.03 * h * down[:, 1]
        yoke = chest + 0.072 * h * up[:, 1]
        length = float(np.linalg.norm(yoke - waist))
        frame = _along((yoke - waist) / length, up)
        slim, flare = 0.0815 * h * g * (0.5 + 0.5 * hips), 1.19 * wide / (0.5 + 0.5 * hips)
        self._cone(waist, frame, length, (slim, 0.75 * slim), flare, top, (0.0, 0.03, 0.0))
        self._blob(yoke, up, (slim * flare, 0.048 * h, 0.75 * slim * flare), top, (0.0, 0.242, 0.0))
        neck, skin = f.neck + self.shift, self.look.skin
        for i in (0, 1):
            shoulder = f.arms[i][0] + self.shift
            self._bone(neck - 0.012 * h * up[:, 1], shoulder, up, (0.04 * h * g, 0.033 * h * g), self._plain_top())
        head = f.head + self.shift
        self._bone(neck - 0.02 * h * up[:, 1], head - 0.02 * h * f.head_frame[:, 1], up, (0.035 * h, 0.031 * h), skin)

    def arm(self, i: int) -> None:
        h, thick = self.figure.build.height, self.figure.build.girth**0.7
        shoulder, elbow, wrist = (p + self.shift for p in self.figure.arms[i])
        upper, fore = self.figure.arm_frames[i]
        sleeve, skin = self.look.sleeve, self.look.skin
        cloth = 1.0 if sleeve < 0.3 else self.look.loose
        material = self._sleeved(self._plain_top(), sleeve)
        lower = self._sleeved(self._plain_top(), sleeve - 1.0)
        self._ball(shoulder, upper, 0.0355 * h * thick * (0.4 + 0.6 * cloth), self._plain_top())
        self._segment(shoulder, upper, 0.172 * h, (0.034 * h * thick * cloth, 0.027 * h * thick), material)
        self._ball(elbow, fore, 0.0272 * h * thick, material if sleeve > 1.0 else skin)
        self._segment(elbow, fore, 0.148 * h, (0.0268 * h * thick, 0.0185 * h * thick), lower)
        self._ball(wrist, fore, 0.0185 * h * thick, lower if sleeve > 1.95 else skin)
        palm = wrist - 0.045 * h * fore[:, 1]
        self._blob(palm, fore, (0.013 * h, 0.053 * h, 0.026 * h), skin)
        thumb = wrist + fore @ np.array((0.0, -0.035 * h, 0.026 * h))
        self._blob(thumb, fore @ rot_x(-25), (0.0095 * h, 0.024 * h, 0.0105 * h), skin)

    def leg(self, i: int) -> None:
        h, thick = self.figure.build.height, self.figure.build.girth**0.8
        hip, knee, ankle = (p + self.shift for p in self.figure.legs[i])
        thigh, shin, foot = self.figure.leg_frames[i]
        cover, skin = self.look.leg, self.look.skin
        cloth = self.look.loose if cover > 0 else 1.0
        base = self.look.trousers
        upper, lower = self._sleeved(base, cover), self._sleeved(base, cover - 1.0)
        calf = cloth if cover > 1.9 else 1.0
        self._ball(hip, thigh, 0.0575 * h * thick * (0.5 + 0.5 * cloth), base)
        self._segment(hip, thigh, 0.24 * h, (0.056 * h * thick * cloth, 0.037 * h * thick * cloth), upper)
        self._ball(knee, shin, 0.0365 * h * thick * cloth, upper if cover > 1.0 else skin)
        self._segment(knee, shin, 0.238 * h, (0.0345 * h * thick * calf, 0.0225 * h * thick * calf**2), lower)
        muscle = knee + shin @ np.array((0.0, -0.075 * h, -0.012 * h))
        self._blob(muscle, shin, (0.033 * h * thick * calf, 0.08 * h, 0.034 * h * thick), _whole(lower, skin, cover))
        self._ball(ankle, foot, 0.0235 * h * thick, lower if cover > 1.95 else skin)
        shoe = self.look.shoes
        sole = ankle + foot @ np.array((0.0, -0.022 * h, 0.038 * h))
        self._blob(sole, foot @ rot_x(4), (0.0255 * h, 0.0195 * h, 0.076 * h), shoe)
        self._blob(ankle + foot @ np.array((0, -0.014 * h, -0.006 * h)), foot, (0.0245 * h, 0.027 * h, 0.032 * h), shoe)

    def head(self, fine: bool) -> None:
        f, look, frame = self.figure, self.look, self.figure.head_frame
        dark = tuple(0.75 * c for c in (look.hair.base if look.hair else look.skin.base))
        face = replace(look.skin, alt=dark, region=HEAD, style=int(look.beard))  # type: ignore[arg-type]
        self._feature((0, 0.005, -0.004), (0.077, 0.112, 0.098), face)
        self._feature((0, -0.046, 0.017), (0.062, 0.073, 0.074), face)
        if fine:
            self._feature((0, -0.022, 0.098), (0.013, 0.026, 0.017), look.skin)
            for side in SIDES:
                self._feature((side * EAR[0], EAR[1], EAR[2]), (0.011, 0.032, 0.021), look.skin)
        if look.hair is not None:
            self._hair(look.hair)
        if look.hat is not None:
            self._feature((0, 0.052, -0.01), (0.087, 0.083, 0.108), look.hat)
            brim = f.face_point(0, 0.055, 0.1) + self.shift
            unit = f.head_unit
            self._blob(brim, frame @ rot_x(8), (0.07 * unit, 0.007 * unit, 0.065 * unit), look.hat)

    def _hair(self, hair: Material) -> None:
        self._feature((0, 0.022, -0.021), (0.0835, 0.112, 0.1), hair)
        length = self.look.hair_length
        if length in (1, 2):
            drop = 0.07 if length == 1 else 0.15
            self._feature((0, -0.02 - 0.5 * drop, -0.05), (0.085, 0.07 + 0.55 * drop, 0.062), hair)
        elif length == 3:
            self._feature((0, 0.02, -0.13), (0.03, 0.03, 0.03), hair)
            self._feature((0, -0.06, -0.135), (0.026, 0.085, 0.03), hair)

    def skirt(self) -> None:
        f, h = self.figure, self.figure.build.height
        pelvis, frame = f.pelvis + self.shift, f.pelvis_frame
        mean = 0.5 * (f.leg_frames[0][0][:, 1] + f.leg_frames[1][0][:, 1])
        spread = float(np.linalg.norm(f.legs[0][1] - f.legs[1][1])) / h
        axis = _along(-mean / max(1e-6, float(np.linalg.norm(mean))), frame)
        start = (0.092 * h * f.build.hips * f.build.girth, 0.075 * h * f.build.girth)
        self._cone(
            pelvis + 0.03 * h * frame[:, 1], axis, 0.26 * h * self.look.skirt, start, 1.3 + 1.6 * spread,
            self.look.trousers, (0.0, 0.0, 0.0),
        )  # fmt: skip

    def backpack(self, material: Material) -> None:
        f, h = self.figure, self.figure.build.height
        centre = f.chest + self.shift + f.chest_frame @ np.array((0.0, -0.005 * h, -0.105 * h))
        self._blob(centre, f.chest_frame, (0.082 * h, 0.125 * h, 0.06 * h), material)
        low = f.chest + self.shift + f.chest_frame @ np.array((0.0, -0.05 * h, -0.125 * h))
        self._blob(low, f.chest_frame, (0.065 * h, 0.06 * h, 0.055 * h), material)

    def _plain_top(self) -> Material:
        return _uncut(self.look.top)

    def _sleeved(self, cloth: Material, cover: float) -> Material:
        """Let a bone's cloth end after a share `cover` of its length."""
        if cover <= 0.0:
            return self.look.skin
        return cloth if cover >= 1.0 else _cut(cloth, cover, self.look.skin.base)

    def _feature(self, place: Triple, radii: Triple, material: Material) -> None:
        unit = self.figure.head_unit
        size = (radii[0] * unit, radii[1] * unit, radii[2] * unit)
        centre = self.figure.face_point(*place) + self.shift
        self.solids.ellipsoid(self.owner, centre, self.figure.head_frame, size, material, unit=unit, offset=place)

    def _blob(
        self, centre: Array, frame: Array, radii: Triple, material: Material,
        offset: Triple = (0.0, 0.0, 0.0),
    ) -> None:  # fmt: skip
        self.solids.ellipsoid(
            self.owner, centre, frame, radii, material, unit=self.figure.build.height, offset=offset
        )  # fmt: skip

    def _ball(self, centre: Array, frame: Array, radius: float, material: Material) -> None:
        self.solids.ellipsoid(self.owner, centre, frame, (radius,) * 3, _uncut(material), unit=self.figure.build.height)

    def _segment(
        self, start: Array, frame: Array, length: float, radii: tuple[float, float], material: Material
    ) -> None:
        """Add a bone hanging along -y of its frame."""
        self._cone(start, frame * (1.0, -1.0, -1.0), length, (radii[0], radii[0]), radii[1] / radii[0], material)

    def _bone(self, start: Array, end: Array, like: Array, radii: tuple[float, float], material: Material) -> None:
        span = end - start
        length = float(np.linalg.norm(span))
        self._cone(start, _along(span / length, like), length, (radii[0], radii[0]), radii[1] / radii[0], material)

    def _cone(
        self, start: Array, frame: Array, length: float, radii: tuple[float, float], ratio: float, material: Material,
        offset: Triple = (0.0, 0.0, 0.0),
    ) -> None:  # fmt: skip
        self.solids.cone(
            self.owner, start, frame, length, radii, ratio, material, unit=self.figure.build.height, offset=offset
        )  # fmt: skip


@lru_cache(maxsize=64)
def _uncut(material: Material) -> Material:
    """Return the cloth without front details, for a solid that is covered as a whole."""
    return replace(material, cut=NO_CUT, region=PLAIN)


@lru_cache(maxsize=64)
def _cut(material: Material, cover: float, bare: Colour) -> Material:
    return replace(material, cut=cover, bare=bare)


def _cross(a: Array, b: Array) -> Array:
    """Return a x b of two vectors (3,); np.cross takes ten times as long for one pair."""
    (ax, ay, az), (bx, by, bz) = a.tolist(), b.tolist()
    return np.array((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx))


def _along(axis: Array, like: Array) -> Array:
    """Return a frame whose y is `axis` and whose x is as near as can be to that of `like`."""
    x = like[:, 0] - (like[:, 0] @ axis) * axis
    norm = float(np.linalg.norm(x))
    if norm < 0.2:  # the axis runs along x: lean on z instead
        z = like[:, 2] - (like[:, 2] @ axis) * axis
        z = z / np.linalg.norm(z)
        return np.column_stack((_cross(axis, z), axis, z))
    x = x / norm
    return np.column_stack((x, axis, _cross(x, axis)))


def _whole(lower: Material, skin: Material, cover: float) -> Material:
    """Choose one material for a solid that has no axis to cut along."""
    return _uncut(lower) if cover > 1.45 else skin


def _cloth(rng: np.random.Generator, skin: Material, plain: float = 0.55, legs: bool = False) -> Material:
    base = _bgr(np.array(DENIM_RGB) * rng.uniform(0.6, 1.5)) if legs and rng.random() < 0.35 else _cloth_colour(rng)
    alt, inner = _cloth_colour(rng), _cloth_colour(rng)
    style = pick(rng, STYLE_WEIGHTS)
    bare = skin.base if style == 4 else inner
    cloth = Material(base, alt=alt, bare=bare, wrinkle=float(rng.uniform(0.5, 1.0)), style=style)
    kind = rng.random()
    if kind < plain:
        return cloth
    pitch = float(2 * math.pi / rng.uniform(0.02, 0.075))
    if kind < plain + 0.5 * (1 - plain):
        return replace(cloth, freq_yx=(pitch, 0.0), weight_yx=(1.0, 0.0), threshold=float(rng.uniform(-0.2, 0.7)))
    if kind < plain + 0.65 * (1 - plain):
        return replace(cloth, freq_yx=(0.0, pitch), weight_yx=(0.0, 1.0), threshold=float(rng.uniform(0.0, 0.8)))
    return replace(cloth, freq_yx=(pitch, pitch), weight_yx=(1.0, 1.0), threshold=float(rng.uniform(0.2, 1.3)))


def _cloth_colour(rng: np.random.Generator) -> Colour:
    if rng.random() < 0.4:  # black, white and grey are the commonest clothes
        value = (0.08, 0.15, 0.3, 0.55, 0.8, 0.95)[pick(rng, (1,) * 6)] * rng.uniform(0.85, 1.05)
        return _bgr(np.array(colorsys.hsv_to_rgb(rng.random(), 0.08, min(value, 1.0))))
    return _bgr(np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.25, 0.95), rng.uniform(0.25, 0.95))))


def _bgr(rgb: Array) -> Colour:
    r, g, b = (min(1.0, max(0.0, c)) for c in rgb.tolist())
    return b, g, r
