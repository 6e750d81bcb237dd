"""A skeleton with human proportions and joint angles, posed by forward kinematics.

The body frame is x to the person's left, y up, z forward; every bone hangs along -y of its own frame at rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mdpose_edge.synth.solids import Array, rot_x, rot_y, rot_z

SIDES = (1, -1)
"""Left, right: the sign of x."""


@dataclass(frozen=True)
class Limb:
    """Joint angles of an arm or a leg, in degrees; the same numbers mean the mirrored pose on the other side."""

    flex: float
    """Forward swing of the upper bone."""
    abduct: float
    """Outward swing of the upper bone."""
    twist: float
    """Inward turn of the upper bone about its axis."""
    bend: float
    """Flexion of the elbow or the knee."""


@dataclass(frozen=True)
class Pose:
    """All joint angles, in degrees."""

    family: str
    lean: float
    """Forward pitch of the pelvis."""
    tilt: float
    """Sideways roll of the pelvis."""
    spine: tuple[float, float, float]
    """Forward pitch, yaw to the left and roll of the chest on the pelvis."""
    head: tuple[float, float, float]
    """The same, of the head on the chest."""
    arms: tuple[Limb, Limb]
    legs: tuple[Limb, Limb]
    lift: float = 0.0
    """Height of the lowest point above the ground, in m."""


@dataclass(frozen=True)
class Build:
    """Proportions of one person; bone lengths as shares of stature after Drillis and Contini (1966)."""

    height: float
    """Stature, m."""
    girth: float
    """Factor on all thicknesses."""
    shoulders: float
    """Factor on the width of the shoulders."""
    hips: float
    """Factor on the width of the hips."""
    head: float
    """Factor on the head: larger in children."""


def sample_build(rng: np.random.Generator) -> Build:
    """Draw an adult, or a child one time in seven."""
    girth = min(1.4, max(0.8, rng.normal(1.0, 0.12)))
    broad = rng.uniform(0.9, 1.08)
    if rng.random() < 1 / 7:
        height = rng.uniform(1.0, 1.45)
        return Build(height, girth, 0.95 * broad, 0.95, 1.0 + 0.45 * (1.6 - height))
    return Build(min(1.95, max(1.48, rng.normal(1.7, 0.09))), girth, broad, rng.uniform(0.92, 1.12), 1.0)


@dataclass(frozen=True)
class Figure:
    """A posed body standing over the world's origin."""

    build: Build
    pose: Pose
    pelvis: Array
    pelvis_frame: Array
    chest: Array
    """Centre of the rib cage."""
    chest_frame: Array
    neck: Array
    """Base of the neck."""
    head: Array
    """Centre of the skull."""
    head_frame: Array
    arms: tuple[tuple[Array, ...], tuple[Array, ...]]
    """Left, right: shoulder, elbow, wrist (3,) each."""
    arm_frames: tuple[tuple[Array, ...], tuple[Array, ...]]
    """Left, right: upper arm, forearm (3, 3) each."""
    legs: tuple[tuple[Array, ...], tuple[Array, ...]]
    leg_frames: tuple[tuple[Array, ...], tuple[Array, ...]]
    """Left, right: thigh, shin, foot (3, 3) each."""

    @property
    def head_unit(self) -> float:
        """Size of the head relative to that of a person of 1.7 m."""
        return self.build.height / 1.7 * self.build.head

    def face_point(self, x: float, y: float, z: float) -> Array:
        """Return the place of a point of the head, in head units: metres on a person of 1.7 m."""
        return self.head + self.head_frame @ (np.array((x, y, z)) * self.head_unit)

    def keypoints(self) -> Array:
        """Return the 17 COCO keypoints, (17, 3) world m."""
        face = [self.face_point(*place) for place in FACE_PLACES]
        pairs = [side[i] for limbs in (self.arms, self.legs) for i in range(3) for side in limbs]
        return np.array(face + pairs)


EYE = (0.031, 0.008, 0.091)
NOSE = (0.0, -0.028, 0.112)
EAR = (0.081, -0.012, -0.008)
FACE_PLACES = (NOSE, EYE, (-EYE[0], EYE[1], EYE[2]), EAR, (-EAR[0], EAR[1], EAR[2]))
"""Nose, left and right eye, left and right ear in head units; the head looks along z, its left is +x."""


