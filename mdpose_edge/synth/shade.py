"""Colours for the surfaces that the raster found: light, cloth patterns, faces."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.synth.noise import clouds
from mdpose_edge.synth.raster import Raster
from mdpose_edge.synth.solids import HEAD, NO_PATTERN, TORSO, Array, Camera

F32 = NDArray[np.float32]

BASE, ALT, BARE = slice(0, 3), slice(3, 6), slice(6, 9)
CUT, FREQ_Y, FREQ_X, WEIGHT_Y, WEIGHT_X, THRESHOLD, GLOSS, WRINKLE, REGION, STYLE = range(9, 19)
"""Where `Material.row` puts its fields."""

LIP_TINT = np.array(((0.62,), (0.55,), (0.85,)), np.float32)
TO_CAMERA = np.array((0.0, 0.0, -1.0), np.float32)

PRINT, BUTTONS, OPEN_JACKET, V_NECK, EMBLEM = 1, 2, 3, 4, 5
"""Front details of a torso: what tells the front from the back besides the head and the limbs."""


@dataclass(frozen=True)
class Light:
    """One lamp far away and the sky."""

    direction: Array
    """(3,) unit vector from the scene towards the lamp, world."""
    lamp: F32
    """(3,) BGR strength."""
    ambient: F32
    """(3,) BGR strength."""


def shade(image: NDArray[np.uint8], raster: Raster, camera: Camera, light: Light) -> None:
    """Paint what the raster found over `image`, (H, W, 3) uint8 BGR, and soften its outlines."""
    flat = np.flatnonzero(raster.solid.ravel() >= 0)
    if not flat.size:
        return
    rows = raster.solid.ravel()[flat]
    points = _points(flat, raster, camera)
    s = raster.surfaces
    local = _affine(s.local, rows, points)
    normal = _affine(s.quadric, rows, points)
    normal /= np.sqrt((normal * normal).sum(axis=0)) + np.float32(1e-12)
    material = s.materials.T.take(rows, axis=1)
    texture = s.texture.T.take(rows, axis=1)
    place = local * texture[:3] + texture[3:]
    colour = _albedo(material, local, place)
    _paint_details(colour, material, place)
    colour *= _lighting(material, place, normal, points, camera, light)
    colour += _highlight(material, normal, points, camera, light)
    painted = np.clip(colour * 255, 0, 255).astype(np.uint8).T
    image.reshape(-1, 3)[flat] = painted
    _soften_outlines(image, raster.solid)


def _points(flat: NDArray[np.intp], raster: Raster, camera: Camera) -> F32:
    """Return the camera coordinates (3, n) of the surface in each pixel."""
    width = camera.size_wh[0]
    cx, cy = camera.centre_xy
    y, x = np.divmod(flat.astype(np.int32), np.int32(width))
    depth = 1.0 / raster.inverse_depth.ravel()[flat]
    points = np.empty((3, flat.size), np.float32)
    points[0] = (x + np.float32(0.5 - cx)) * depth * np.float32(1 / camera.focal_px)
    points[1] = (y + np.float32(0.5 - cy)) * depth * np.float32(1 / camera.focal_px)
    points[2] = depth
    return points


def _affine(matrices: F32, rows: NDArray[np.int32], points: F32) -> F32:
    """Apply to each point (3, n) the (3, 4) matrix of its row."""
    entries = np.ascontiguousarray(matrices.reshape(-1, 12).T).take(rows, axis=1).reshape(3, 4, -1)
    out = entries[:, 3]
    for axis in range(3):
        out = out + entries[:, axis] * points[axis]
    return np.asarray(out)


def _albedo(material: F32, local: F32, place: F32) -> F32:
    """Return the cloth pattern and what lies beyond a sleeve, (3, n)."""
    colour = material[BASE].copy()
    patterned = np.flatnonzero(material[THRESHOLD] < NO_PATTERN)
    if patterned.size:
        p = material[:, patterned]
        wave = p[WEIGHT_Y] * np.sin(p[FREQ_Y] * place[1, patterned])
        wave += p[WEIGHT_X] * np.sin(p[FREQ_X] * place[0, patterned])
        shown = patterned[wave > p[THRESHOLD]]
        colour[:, shown] = material[ALT][:, shown]
    beyond = np.flatnonzero(local[1] > material[CUT])
    colour[:, beyond] = material[BARE][:, beyond]
    return colour


def _paint_details(colour: F32, material: F32, place: F32) -> None:
    region = material[REGION]
    torso = np.flatnonzero(region == TORSO)
    if torso.size:
        part = colour[:, torso]
        _paint_torso(part, material[:, torso], place[:, torso])
        colour[:, torso] = part
    head = np.flatnonzero(region == HEAD)
    if head.size:
        part = colour[:, head]
        _paint_face(part, material[:, head], place[:, head])
        colour[:, head] = part


def _paint_torso(colour: F32, material: F32, place: F32) -> None:
    """Paint front details; texture coordinates are shares of stature from the pelvis, x left, y up, z forward."""
    x, y, z = place
    style, bare, alt = material[STYLE], material[BARE], material[ALT]
    front = z > 0.0
    print_ = front & (style == PRINT) & (np.abs(x) < 0.055) & (np.abs(y - 0.2) < 0.038)
    colour[:, print_] = alt[:, print_]
    inner = print_ & (np.sin(90 * x + 2) * np.sin(160 * y) > 0.2)
    colour[:, inner] = bare[:, inner]
    buttons = front & (style == BUTTONS) & (np.abs(x) < 0.013)
    colour[:, buttons] *= np.float32(0.72)
    dots = buttons & (np.abs(x) < 0.006) & (np.abs(y % 0.036 - 0.018) < 0.006)
    colour[:, dots] = bare[:, dots]
    jacket = front & (style == OPEN_JACKET) & (np.abs(x) < 0.022 + 0.09 * np.maximum(y - 0.1, 0))
    colour[:, jacket] = bare[:, jacket]
    neck = front & (style == V_NECK) & (y > 0.2) & (np.abs(x) < 0.6 * (y - 0.2))
    colour[:, neck] = bare[:, neck]
    emblem = front & (style == EMBLEM) & ((x - 0.045) ** 2 + (y - 0.215) ** 2 < 0.014**2)
    colour[:, emblem] = alt[:, emblem]
    hem = y < 0.045
    colour[:, hem] *= np.float32(0.8)


def _paint_face(colour: F32, material: F32, place: F32) -> None:
    """Paint eyes, brows, mouth and beard; texture coordinates are head units, x left, y up, z forward."""
    x, y, z = np.abs(place[0]), place[1], place[2]
    front = z > 0.0
    dark = material[ALT]
    beard = (material[STYLE] > 0) & (y < -0.045) & (z > -0.02)
    colour[:, beard] = 0.6 * dark[:, beard] + 0.4 * colour[:, beard]
    socket = front & (((x - 0.031) / 0.021) ** 2 + ((y - 0.011) / 0.016) ** 2 < 1)
    colour[:, socket] *= np.float32(0.8)
    white = front & (((x - 0.031) / 0.015) ** 2 + ((y - 0.008) / 0.0075) ** 2 < 1)
    colour[:, white] = np.float32(0.92)
    iris = front & ((x - 0.031) ** 2 + (y - 0.008) ** 2 < 0.0072**2)
    colour[:, iris] = np.float32(0.1)
    brow = front & (np.abs(x - 0.033) < 0.02) & (np.abs(y - 0.034 + 9.0 * (x - 0.036) ** 2) < 0.0042)
    colour[:, brow] = dark[:, brow] * np.float32(0.9)
    nostrils = front & (np.abs(x - 0.006) < 0.006) & (np.abs(y + 0.047) < 0.004)
    colour[:, nostrils] *= np.float32(0.6)
    lips = front & (x < 0.025) & (np.abs(y + 0.072 - 0.15 * x) < 0.0085 - 0.17 * x)
    colour[:, lips] *= LIP_TINT


def _lighting(material: F32, place: F32, normal: F32, points: F32, camera: Camera, light: Light) -> F32:
    """Return the light that each point sends back, (3, n): wrapped Lambert, folds in cloth, dark edges."""
    towards = (camera.rotation @ light.direction).astype(np.float32)
    lambert = towards[0] * normal[0] + towards[1] * normal[1] + towards[2] * normal[2]
    wrinkle = material[WRINKLE]
    tile = clouds()
    u = ((place[0] + 0.6 * place[2]) * 520).astype(np.int32) & 255
    v = (place[1] * 260 + wrinkle * 977).astype(np.int32) & 255
    folds = wrinkle * tile[v, u]
    lambert = np.maximum((lambert + 0.16 * folds + 0.25) / 1.25, 0)
    sky = 0.75 - 0.25 * normal[1]
    out = light.lamp[:, None] * lambert + light.ambient[:, None] * sky
    return np.asarray(out * (1 + 0.05 * folds))


def _highlight(material: F32, normal: F32, points: F32, camera: Camera, light: Light) -> F32:
    """Return the gloss, the same for the three colours, (n,)."""
    towards = (camera.rotation @ light.direction).astype(np.float32)
    half = towards + TO_CAMERA
    half /= np.linalg.norm(half)
    facing = np.maximum(half[0] * normal[0] + half[1] * normal[1] + half[2] * normal[2], 0)
    facing *= facing
    facing *= facing
    facing *= facing
    return np.asarray(material[GLOSS] * facing)


def _soften_outlines(image: NDArray[np.uint8], solid: NDArray[np.int32]) -> None:
    """Blur the pixels where one solid borders on another: the raster has one sample per pixel."""
    edge = np.zeros(solid.shape, np.uint8)
    across = solid[:, 1:] != solid[:, :-1]
    down = solid[1:] != solid[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    cv2.copyTo(cv2.GaussianBlur(image, (3, 3), 0.7), edge, image)
