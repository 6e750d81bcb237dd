"""Joint angles of what people do: standing, walking, sitting, reaching, lying."""

from __future__ import annotations

import math

import numpy as np

from mdpose_edge.synth.body import Limb, Pose
from mdpose_edge.synth.solids import pick, sign

FAMILIES = {
    "stand": 0.34, "walk": 0.2, "run": 0.1, "sit": 0.12, "crouch": 0.05, "bend": 0.06, "lunge": 0.06, "kick": 0.03,
    "lie": 0.04,
}  # fmt: skip
"""How often each kind of pose is drawn."""

ARM_STYLES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "rest": ((-12, 18), (5, 20), (-5, 35), (4, 40)),
    "akimbo": ((-25, -5), (32, 48), (50, 75), (80, 105)),
    "up": ((120, 172), (0, 30), (-20, 20), (0, 70)),
    "aside": ((-10, 20), (45, 115), (-30, 30), (0, 60)),
    "reach": ((40, 100), (-5, 30), (-10, 30), (0, 60)),
    "fold": ((22, 42), (6, 18), (55, 78), (85, 115)),
    "phone": ((15, 60), (10, 40), (0, 30), (115, 145)),
    "carry": ((-5, 20), (5, 15), (0, 25), (75, 100)),
}
"""Ranges of flexion, abduction, twist and elbow bend, in degrees."""
ARM_WEIGHTS = (0.34, 0.08, 0.12, 0.12, 0.13, 0.04, 0.08, 0.09)
"""How often each style is drawn."""


def sample_pose(rng: np.random.Generator, family: str | None = None) -> Pose:
    """Draw a pose, of one kind if `family` names it."""
    if family is None:
        family = list(FAMILIES)[pick(rng, list(FAMILIES.values()))]
    lean, legs, lift = _lower_body(rng, family)
    spine = (rng.normal(6, 8) + (15 if family in ("sit", "crouch", "run") else 0), rng.normal(0, 10), rng.normal(0, 5))
    arms = _arms(rng, family)
    head = (rng.normal(0, 13) - 0.5 * lean * (family == "bend"), rng.normal(0, 24), rng.normal(0, 7))
    head = (min(40.0, max(-45.0, head[0])), min(65.0, max(-65.0, head[1])), head[2])
    return Pose(family, lean, float(rng.normal(0, 3)), spine, head, arms, legs, lift)


def _arms(rng: np.random.Generator, family: str) -> tuple[Limb, Limb]:
    if family in ("walk", "run") and rng.random() < 0.8:
        reach, bend = (22, (10, 50)) if family == "walk" else (45, (70, 110))
        swing = rng.uniform(-1, 1)
        left, right = (
            Limb(sign * swing * reach, rng.uniform(5, 18), rng.uniform(0, 30), rng.uniform(*bend)) for sign in (1, -1)
        )
        return left, right
    first = pick(rng, ARM_WEIGHTS)
    second = first if rng.random() < 0.5 else pick(rng, ARM_WEIGHTS)
    styles = list(ARM_STYLES.values())
    left, right = (Limb(*(float(rng.uniform(*span)) for span in styles[style])) for style in (first, second))
    return left, right


def _lower_body(rng: np.random.Generator, family: str) -> tuple[float, tuple[Limb, Limb], float]:
    """Draw the pelvis pitch, both legs and the lift."""

    def leg(flex: tuple[float, float], abduct: tuple[float, float], bend: tuple[float, float]) -> Limb:
        return Limb(rng.uniform(*flex), rng.uniform(*abduct), rng.uniform(-18, 4), rng.uniform(*bend))

    if family == "walk" or family == "run":
        return _stride(rng, family)
    if family == "sit":
        lean = rng.uniform(-12, 8)
        return lean, (leg((75, 98), (0, 22), (60, 105)), leg((75, 98), (0, 22), (60, 105))), 0.0
    if family == "crouch":
        return rng.uniform(5, 30), (leg((85, 125), (5, 35), (95, 140)), leg((85, 125), (5, 35), (95, 140))), 0.0
    if family == "bend":
        lean = rng.uniform(30, 85)
        near = (lean - 8, lean + 8)
        return lean, (leg(near, (0, 14), (0, 25)), leg(near, (0, 14), (0, 25))), 0.0
    if family == "lunge":
        front, back = leg((40, 85), (0, 15), (40, 90)), leg((-35, -10), (0, 15), (10, 45))
        legs = (front, back) if rng.random() < 0.5 else (back, front)
        return rng.uniform(0, 20), legs, 0.0
    if family == "kick":
        up, down = leg((35, 95), (0, 30), (0, 60)), leg((-8, 12), (0, 10), (0, 25))
        legs = (up, down) if rng.random() < 0.5 else (down, up)
        return rng.uniform(-15, 10), legs, 0.0
    if family == "lie":
        lean = sign(rng) * rng.uniform(75, 95)
        return lean, (leg((-5, 45), (0, 20), (0, 80)), leg((-5, 45), (0, 20), (0, 80))), 0.0
    return rng.uniform(-4, 6), (leg((-8, 12), (0, 13), (0, 14)), leg((-8, 12), (0, 13), (0, 14))), 0.0


def _stride(rng: np.random.Generator, family: str) -> tuple[float, tuple[Limb, Limb], float]:
    running = family == "run"
    reach, knee = (48, 75) if running else (24, 42)
    phase = rng.uniform(0, 2 * math.pi)
    legs = []
    for shift in (0.0, math.pi):
        flex = reach * math.sin(phase + shift) + (12 if running else 3)
        bend = 6 + knee * max(0.0, math.cos(phase + shift)) + (15 if running else 0)
        legs.append(Limb(flex, rng.uniform(0, 6), rng.uniform(-8, 2), bend))
    lift = rng.uniform(0, 0.2) if running and rng.random() < 0.5 else 0.0
    return rng.uniform(0, 14 if running else 5), (legs[0], legs[1]), lift