def stand(build: Build, pose: Pose, yaw: float) -> Figure:
    """Pose a body so that its lowest point is `pose.lift` above the ground at the world's origin.

    Args:
        build: proportions.
        pose: joint angles.
        yaw: heading in degrees; 0 looks along z.
    """
    h = build.height
    pelvis_frame = rot_y(yaw) @ rot_x(pose.lean) @ rot_z(pose.tilt)
    chest_frame = pelvis_frame @ rot_y(pose.spine[1]) @ rot_x(pose.spine[0]) @ rot_z(pose.spine[2])
    head_frame = chest_frame @ rot_y(pose.head[1]) @ rot_x(pose.head[0]) @ rot_z(pose.head[2])
    pelvis = np.zeros(3)
    waist = pelvis + pelvis_frame @ np.array((0.0, 0.085 * h, 0.0))
    chest = waist + chest_frame @ np.array((0.0, 0.085 * h, 0.0))
    neck = waist + chest_frame @ np.array((0.0, 0.215 * h, -0.005 * h))
    skull = 0.062 * h + 0.068 * h * build.head
    head = neck + 0.5 * skull * chest_frame[:, 1] + head_frame @ np.array((0.0, 0.5 * skull, 0.018 * h))
    arms, arm_frames = zip(*(_arm(build, pose.arms[i], SIDES[i], waist, chest_frame) for i in (0, 1)), strict=True)
    legs, leg_frames = zip(*(_leg(build, pose.legs[i], SIDES[i], pelvis, pelvis_frame) for i in (0, 1)), strict=True)
    lowest = min(
        min(float(leg[2][1]) for leg in legs) - 0.038 * h, min(float(leg[1][1]) for leg in legs) - 0.035 * h,
        float(pelvis[1]) - 0.065 * h, float(chest[1]) - 0.07 * h, min(float(arm[2][1]) for arm in arms) - 0.02 * h,
        float(head[1]) - 0.06 * h,
    )  # fmt: skip
    up = np.array((0.0, pose.lift - lowest, 0.0))
    return Figure(
        build, pose, pelvis + up, pelvis_frame, chest + up, chest_frame, neck + up, head + up, head_frame,
        tuple(tuple(p + up for p in arm) for arm in arms), arm_frames,  # type: ignore[arg-type]
        tuple(tuple(p + up for p in leg) for leg in legs), leg_frames,  # type: ignore[arg-type]
    )  # fmt: skip


def _arm(
    build: Build, limb: Limb, side: int, waist: Array, chest_frame: Array
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    h = build.height
    raised = max(0.0, (max(limb.flex, limb.abduct) - 70.0) / 110.0)
    place = (side * (0.106 - 0.012 * raised) * h * build.shoulders, (0.195 + 0.025 * raised) * h, -0.004 * h)
    shoulder = waist + chest_frame @ np.array(place)
    upper = chest_frame @ rot_z(side * limb.abduct) @ rot_x(-limb.flex) @ rot_y(-side * limb.twist)
    fore = upper @ rot_x(-limb.bend)
    elbow = shoulder - 0.172 * h * upper[:, 1]
    wrist = elbow - 0.148 * h * fore[:, 1]
    return (shoulder, elbow, wrist), (upper, fore)


def _leg(
    build: Build, limb: Limb, side: int, pelvis: Array, pelvis_frame: Array
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    h = build.height
    hip = pelvis + pelvis_frame @ np.array((side * 0.052 * h * build.hips, -0.008 * h, 0.0))
    thigh = pelvis_frame @ rot_z(side * limb.abduct) @ rot_x(-limb.flex) @ rot_y(-side * limb.twist)
    shin = thigh @ rot_x(limb.bend)
    knee = hip - 0.24 * h * thigh[:, 1]
    ankle = knee - 0.238 * h * shin[:, 1]
    foot = shin @ rot_y(side * 8.0) @ rot_x(min(25.0, 0.25 * limb.bend))
    return (hip, knee, ankle), (thigh, shin, foot)
