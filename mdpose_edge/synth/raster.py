"""The nearest surface in each pixel, exactly, by solving one quadric per solid over its bounding box.

A camera ray is t·(x, y, 1). On a surface p'Ap + 2b'p + c = 0 the inverse depth w = 1/t obeys c·w² + 2(b·d)w + d'Ad = 0,
and c > 0 while the camera is outside, so the front is the greater root: no division per pixel, and nearer is greater.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.synth.solids import CONE, POLYGON, Array, Camera, Solids

NEAR = 0.1
"""Solids that come nearer to the camera than this, in m, are left out."""


@dataclass(frozen=True)
class Surfaces:
    """The solids of a scene as the camera sees them, one row each."""

    owners: NDArray[np.int32]
    """(P,) person, or -1."""
    local: NDArray[np.float32]
    """(P, 3, 4): local = matrix @ (camera point, 1)."""
    quadric: NDArray[np.float32]
    """(P, 3, 4): half the gradient of the surface = matrix @ (camera point, 1); it points outwards."""
    texture: NDArray[np.float32]
    """(P, 6): scale and offset from local to texture coordinates."""
    materials: NDArray[np.float32]
    """(P, M): `Material.row`."""


@dataclass(frozen=True)
class Raster:
    """What is in front, pixel by pixel."""

    inverse_depth: NDArray[np.float32]
    """(H, W) 1/m; 0 where there is nothing."""
    solid: NDArray[np.int32]
    """(H, W) row of `surfaces`; -1 where there is nothing."""
    surfaces: Surfaces

    def owner(self) -> NDArray[np.int32]:
        """Return the person in each pixel, (H, W); -1 where there is none."""
        return np.append(self.surfaces.owners, np.int32(-1))[self.solid]


def rasterize(solids: Solids, camera: Camera) -> Raster:
    """Find the nearest surface in each pixel."""
    width, height = camera.size_wh
    inverse = np.zeros((height, width), np.float32)
    index = np.full((height, width), -1, np.int32)
    if not len(solids):
        empty = np.zeros((0, 3, 4), np.float32)
        nothing = np.zeros((0, 6), np.float32)
        return Raster(inverse, index, Surfaces(np.zeros(0, np.int32), empty, empty, nothing, nothing))
    frames, centres, local, quadric, offset = _to_camera(solids, camera)
    boxes = _boxes(solids, camera, frames, centres)
    cx, cy = camera.centre_xy
    xs = ((np.arange(width) + 0.5 - cx) / camera.focal_px).astype(np.float32)
    ys = ((np.arange(height) + 0.5 - cy) / camera.focal_px).astype(np.float32)
    rays = _RayPolynomials.of(quadric, offset, local[:, 1], xs, ys)
    with np.errstate(invalid="ignore"):  # the root of a negative number means that the ray misses
        for i in np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).tolist():
            x0, y0, x1, y1 = boxes[i].tolist()
            view = (slice(y0, y1), slice(x0, x1))
            kind = solids.kinds[i]
            if kind == POLYGON:
                near = _polygon(camera, solids.corners[i], quadric[i], xs[x0:x1], ys[y0:y1, None])
            else:
                near = rays.front(i, *view)
            hit = near > inverse[view]
            if kind == CONE:
                rays.clip(hit, near, i, *view)
            np.copyto(inverse[view], near, where=hit)
            np.copyto(index[view], np.int32(i), where=hit)
    surfaces = Surfaces(
        np.array(solids.owners, np.int32), local.astype(np.float32), quadric.astype(np.float32),
        np.array(solids.texture, np.float32), np.array(solids.materials, np.float32),
    )  # fmt: skip
    return Raster(inverse, index, surfaces)


def _to_camera(solids: Solids, camera: Camera) -> tuple[Array, Array, Array, Array, Array]:
    """Return frames, centres, local matrices, half-gradient matrices and constant terms, in camera coordinates."""
    count = len(solids)
    frames = camera.rotation @ np.array(solids.frames)
    flat = np.array(solids.kinds) == POLYGON
    points = np.array(solids.centres)
    centres = camera.to_camera(points)
    centres[flat] = 0.0  # a polygon's "centre" is its normal; its texture starts at the camera
    local = np.empty((count, 3, 4))
    local[:, :, :3] = frames.transpose(0, 2, 1) / np.array(solids.radii)[:, :, None]
    local[:, :, 3] = -np.einsum("pij,pj->pi", local[:, :, :3], centres)
    taper = np.array(solids.tapers)
    cone = np.array(solids.kinds) == CONE
    form = np.zeros((count, 4, 4))
    form[:, 0, 0] = form[:, 2, 2] = 1.0
    form[:, 1, 1] = np.where(cone, -(taper**2), 1.0)
    form[:, 1, 3] = form[:, 3, 1] = np.where(cone, -taper, 0.0)
    form[:, 3, 3] = -1.0
    full = np.zeros((count, 4, 4))
    full[:, :3] = local
    full[:, 3, 3] = 1.0
    quadric = full.transpose(0, 2, 1) @ form @ full
    quadric[flat] = 0.0
    quadric[flat, :3, 3] = points[flat] @ camera.rotation.T
    return frames, centres, local, quadric[:, :3, :], quadric[:, 3, 3]


def _boxes(solids: Solids, camera: Camera, frames: Array, centres: Array) -> NDArray[np.int32]:
    """Return the pixels each solid can touch, (P, 4) as x0, y0, x1, y1; empty for what cannot be drawn."""
    radii, taper = np.array(solids.radii), np.array(solids.tapers)
    kinds = np.array(solids.kinds)
    axes = frames * radii[:, None, :]
    ball = _silhouette(axes, centres, camera)
    cone = kinds == CONE
    if cone.any():
        start = axes[cone].copy()
        start[:, :, 1] = 0.0
        ends = _silhouette(start, centres[cone], camera)
        tips = _silhouette(start * (1 + taper[cone])[:, None, None], centres[cone] + axes[cone][:, :, 1], camera)
        both = np.concatenate((np.minimum(ends[:, :2], tips[:, :2]), np.maximum(ends[:, 2:], tips[:, 2:])), axis=1)
        dead = (ends[:, 2] < ends[:, 0]) | (tips[:, 2] < tips[:, 0])
        both[dead] = (0, 0, -1, -1)
        ball[cone] = both
    for i, corners in solids.corners.items():
        depth = camera.to_camera(corners)[:, 2]
        if depth.min() <= NEAR:
            ball[i] = (0, 0, -1, -1)
        else:
            pixels = camera.project(corners)
            ball[i] = (*pixels.min(axis=0), *pixels.max(axis=0))
    width, height = camera.size_wh
    low = np.floor(np.clip(ball[:, :2], 0, (width, height)))
    high = np.ceil(np.clip(ball[:, 2:], 0, (width, height)))
    return np.concatenate((low, high), axis=1).astype(np.int32)


def _silhouette(axes: Array, centres: Array, camera: Camera) -> Array:
    """Bound the projections of ellipsoids, (P, 4) px, by their dual conics; inverted where one comes too near."""
    dual = axes @ axes.transpose(0, 2, 1) - centres[:, :, None] * centres[:, None, :]
    depth_reach = np.sqrt((axes[:, 2, :] ** 2).sum(axis=1))
    bad = centres[:, 2] - depth_reach <= NEAR
    low_high = []
    for row, centre in enumerate(camera.centre_xy):
        d33 = np.where(bad, -1.0, dual[:, 2, 2])
        middle = dual[:, row, 2] / d33
        half = np.sqrt(np.maximum(middle**2 - dual[:, row, row] / d33, 0.0))
        low_high.append((camera.focal_px * (middle - half) + centre, camera.focal_px * (middle + half) + centre))
    (x0, x1), (y0, y1) = low_high
    boxes = np.column_stack((x0, y0, x1, y1))
    boxes[bad] = (0, 0, -1, -1)
    return boxes


@dataclass(frozen=True)
class _RayPolynomials:
    """The root and the clip of every solid over all columns and rows, so that a solid's box needs sums only.

    The front is sqrt(cross·x + disc_x + disc_y) + root_x + root_y.
    """

    xs: NDArray[np.float32]
    """(W,) first component of the rays."""
    cross: NDArray[np.float32]
    """(P, H)."""
    disc_x: NDArray[np.float32]
    """(P, W); all of these are NaN where the camera is inside the quadric, c <= 0."""
    disc_y: NDArray[np.float32]
    root_x: NDArray[np.float32]
    root_y: NDArray[np.float32]
    axial_x: NDArray[np.float32]
    axial_y: NDArray[np.float32]
    axial_w: list[float]

    @classmethod
    def of(
        cls, quadric: Array, offset: Array, axial: Array, xs: NDArray[np.float32], ys: NDArray[np.float32]
    ) -> _RayPolynomials:
        a, b = quadric[:, :, :3], quadric[:, :, 3]
        c = np.where(offset > 0, offset, np.nan)[:, None, None]
        disc = ((b[:, :, None] * b[:, None, :] - c * a) / c**2).astype(np.float32)[..., None]
        root = (-b / c[:, :, 0]).astype(np.float32)[..., None]
        line = axial.astype(np.float32)[..., None]
        return cls(
            xs, cross=2 * disc[:, 0, 1] * ys, disc_x=(disc[:, 0, 0] * xs + 2 * disc[:, 0, 2]) * xs,
            disc_y=(disc[:, 1, 1] * ys + 2 * disc[:, 1, 2]) * ys + disc[:, 2, 2], root_x=root[:, 0] * xs,
            root_y=root[:, 1] * ys + root[:, 2], axial_x=line[:, 0] * xs, axial_y=line[:, 1] * ys + line[:, 2],
            axial_w=axial[:, 3].tolist(),
        )  # fmt: skip

    def front(self, i: int, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Return the inverse depth of the front of solid `i` in a box; NaN where the ray misses."""
        near = self.cross[i, rows, None] * self.xs[columns]
        near += self.disc_x[i, columns]
        near += self.disc_y[i, rows, None]
        np.sqrt(near, out=near)
        near += self.root_x[i, columns]
        near += self.root_y[i, rows, None]
        return near

    def clip(self, hit: NDArray[np.bool_], near: NDArray[np.float32], i: int, rows: slice, columns: slice) -> None:
        """Keep of a cone what lies between its ends: 0 <= y_local <= 1, multiplied by the inverse depth."""
        along = near * np.float32(self.axial_w[i])
        along += self.axial_x[i, columns]
        along += self.axial_y[i, rows, None]
        hit &= along >= 0
        hit &= along <= near


def _polygon(
    camera: Camera, corners: Array, quadric: Array, x: NDArray[np.float32], y: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return a polygon's inverse depth over columns x (w,) and rows y (h, 1), which is linear; 0 outside its edges.

    A ray passes inside an edge if it lies on the polygon's side of the plane through the camera and the edge.
    """
    normal = quadric[:, 3]
    seen = camera.to_camera(corners)
    plane = float(normal @ seen[0])
    if plane >= 0:  # it shows its back
        return np.zeros((len(y), len(x)), np.float32)
    n = (normal / plane).astype(np.float32)
    near = np.asarray(n[0] * x + (n[1] * y + n[2]))
    middle = seen.mean(axis=0)
    for edge in np.cross(seen, np.roll(seen, -1, axis=0)):
        e = (edge * np.sign(edge @ middle)).astype(np.float32)
        near[e[0] * x + (e[1] * y + e[2]) < 0] = 0
    return near
