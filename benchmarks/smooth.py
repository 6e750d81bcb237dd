"""How much `--smooth` steadies keypoints, and how late it makes them, on synth video.

    mdpose-edge synth video VIDEO --seconds 20 --people 4
    python -m benchmarks.smooth VIDEO... [--every 2] [--model BUNDLE] [--json FILE]

The poses are the truth with Laplace noise of a sigma that is told to the filter; with --model they are what that model
finds of each person. Beside it stand raw poses, a moving average and a one-euro filter (Casiez et al., CHI 2012), each
at several settings; neither of them knows sigma. --every 2 sees every second frame only: half the frame rate.

- jitter: root mean square of the second difference of the error, px: what the eye sees as trembling.
- lag: the shift in time at which the output fits the truth best, ms.
- error: root mean square, px.

The question is which has less jitter where the lag is the same; the last lines answer it for each video, between
settings by interpolation, raw poses being the weakest setting of both.
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

from benchmarks.track import load_truth, model_poses, noisy_poses, parse_options
from benchmarks.track_metrics import SAME, TruthFrame
from mdpose_edge.poses import Poses
from mdpose_edge.spec import COCO_KEYPOINTS
from mdpose_edge.track import kalman
from mdpose_edge.track.tracker import PoseTracker

Array = NDArray[np.float64]
Filter = Callable[[list[Poses], list[float]], Array]
"""From one person's poses and their times to (F, K, 2)."""

STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Of kalman.ACCELERATION, the default among them by its own value."""
MIN_FRAMES = 60
"""Of a stretch that counts."""
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


def people_of(folder: Path, options: argparse.Namespace) -> list[tuple[list[Poses], Array, list[float]]]:
    """Give each person's poses, true keypoints and times, over the longest stretch in which all keypoints are in view.

    With a model it is the longest in which that finds the person as well.
    """
    frames, times, pictures = load_truth(folder, options.every)
    rng = np.random.default_rng(options.seed)
    seen = None if options.model is None else model_poses(pictures, options.model, options.threads)
    found = []
    for person in sorted({int(i) for frame in frames for i in frame.ids}):
        rows = [np.flatnonzero(frame.ids == person) for frame in frames]
        alone = [type(f)(f.ids[r], f.keypoints[r], f.areas[r]) for f, r in zip(frames, rows, strict=True)]
        whole = [len(one.ids) == 1 and bool((one.keypoints[0, :, 2] > 0).all()) for one in alone]
        theirs: list[Poses | None] = []
        if seen is not None:
            theirs = [their_pose(p, one) if w else None for p, one, w in zip(seen, alone, whole, strict=True)]
        first, stop = longest_run(whole if seen is None else [pose is not None for pose in theirs])
        if stop - first < MIN_FRAMES:
            continue
        truth = np.array([one.keypoints[0, :, :2] for one in alone[first:stop]])
        if seen is None:
            poses = list(noisy_poses(alone[first:stop], rng, flaws=False))
        else:
            poses = [pose for pose in theirs[first:stop] if pose is not None]
        found.append((poses, truth, times[first:stop]))
    return found


def their_pose(poses: Poses, person: TruthFrame) -> Poses | None:
    """Give the pose that is most similar to the one person, where that is similar enough to be theirs."""
    squared = ((poses.keypoints_xy.astype(float) - person.keypoints[0, :, :2]) ** 2).sum(axis=2)
    scale = 2 * person.areas[0] * (2 * np.asarray(COCO_KEYPOINTS.sigmas)) ** 2
    similar = np.exp(-squared / scale).mean(axis=1)
    if not len(similar) or similar.max() < SAME:
        return None
    best = slice(int(similar.argmax()), int(similar.argmax()) + 1)
    return Poses(poses.keypoints_xy[best], poses.scores[best], poses.sigma_xy[best])


def longest_run(whole: list[bool]) -> tuple[int, int]:
    """Give begin and end of the longest stretch of True."""
    best, begin = (0, 0), 0
    for i, good in enumerate([*whole, False]):
        if not good:
            best = max(best, (begin, i), key=lambda span: span[1] - span[0])
            begin = i + 1
    return best


FAMILIES: dict[str, dict[str, Filter]] = {
    "raw": {"": raw},
    "moving average": {f"{n} frames": moving_average(n) for n in (2, 3, 4, 6, 8)},
    "one euro": {f"{c:g} Hz, beta {b:g}": one_euro(c, b) for b in (0.0, 0.02, 0.1) for c in (0.5, 1.0, 2.0, 4.0, 8.0)},
    "--smooth": {f"acceleration {s:g}": kalman_filter(s) for s in STRENGTHS},
}


def measure_video(people: list[tuple[list[Poses], Array, list[float]]]) -> dict[str, Any]:
    """Measure every filter and setting on the people of one video, and compare at equal lag."""
    rows = []
    for family, settings in FAMILIES.items():
        for setting, smooth in settings.items():
            each = [measure(smooth(poses, times), truth, times) for poses, truth, times in people]
            mean = {key: float(np.mean([m[key] for m in each])) for key in each[0]}
            default = family == "--smooth" and setting == f"acceleration {kalman.ACCELERATION:g}"
            rows.append({"family": family, "setting": setting, "default": default, **mean})
    ours = next(row for row in rows if row["default"])
    answers = {}
    for family in ("moving average", "one euro"):
        others = sorted((r["lag_ms"], r["jitter"]) for r in rows if r["family"] in (family, "raw"))
        best: list[tuple[float, float]] = []
        for lag, jitter in others:  # the least jitter that any setting has at this lag or a smaller one
            best.append((lag, min(jitter, best[-1][1]) if best else jitter))
        answers[family] = float(np.interp(ours["lag_ms"], *zip(*best, strict=True)))
    return {"people": len(people), "frames": sum(len(t) for _, _, t in people), "settings": rows,
            "jitter_at_equal_lag": answers}  # fmt: skip


def main() -> None:
    """Measure every video, print the settings' means over all of them, and how the shipped one compares in each."""
    options = parse_options(__doc__)
    records = {}
    for folder in options.videos:
        people = people_of(folder, options)
        if not people:
            print(f"{folder}: nobody is in view for {MIN_FRAMES} frames on end; left out")
            continue
        records[str(folder)] = measure_video(people)
    print(f"{'mean over videos':36}{'jitter':>8}{'lag ms':>8}{'error':>8}")
    for same in zip(*(record["settings"] for record in records.values()), strict=True):
        one, means = same[0], [float(np.mean([row[key] for row in same])) for key in ("jitter", "lag_ms", "error")]
        mark = "  <- as shipped" if one["default"] else ""
        print(f"{one['family']:16}{one['setting']:20}{means[0]:8.2f}{means[1]:8.1f}{means[2]:8.2f}{mark}")
    ratios: dict[str, list[float]] = {"raw": [], "moving average": [], "one euro": [], "error": []}
    for name, record in records.items():
        ours = next(row for row in record["settings"] if row["default"])
        rival = {"raw": record["settings"][0]["jitter"], **record["jitter_at_equal_lag"]}
        for family, jitter in rival.items():
            ratios[family].append(ours["jitter"] / jitter)
        ratios["error"].append(ours["error"] / record["settings"][0]["error"])
        told = ", ".join(f"{family} {jitter:.2f}" for family, jitter in rival.items())
        print(
            f"{Path(name).name}: {record['people']} people, {record['frames']} frames; jitter at a lag of "
            f"{ours['lag_ms']:.1f} ms: {ours['jitter']:.2f} px, {told}"
        )
    for against, values in ratios.items():
        what = "error over that of raw" if against == "error" else f"jitter over that of {against}"
        print(f"{what}: {np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})")
    if options.json:
        record = {"model": str(options.model or "truth with noise"), "every": options.every, "videos": records}
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
