"""How fast frames go through the pipeline, what the host adds to the engine, and whether memory stays where it is.

    mdpose-edge synth video VIDEO --seconds 10 --size 1280x720 --people 10 --mp4
    mdpose-edge synth video CROWD --seconds 2 --size 1280x720 --people 100
    python -m benchmarks.stream BUNDLE VIDEO/video.mp4 --crowd CROWD [--plant] [--threads N] [--json FILE]
    python -m benchmarks.stream TINY_BUNDLE VIDEO/video.mp4 --memory 10000

- throughput: the pipeline against the sequential loop (read, estimate, write), and against the engine alone; each runs
  --rounds times in turn. Conclusions rest on the ratios within rounds; the medians and the fastest tenth stand beside.
  The sink is a JSONL file.
- host: preprocessing, decoding and NMS for one frame, one thread, beside the engine's own time for it.
- crowd: end to end for the frames of a crowd with all its people, and with all but one person's components held below
  the threshold, in turn: what more people cost. The engine's time does not depend on the picture.
- --plant is for random weights, which cost an engine as much as trained ones but find nobody: after each run of the
  engine, people are put into its head tensors, each into 7 cells: 10 to the frame; 100 and 1 where it is a crowd.
- memory: growth of the resident set from frame 200 to the last, the video shown again and again.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.decoders.mdpose import EMPTY_LOGIT, Scenario, make_heads
from mdpose_edge.bench.statistics import MIN_ROUNDS, compare, fastest_tenth, quantiles, ratio_text
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.families.mdpose.heads import constants_of
from mdpose_edge.machine.facts import machine_identity
from mdpose_edge.poses import Poses
from mdpose_edge.spec import DecodeSpec
from mdpose_edge.stream.files import VideoFile
from mdpose_edge.stream.frames import CapturedFrame, FrameSource
from mdpose_edge.stream.pipeline import run_pipeline
from mdpose_edge.stream.result import FrameResult
from mdpose_edge.stream.sinks import JsonlSink

Image = NDArray[np.uint8]
Heads = dict[str, NDArray[np.float32]]

PLANTED, PLANTED_CROWD = 10, 100
"""People that --plant puts into a frame, and into one of a crowd."""


class PlantedEstimator(PoseEstimator):
    """Runs the engine, and then puts people into the head tensors that came out of it."""

    def plant(self, people: int) -> None:
        """From now on, find so many."""
        height_px = (60, 180) if people == PLANTED_CROWD else (150, 500)
        scenario = Scenario("planted", people, 7, height_px, 0.02, DecodeSpec(), 0.0)
        self._planted = make_heads(self.spec, scenario)
        self._cells = {
            level.name: np.nonzero(self._planted[f"o_{level.name}"][0, 0] > EMPTY_LOGIT)
            for level in constants_of(self.spec).levels
        }
        self._own: Heads = {}

    def __call__(self, frame_bgr: Image) -> Poses:
        """Find the people in a frame; see PoseEstimator."""
        images = self.make_images()
        geometry = self.preprocess(frame_bgr, images[0])
        return self.decode(self.infer(images), geometry)

    def infer(self, images: Image, out: Heads | None = None) -> Heads:
        """Run the engine, and put the people in; see PoseEstimator."""
        heads = super().infer(images, self._own if out is None else out)
        for name, (rows, columns) in self._cells.items():
            heads[f"o_{name}"][...] = self._planted[f"o_{name}"]
            for kind in ("mu", "gamma"):
                heads[f"{kind}_{name}"][0, :, rows, columns] = self._planted[f"{kind}_{name}"][0, :, rows, columns]
        return heads


def sequential(estimator: PoseEstimator, video: Path, out: Path, frames: int) -> float:
    """Run the loop that everybody writes first; give frames per second."""
    sink, done = JsonlSink(out), 0
    start = time.perf_counter()
    for frame in VideoFile(video):
        sink.write(FrameResult(frame, estimator(frame.image_bgr), None, {}, 0.0))
        done += 1
        if done == frames:
            break
    sink.close()
    return done / (time.perf_counter() - start)


def pipelined(estimator: PoseEstimator, video: Path, out: Path, frames: int) -> float:
    """Run the pipeline; give frames per second, the filling of the pipeline counted."""
    start = time.perf_counter()
    report = run_pipeline(estimator, VideoFile(video), [JsonlSink(out)], max_frames=frames)
    return report.frames / (time.perf_counter() - start)


def engine_alone(estimator: PoseEstimator, image: Image, frames: int) -> float:
    """Run the engine on one prepared input; give frames per second."""
    images = estimator.make_images()
    estimator.preprocess(image, images[0])
    start = time.perf_counter()
    for _ in range(frames):
        estimator.infer(images)
    return frames / (time.perf_counter() - start)


def measure_throughput(estimator: PoseEstimator, video: Path, frames: int, rounds: int) -> dict[str, Any]:
    """Run the three in turn."""
    first = next(iter(VideoFile(video))).image_bgr
    rates: dict[str, list[float]] = {"engine": [], "sequential": [], "pipelined": []}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "poses.jsonl"
        pipelined(estimator, video, out, min(5, frames))
        for _ in range(rounds):
            rates["engine"].append(engine_alone(estimator, first, frames))
            rates["sequential"].append(sequential(estimator, video, out, frames))
            rates["pipelined"].append(pipelined(estimator, video, out, frames))
    ms = {name: 1e3 / np.array(values) for name, values in rates.items()}
    return {
        "fps": {name: 1e3 / float(np.median(values)) for name, values in ms.items()},
        "fps_of_fastest_tenth": {name: 1e3 / fastest_tenth(values) for name, values in ms.items()},
        "all_fps": rates,
        "sequential_over_pipelined": compare(ms["sequential"], ms["pipelined"]),
        "engine_over_pipelined": compare(ms["engine"], ms["pipelined"]),
    }


def measure_host(estimator: PoseEstimator, image: Image, repeats: int) -> dict[str, Any]:
    """Time the host's share of one frame, and the engine's beside it."""
    images = estimator.make_images()
    times: dict[str, list[float]] = {"preprocess": [], "engine": [], "decode": []}
    people = 0
    for _ in range(repeats):
        a = time.perf_counter()
        geometry = estimator.preprocess(image, images[0])
        b = time.perf_counter()
        heads = estimator.infer(images)
        c = time.perf_counter()
        people = len(estimator.decode(heads, geometry))
        d = time.perf_counter()
        for name, seconds in (("preprocess", b - a), ("engine", c - b), ("decode", d - c)):
            times[name].append(1e3 * seconds)
    ms = {name: np.array(values) for name, values in times.items()}
    host = ms["preprocess"] + ms["decode"]
    return {
        "ms": {name: quantiles(values) for name, values in {**ms, "host": host}.items()},
        "host_over_engine": compare(host, ms["engine"]),
        "people": people,
    }


def measure_crowd(estimator: PoseEstimator, folder: Path, repeats: int) -> dict[str, Any]:
    """Time frames of a crowd end to end, with everybody and with one person only, in turn."""
    paths = sorted((folder / "val2017").glob("*.jpg"))
    pictures = [cv2.imread(str(paths[i % len(paths)])) for i in range(repeats)]
    images = estimator.make_images()
    ms: dict[str, list[float]] = {"crowd": [], "one": []}
    people: dict[str, list[int]] = {"crowd": [], "one": []}
    for picture in pictures:
        for kind in ("crowd", "one"):
            if isinstance(estimator, PlantedEstimator):
                estimator.plant(PLANTED_CROWD if kind == "crowd" else 1)
            start = time.perf_counter()
            geometry = estimator.preprocess(picture, images[0])
            heads = estimator.infer(images, {})
            ready = time.perf_counter()
            if kind == "one" and not isinstance(estimator, PlantedEstimator):
                leave_one(heads)  # not timed
            begin = time.perf_counter()
            people[kind].append(len(estimator.decode(heads, geometry)))
            ms[kind].append(1e3 * (ready - start + time.perf_counter() - begin))
    times = {kind: np.array(values) for kind, values in ms.items()}
    counts = {kind: float(np.mean(values)) for kind, values in people.items()}
    figures = {kind: quantiles(values) for kind, values in times.items()}
    return {"ms": figures, "people": counts, "crowd_over_one": compare(times["crowd"], times["one"])}


def leave_one(heads: Heads) -> None:
    """Hold all but the best component below the threshold."""
    logits = [name for name in heads if name.startswith("o_")]
    best = max(logits, key=lambda name: float(heads[name].max()))
    top = int(heads[best].argmax())
    value = float(heads[best].flat[top])
    for name in logits:
        heads[name][...] = -20.0
    heads[best].flat[top] = value


class Looped(FrameSource):
    """A video shown again and again."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path, self._open = path, True

    def __iter__(self) -> Iterator[CapturedFrame]:
        index = 0
        while self._open:
            for frame in VideoFile(self._path):
                yield CapturedFrame(index, index / 30, frame.image_bgr, frame.name)
                index += 1

    def close(self) -> None:
        """End after the frame under way."""
        self._open = False


