"""What distribution-aware 3-D pose is to learn of an image: which cells speak for whom, and what they are to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.families.base import People
from mdpose_edge.families.das.heads import Constants, constants_of
from mdpose_edge.spec import ModelSpec

Center = Literal["root", "box"]
"""What cells are assigned by: the pelvis, or the middle of the box, which the paper compares it with."""
RADIUS = 1.5
"""A cell speaks for a person whose root is nearer than so many cells along both axes."""
CENTERNESS_DECAY = 2.5
"""Centerness is exp(-2.5 d / (1.414 RADIUS)) at a distance of d cells from the root (FCOS3D, the authors' code)."""
DIAGONAL = 1.414
BACKGROUND, POSITIVE, IGNORED = 0, 1, 2
"""`labels`: of cells that speak for nobody, for somebody, and that may or may not."""
NEAREST = 0.1
"""m: a joint or root nearer to the camera's plane is not projected."""


@dataclass(frozen=True)
class _Known:
    """What is known of P people."""

    joints: NDArray[np.float64]
    """(P, K, 2) px of the input; read only where known."""
    known: NDArray[np.bool_]
    """(P, K)"""
    centers: NDArray[np.float64]
    """(P, 2) px; NaN where it is not known."""
    solid: NDArray[np.bool_]
    """(P,): whether depths are known."""
    depth: NDArray[np.float64]
    """(P,) as `Constants.depth` has it; 0 where it is not known."""
    dz: NDArray[np.float64]
    """(P, K) likewise, over `z_norm`."""


def encode_people(people: People, spec: ModelSpec, center: Center = "root") -> dict[str, NDArray[Any]]:
    """Return the targets of one image of P people.

    `labels` (cells of all levels,): BACKGROUND, POSITIVE or IGNORED. Of each of M positive cells `cell`, its index
    among all; `centerness`; `depth` of the root and `solid`, whether it is known; `uv` (M, K, 2) from the cell's centre
    in its level's cells, `dz` (M, K), and `known` (M, K); `weight`, which sums to 1 over a person's cells; `positive`,
    false where a row is padding. `person_mask` (P,): who has such a cell.
    """
    constants = constants_of(spec)
    of = _known(people, constants, center)
    person_of, cell, distance = _assigned(of, spec, constants)
    points, strides = _cells(spec, constants)
    labels = np.zeros(len(points), np.uint8)
    labels[_inside(points, people.boxes_xyxy[np.isnan(of.centers[:, 0])])] = IGNORED
    labels[cell] = POSITIVE
    known = of.known[person_of]
    uv = (of.joints[person_of] - points[cell][:, None]) / strides[cell][:, None, None]
    counts = np.bincount(person_of, minlength=len(of.solid))
    values: dict[str, NDArray[Any]] = {
        "centerness": np.exp(-CENTERNESS_DECAY * distance / (DIAGONAL * RADIUS)),
        "depth": of.depth[person_of],
        "uv": np.where(known[..., None], uv, 0.0),
        "dz": np.where(known & of.solid[person_of][:, None], of.dz[person_of], 0.0),
        "weight": 1.0 / np.maximum(counts, 1)[person_of],
    }
    return {
        **{name: array.astype(np.float32) for name, array in values.items()},
        "labels": labels,
        "cell": cell,
        "solid": of.solid[person_of],
        "known": known,
        "positive": np.ones(len(cell), np.bool_),
        "person_mask": counts > 0,
    }


def _known(people: People, constants: Constants, center: Center) -> _Known:
    joints, known = people.keypoints_xy.astype(np.float64), people.labelled.copy()
    root = list(constants.root)
    rooted: NDArray[np.bool_] = np.logical_and.reduce(known[:, root], axis=1)
    roots = np.where(rooted[:, None], joints[:, root].mean(axis=1), np.nan)
    count = len(joints)
    solid, depth, dz = np.zeros(count, np.bool_), np.zeros(count), np.zeros(joints.shape[:2])
    for person in range(count if people.keypoints_3d is not None else 0):
        assert people.keypoints_3d is not None and people.cameras is not None
        points, camera = people.keypoints_3d[person].astype(np.float64), people.cameras[person]
        pelvis = points[root].mean(axis=0)
        if not (np.isfinite(points).all() and np.isfinite(camera).all() and pelvis[2] > NEAREST):
            continue
        solid[person], known[person] = True, points[:, 2] > NEAREST
        joints[person][known[person]] = _seen(points[known[person]], camera)
        roots[person] = _seen(pelvis[None], camera)[0]
        depth[person] = _depth(pelvis[2], camera, constants)
        dz[person] = (points[:, 2] - pelvis[2]) / constants.z_norm
    centers = roots if center == "root" else np.where(np.isnan(roots), np.nan, people.centers_xy)
    return _Known(joints, known, centers, solid, depth, dz)


def _seen(points: NDArray[np.float64], camera: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where points (N, 3) m are seen, (N, 2) px."""
    homogeneous = points @ camera.T
    return np.asarray(homogeneous[:, :2] / homogeneous[:, 2:])


def _depth(z: float, camera: NDArray[np.float64], constants: Constants) -> float:
    """Return a root's depth as head tensors have it: over the focal length in input px, whatever the view did."""
    focal = float(np.sqrt(np.abs(np.linalg.det(camera[:2, :2]))))
    over_focal = float(z) / focal * constants.reference_focal
    return float(np.log(over_focal)) if constants.depth == "log" else over_focal


def _assigned(
    of: _Known, spec: ModelSpec, constants: Constants
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the positive cells' people, their indices among all cells, and distances from the root in cells."""
    from_center = np.linalg.norm(of.joints - of.centers[:, None], axis=2)
    farthest = np.where(of.known & np.isfinite(from_center), from_center, 0.0).max(axis=1, initial=0.0)
    people, cells, distances, start, nearest_reach = [], [], [], 0, -1.0
    for level in constants.levels:
        rows, columns = spec.cells(level.stride)
        reach = np.inf if level.reach is None else level.reach
        here = np.flatnonzero((farthest > nearest_reach) & (farthest <= reach) & np.isfinite(of.centers[:, 0]))
        row, column = np.indices((rows, columns)).reshape(2, -1)
        away = np.stack([column, row], axis=1) + 0.5 - of.centers[here][:, None] / level.stride
        distance = np.where((np.abs(away) < RADIUS).all(axis=2), np.linalg.norm(away, axis=2), np.inf)
        if len(here):
            winner = distance.argmin(axis=0)  # the first of equals
            best = distance[winner, np.arange(rows * columns)]
            taken = np.flatnonzero(np.isfinite(best))
            people.append(here[winner[taken]])
            cells.append(taken + start)
            distances.append(best[taken])
        start, nearest_reach = start + rows * columns, reach
    if not people:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    return np.concatenate(people), np.concatenate(cells), np.concatenate(distances)


def _cells(spec: ModelSpec, constants: Constants) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the centres, px, and strides of the cells of all levels."""
    points, strides = [], []
    for level in constants.levels:
        rows, columns = np.indices(spec.cells(level.stride)).reshape(2, -1)
        points.append((np.stack([columns, rows], axis=1) + 0.5) * level.stride)
        strides.append(np.full(len(rows), float(level.stride)))
    return np.concatenate(points), np.concatenate(strides)


def _inside(points: NDArray[np.float64], boxes_xyxy: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Say which points lie in one of the boxes."""
    low, high = boxes_xyxy[:, None, :2], boxes_xyxy[:, None, 2:]
    within: NDArray[np.bool_] = np.logical_and.reduce((points >= low) & (points < high), axis=2)
    inside: NDArray[np.bool_] = np.logical_or.reduce(within, axis=0)
    return inside
