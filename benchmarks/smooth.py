"""How much `--smooth` steadies keypoints, and how late it makes them, on synth video.

    mdpose-edge synth video VIDEO --seconds 20 --people 4
    python benchmarks/smooth.py VIDEO [--json FILE]

The poses are the truth with Laplace noise of a sigma that is told to the filter. Beside it stand raw poses, a moving
average and a one-euro filter (Casiez et al., CHI 2012), each at several settings; neither of them knows sigma.

- jitter: root mean square of the second difference of the error, px: what the eye sees as trembling.
- lag: the shift in time at which the output fits the truth best, ms.
- error: root mean square, px.

The question is which has less jitter where the lag is the same; the last lines answer it, between settings by
interpolation, raw poses being the weakest setting of both.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from track import load_truth, noisy_poses

from mdpose_edge.poses import Poses
from mdpose_edge.spec import COCO_KEYPOINTS
from mdpose_edge.track import kalman
from mdpose_edge.track.tracker import PoseTracker

Array = NDArray[np.float64]
Filter = Callable[[list[Poses], list[float]], Array]
"""From one person's poses and their times to (F, K, 2)."""

STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Of kalman.ACCELERATION, the default among them by its own value."""
SHIFTS_S = np.linspace(-0.05, 0.25, 121)


def raw(poses: list[Poses], times: list[float]) -> Array:
    """Give the poses as they are."""
    return np.array([p.keypoints_xy[0] for p in poses], float)


def moving_average(length: int) -> Filter:
    """Average the last so many frames."""

    def run(poses: list[Poses], times: list[float]) -> Array:
        points = raw(poses, times)
        return np.array([points[max(0, i - length + 1) : i + 1].mean(axis=0) for i in range(len(points))])

    return run


def one_euro(min_cutoff: float, beta: float) -> Filter:
    """Low-pass with a cut-off that grows with the speed."""

    def alpha(cutoff: Any, dt: float) -> Any:
        tau = 1 / (2 * math.pi * cutoff)
        return 1 / (1 + tau / dt)

    def run(poses: list[Poses], times: list[float]) -> Array:
        points = raw(poses, times)
        out, speed = [points[0]], np.zeros_like(points[0])
        for i in range(1, len(points)):
            dt = times[i] - times[i - 1]
            speed = speed + alpha(1.0, dt) * ((points[i] - points[i - 1]) / dt - speed)
            share = alpha(min_cutoff + beta * np.abs(speed), dt)
            out.append(out[-1] + share * (points[i] - out[-1]))
        return np.array(out)

    return run


def kalman_filter(strength: float) -> Filter:
    """Run the tracker as `--smooth` does, with another strength of acceleration."""

    def run(poses: list[Poses], times: list[float]) -> Array:
        before, kalman.ACCELERATION = kalman.ACCELERATION, strength
        try:
            tracker = PoseTracker(COCO_KEYPOINTS.sigmas, smooth=True)
            return np.array([tracker.update(p, t)[0].keypoints_xy[0] for p, t in zip(poses, times, strict=True)], float)
        finally:
            kalman.ACCELERATION = before

    return run


def measure(output: Array, truth: Array, times: list[float]) -> dict[str, float]:
    """Give jitter (px), lag (ms) and error (px); the first half second is left to the filters to settle."""
    start = int(np.searchsorted(times, times[0] + 0.5))
    error = (output - truth)[start:]
    jitter = float(np.sqrt((np.diff(error, 2, axis=0) ** 2).mean()))
    flat, clock = truth.reshape(len(truth), -1), np.array(times)
    fits = []
    for shift in SHIFTS_S:
        moved = np.array([np.interp(clock - shift, clock, column) for column in flat.T]).T
        fits.append(float(((moved - output.reshape(len(output), -1))[start:] ** 2).mean()))
    return {
        "jitter": jitter,
        "lag_ms": 1e3 * float(SHIFTS_S[int(np.argmin(fits))]),
        "error": float(np.sqrt((error**2).mean())),
    }


def people_of(folder: Path, seed: int) -> list[tuple[list[Poses], Array, list[float]]]:
    """Give each person's noisy poses, true keypoints and times, over the longest stretch in which all are in view."""
    frames, times, _ = load_truth(folder)
    rng = np.random.default_rng(seed)
    found = []
    for person in sorted({int(i) for frame in frames for i in frame.ids}):
        rows = [np.flatnonzero(frame.ids == person) for frame in frames]
        whole = [len(r) == 1 and bool((f.keypoints[r[0], :, 2] > 0).all()) for f, r in zip(frames, rows, strict=True)]
        first, stop = longest_run(whole)
        if stop - first < 60:
            continue
        alone = [type(f)(f.ids[r], f.keypoints[r], f.areas[r]) for f, r in zip(frames, rows, strict=True)][first:stop]
        truth = np.array([f.keypoints[0, :, :2] for f in alone])
        found.append((list(noisy_poses(alone, rng, flaws=False)), truth, times[first:stop]))
    return found


def longest_run(whole: list[bool]) -> tuple[int, int]:
    """Give begin and end of the longest stretch of True."""
    best, begin = (0, 0), 0
    for i, good in enumerate([*whole, False]):
        if not good:
            best = max(best, (begin, i), key=lambda span: span[1] - span[0])
            begin = i + 1
    return best


def main() -> None:
    """Measure every filter and setting, and compare at equal lag."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    people = people_of(options.video, options.seed)
    families: dict[str, dict[str, Filter]] = {
        "raw": {"": raw},
        "moving average": {f"{n} frames": moving_average(n) for n in (2, 3, 4, 6, 8)},
        "one euro": {
            f"{c:g} Hz, beta {b:g}": one_euro(c, b) for b in (0.0, 0.02, 0.1) for c in (0.5, 1.0, 2.0, 4.0, 8.0)
        },
        "--smooth": {f"acceleration {s:g}": kalman_filter(s) for s in STRENGTHS},
    }
    rows = []
    print(
        f"{len(people)} people, {sum(len(t) for _, _, t in people)} frames\n"
        f"{'':36}{'jitter':>8}{'lag ms':>8}{'error':>8}"
    )
    for family, settings in families.items():
        for setting, smooth in settings.items():
            each = [measure(smooth(poses, times), truth, times) for poses, truth, times in people]
            mean = {key: float(np.mean([m[key] for m in each])) for key in each[0]}
            default = family == "--smooth" and setting == f"acceleration {kalman.ACCELERATION:g}"
            rows.append({"family": family, "setting": setting, "default": default, **mean})
            mark = "  <- as shipped" if default else ""
            print(f"{family:16}{setting:20}{mean['jitter']:8.2f}{mean['lag_ms']:8.1f}{mean['error']:8.2f}{mark}")
    ours = next(row for row in rows if row["default"])
    answers = {}
    for family in ("moving average", "one euro"):
        others = sorted((r["lag_ms"], r["jitter"]) for r in rows if r["family"] in (family, "raw"))
        best: list[tuple[float, float]] = []
        for lag, jitter in others:  # the least jitter that any setting has at this lag or a smaller one
            best.append((lag, min(jitter, best[-1][1]) if best else jitter))
        answers[family] = float(np.interp(ours["lag_ms"], *zip(*best, strict=True)))
        print(f"at a lag of {ours['lag_ms']:.1f} ms: {ours['jitter']:.2f} px, {family} {answers[family]:.2f} px")
    if options.json:
        record = {"settings": rows, "jitter_at_equal_lag": answers}
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