def resident_mb() -> float:
    """Give the resident set, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure_memory(estimator: PoseEstimator, video: Path, frames: int) -> dict[str, Any]:
    """Run so many frames; give how much the resident set grew after the first 200."""
    marks: list[float] = []
    step = max(1, (frames - 200) // 20)

    def look(done: int, total: int, note: str = "", stage: str = "") -> None:
        if done >= 200 and (done - 200) % step == 0:
            marks.append(resident_mb())

    gc.collect()
    with tempfile.TemporaryDirectory() as folder:
        run_pipeline(
            estimator, Looped(video), [JsonlSink(Path(folder) / "p.jsonl")], max_frames=frames, progress=look
        )  # fmt: skip
    return {"frames": frames, "growth_mb": max(marks) - marks[0], "resident_mb": marks}


def main() -> None:
    """Measure what the options ask for, print it, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("video", type=Path)
    parser.add_argument("--crowd", type=Path)
    parser.add_argument("--plant", action="store_true")
    parser.add_argument("--memory", type=int, metavar="FRAMES")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7, help=f"{MIN_ROUNDS} at least")
    parser.add_argument("--threshold", type=float, default=0.3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    record: dict[str, Any] = {"model": str(options.model), "machine": machine_identity(), "load": os.getloadavg()[0]}
    kind = PlantedEstimator if options.plant else PoseEstimator
    with kind(options.model, threads=options.threads, threshold=options.threshold) as estimator:
        if isinstance(estimator, PlantedEstimator):
            estimator.plant(PLANTED)
        if options.memory:
            record["memory"] = memory = measure_memory(estimator, options.video, options.memory)
            print(f"memory: {memory['growth_mb']:+.1f} MB over {memory['frames']} frames")
        else:
            image = next(iter(VideoFile(options.video))).image_bgr
            record["throughput"] = found = measure_throughput(estimator, options.video, options.frames, options.rounds)
            print(
                "frames/s: " + ", ".join(f"{name} {fps:.2f}" for name, fps in found["fps"].items()),
                f"\ntime, sequential over pipelined: {ratio_text(found['sequential_over_pipelined'])}",
                f"\ntime, engine alone over pipelined: {ratio_text(found['engine_over_pipelined'])}",
            )
            record["host"] = host = measure_host(estimator, image, options.frames)
            print(
                f"host: {host['ms']['host']['p50']:.2f} ms (median) for {image.shape[1]}x{image.shape[0]} with "
                f"{host['people']} people; over the engine's {host['ms']['engine']['p50']:.1f} ms: "
                f"{ratio_text(host['host_over_engine'])}"
            )
            if options.crowd:
                record["crowd"] = crowd = measure_crowd(estimator, options.crowd, options.frames)
                print(
                    f"crowd: {crowd['people']['crowd']:.0f} people {crowd['ms']['crowd']['p50']:.2f} ms, "
                    f"{crowd['people']['one']:.0f} {crowd['ms']['one']['p50']:.2f} ms: "
                    f"{ratio_text(crowd['crowd_over_one'])}"
                )
    if options.json:
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
