"""How people move: walking round a loop, or standing and moving their arms; smooth in time, feet on the ground."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from mdpose_edge.synth.body import Build, Figure, Limb, Pose, stand
from mdpose_edge.synth.poses import sample_pose
from mdpose_edge.synth.solids import Array, sign

STEP_REACH = 24.0
"""Swing of a leg to either side at WALK_SPEED, degrees."""
WALK_SPEED = 1.2
"""m/s, of an adult."""
STRIDE_PER_HEIGHT = 0.77
"""Two steps, as a share of stature: 2 · 2 · leg · sin(STEP_REACH), so that the foot on the ground stays where it is."""
SOFT_STEP_S = (-0.08, -0.04, 0.0, 0.04, 0.08)
"""The pelvis is as high as it is on average at these times around: weight passes from foot to foot without a jolt."""
GESTURE_S = (0.9, 2.2)
"""How long a standing person takes from one pose to the next, s."""
ARC_STEPS = 512


@dataclass(frozen=True)
class Moment:
    """Where somebody is, and how, at one time."""

    pose: Pose
    place: tuple[float, float]
    """x, z on the ground, m."""
    yaw: float
    """Heading, degrees; 0 looks along z."""


@dataclass(frozen=True)
class Walk:
    """Walking round an ellipse at one speed, arms and legs in step with the distance gone."""

    build: Build
    centre: tuple[float, float]
    """x, z of the ellipse, m."""
    radii: tuple[float, float]
    speed: float
    """m/s; negative goes the other way round."""
    start: float
    """Where on the ellipse at time 0, as a share of its length."""
    style: Pose
    """What spine, head and elbows do besides walking."""
    curve: Array
    """(ARC_STEPS + 1, 2): length gone and angle, along the ellipse."""

    def at(self, time_s: float) -> Moment:
        """Return the moment at a time."""
        gone = self.start * self.curve[-1, 0] + abs(self.speed) * time_s
        angle = float(np.interp(gone % self.curve[-1, 0], self.curve[:, 0], self.curve[:, 1]))
        way = math.copysign(1.0, self.speed)
        x = self.centre[0] + self.radii[0] * math.cos(angle)
        z = self.centre[1] + way * self.radii[1] * math.sin(angle)
        dx, dz = -self.radii[0] * math.sin(angle), way * self.radii[1] * math.cos(angle)
        phase = 2 * math.pi * gone / (STRIDE_PER_HEIGHT * self.build.height * self._vigour())
        return Moment(self._pose(phase), (x, z), math.degrees(math.atan2(dx, dz)))

    def _vigour(self) -> float:
        """Return the length of a step relative to that at WALK_SPEED: it grows with the root of the speed."""
        return min(1.25, math.sqrt(abs(self.speed) * 1.7 / (WALK_SPEED * self.build.height)))

    def _pose(self, phase: float) -> Pose:
        reach, style = STEP_REACH * self._vigour(), self.style

        def leg(shift: float) -> Limb:
            lifted = (0.5 + 0.5 * math.cos(phase + shift)) ** 2
            # The third harmonic makes the way back even, so that the foot on the ground does not slide.
            swing = 0.9 * (math.sin(phase + shift) - math.sin(3 * (phase + shift)) / 9)
            return Limb(3 + reach * swing, 2, -4, 5 + 52 * lifted)

        def arm(own: Limb, shift: float) -> Limb:
            swing = math.sin(phase + shift)
            return Limb(-0.9 * reach * swing, own.abduct, own.twist, own.bend + 8 * (1 - swing))

        sway = math.sin(phase)
        return replace(
            style, lean=2.5, tilt=3.0 * math.cos(phase), lift=0.0,
            arms=(arm(style.arms[0], 0.0), arm(style.arms[1], math.pi)), legs=(leg(0.0), leg(math.pi)),
            spine=(style.spine[0], style.spine[1] + 5 * sway, style.spine[2] - 2 * math.cos(phase)),
            head=(style.head[0], style.head[1] - 4 * sway, style.head[2]),
        )  # fmt: skip


@dataclass(frozen=True)
class Stand:
    """Standing in one place and going from pose to pose, each begun and ended at rest."""

    place: tuple[float, float]
    yaw: float
    poses: tuple[Pose, ...]
    times: tuple[float, ...]
    """When each pose is reached, s; the first is 0."""

    def at(self, time_s: float) -> Moment:
        """Return the moment at a time."""
        time_s = max(0.0, time_s)
        after = int(np.searchsorted(self.times, time_s, side="right"))
        if after >= len(self.times):
            return Moment(self.poses[-1], self.place, self.yaw)
        begin, end = self.times[after - 1], self.times[after]
        share = (time_s - begin) / (end - begin)
        # The minimum-jerk curve: how hands go from place to place (Flash and Hogan, J. Neuroscience 5, 1985).
        eased = share**3 * (10 - 15 * share + 6 * share**2)
        sway = 1.5 * math.sin(2 * math.pi * 0.3 * time_s)
        pose = _mix(self.poses[after - 1], self.poses[after], eased)
        return Moment(replace(pose, tilt=pose.tilt + sway), self.place, self.yaw + 2 * sway)


Motion = Walk | Stand


def sample_walk(
    rng: np.random.Generator, build: Build, centre: tuple[float, float], radii: tuple[float, float]
) -> Walk:
    """Draw how somebody walks round an ellipse."""
    style = sample_pose(rng, "walk")
    left, right = (Limb(0, rng.uniform(5, 14), rng.uniform(0, 25), rng.uniform(8, 35)) for _ in range(2))
    spine = (rng.uniform(0, 10), 0.0, 0.0)
    head = (rng.uniform(-8, 14), rng.uniform(-20, 20), 0.0)
    style = replace(style, arms=(left, right), spine=spine, head=head)
    speed = WALK_SPEED * rng.uniform(0.65, 1.25) * build.height / 1.7
    angles = np.linspace(0, 2 * math.pi, ARC_STEPS + 1)
    points = np.column_stack((radii[0] * np.cos(angles), radii[1] * np.sin(angles)))
    lengths = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))))
    return Walk(build, centre, radii, sign(rng) * speed, rng.random(), style, np.column_stack((lengths, angles)))


def sample_stand(rng: np.random.Generator, place: tuple[float, float], yaw: float, seconds: float) -> Stand:
    """Draw what somebody does with arms and head while standing, for so long."""
    first = sample_pose(rng, "stand")
    poses, times = [replace(first, tilt=0.3 * first.tilt)], [0.0]  # nobody stands askew for long
    while times[-1] < seconds:
        following = sample_pose(rng, "stand")
        poses.append(replace(following, legs=poses[0].legs, lean=poses[0].lean, tilt=poses[0].tilt))
        times.append(times[-1] + rng.uniform(*GESTURE_S))
    return Stand(place, yaw, tuple(poses), tuple(times))


def figure_at(build: Build, motion: Motion, time_s: float) -> tuple[Figure, Array]:
    """Pose a body at a time.

    Returns:
        The figure over the world's origin, and where that goes, (3,) m.
    """
    moment = motion.at(time_s)
    figure = stand(build, moment.pose, moment.yaw)
    around = [stand(build, (there := motion.at(time_s + shift)).pose, there.yaw) for shift in SOFT_STEP_S]
    rise = float(np.mean([other.pelvis[1] for other in around]) - figure.pelvis[1])
    figure = stand(build, replace(moment.pose, lift=moment.pose.lift + rise), moment.yaw)
    return figure, np.array((moment.place[0], 0.0, moment.place[1]))


def _mix(a: Pose, b: Pose, share: float) -> Pose:
    def number(x: float, y: float) -> float:
        return x + share * (y - x)

    def limb(x: Limb, y: Limb) -> Limb:
        return Limb(
            number(x.flex, y.flex), number(x.abduct, y.abduct), number(x.twist, y.twist), number(x.bend, y.bend)
        )

    def three(x: tuple[float, float, float], y: tuple[float, float, float]) -> tuple[float, float, float]:
        return number(x[0], y[0]), number(x[1], y[1]), number(x[2], y[2])

    arms = limb(a.arms[0], b.arms[0]), limb(a.arms[1], b.arms[1])
    legs = limb(a.legs[0], b.legs[0]), limb(a.legs[1], b.legs[1])
    return Pose(
        a.family, number(a.lean, b.lean), number(a.tilt, b.tilt), three(a.spine, b.spine), three(a.head, b.head),
        arms, legs, number(a.lift, b.lift),
    )  # fmt: skip
