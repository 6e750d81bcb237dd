"""AP against INT8 latency, ours beside YOLO's: equal images, equal visits, the same validation images, one run.

    python -m benchmarks.pareto OUT [--ultralytics peers/bin/python] [--only mobilenetv4-64] [--list]
    python -m benchmarks.pareto OUT --ultralytics peers/bin/python --size 256 --visits 200000 --train-images 20000

Every point is trained from nothing on the same drawn people, ours by AdamW with a cosine schedule, the peers by
ultralytics' own recipe (see benchmarks/yolo.py for its environment), each image as often; measured by COCO's protocol
on the same other ones, in float and in INT8; and, once all that are asked for are there, timed: the INT8 graphs on
OpenVINO with --threads, in rounds that run each once, by turns. Each graph is timed at the size that it was measured
at.

OUT/points/NAME.json holds a point that is done, and a point that is there is passed over: a sweep can be stopped,
resumed and spread over invocations; a training of ours that was stopped goes on where it was. Other conditions need
another OUT. OUT/pareto.json has all, OUT/pareto.png the plot: AP of INT8 against the fastest tenth of its calls.

What is faster rests on the ratios within rounds; fastest tenth and median stand beside. Short trainings from nothing
show who learns faster, not who is better in the end.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino as ov
from numpy.typing import NDArray

from benchmarks import peers, yolo
from mdpose_edge.bench.statistics import MIN_ROUNDS, compare, quantiles, ratio_text
from mdpose_edge.bundle import open_bundle
from mdpose_edge.calib.make import make_calibration_set
from mdpose_edge.common.files import write_whole
from mdpose_edge.datasets.coco import load_split
from mdpose_edge.datasets.images import write_image
from mdpose_edge.evaluate import coco_figures, evaluate
from mdpose_edge.export.bundle import export_checkpoint
from mdpose_edge.export.options import ExportOptions
from mdpose_edge.runtimes.registry import read_model_spec
from mdpose_edge.synth import write_dataset
from mdpose_edge.train.config import TrainConfig, read_config
from mdpose_edge.train.loop import MODEL_FILE, train

BATCH = 16
CALIBRATION_IMAGES = 128
FIGURES = ("AP", "AP50")


@dataclass(frozen=True)
class Point:
    """A model to train and to measure."""

    name: str
    network: dict[str, Any] = field(default_factory=dict)
    """Of ours; a peer has none."""

    @property
    def is_peer(self) -> bool:
        """Whether ultralytics trains it."""
        return not self.network


def _ours(name: str, backbone: str, channels: int, convs: int) -> Point:
    return Point(name, {"backbone": backbone, "channels": channels, "head_convs": convs})


POINTS = (
    _ours("mobilenetv4-64", "mobilenetv4_conv_small", 64, 4),
    _ours("mobilenetv4m-96", "mobilenetv4_conv_medium", 96, 4),
    _ours("resnet18-128", "resnet18", 128, 4),
    _ours("dla34-lite", "dla34", 128, 6),
    _ours("dla34-paper", "dla34", 256, 8),
    Point("yolo26n-pose"),
    Point("yolo26s-pose"),
)
"""The presets of configs/, and dla34_lite beside the paper's head: both at the visits that the rest gets."""


def config(point: Point, args: argparse.Namespace) -> TrainConfig:
    """Train ours from nothing, with the paper's augmentation."""
    iterations = max(1, round(args.visits / BATCH))
    table = {
        "input": {"height": args.size, "width": args.size},
        "network": point.network,
        "optimizer": {"name": "adamw", "lr": args.lr, "weight_decay": 1e-2, "clip_norm": 7.0},
        "schedule": {"iterations": iterations, "kind": "cosine", "warmup": min(100, iterations // 10)},
        "batch_size": BATCH,
        "pretrained": False,
        "workers": 1,
        "checkpoint_every": 200,
        "seed": 0,
    }
    return read_config(table, "pareto")


def measure_ours(point: Point, args: argparse.Namespace, data: Path, folder: Path) -> dict[str, Any]:
    """Train, export in float and INT8, and evaluate both."""
    start = time.perf_counter()
    model = folder / "run" / MODEL_FILE
    if not model.is_file():
        model = train(config(point, args), data, folder / "run", resume="auto")
    if model.name != MODEL_FILE:
        raise SystemExit(f"{point.name}: the training was ended; run it again to go on")
    seconds = time.perf_counter() - start
    calib = folder / "calibration"
    size, num = read_model_spec(model).input, min(CALIBRATION_IMAGES, args.train_images)
    make_calibration_set(data, calib, size, split="train", num=num, allow_few=True)
    export_checkpoint(model, folder / "float", ExportOptions("openvino"))
    export_checkpoint(model, folder / "int8", ExportOptions("openvino", precision="int8", calib=calib, allow_few=True))
    found = {form: evaluate(folder / form, data, threads=args.threads).figures for form in ("float", "int8")}
    return {"train_s": round(seconds), "graph": str(open_bundle(folder / "int8").graph), **found}


def measure_peer(point: Point, args: argparse.Namespace, data: Path, folder: Path) -> dict[str, Any]:
    """Let ultralytics train and export, and evaluate both forms by the same protocol."""
    start = time.perf_counter()
    trained = yolo.train_peer(
        args.ultralytics, point.name, data, folder, size=args.size, visits=args.visits, batch=BATCH
    )
    seconds = time.perf_counter() - start
    split = load_split(data, "val")
    found = {}
    for form, graph in (("float", trained.float_graph), ("int8", trained.int8_graph)):
        results = yolo.predict_peer(args.ultralytics, graph, split, folder, size=args.size)
        found[form] = coco_figures(split, results)
    (graph,) = trained.int8_graph.glob("*.xml")
    return {"train_s": round(seconds), "graph": str(graph), "ultralytics": trained.version, **found}


def finish(points: Sequence[Point], args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Measure the points that are not there yet; give all."""
    data, found = args.out / "data", {}
    if not data.exists():
        write_dataset(
            data,
            train_images=args.train_images,
            val_images=args.val_images,
            size=args.scene,
            seed=args.seed,
            people=(1, 3),
            variety=args.variety,
            workers=2,
        )
    for point in points:
        record = args.out / "points" / f"{point.name}.json"
        if not record.is_file():
            print(f"{point.name}: training", flush=True)
            folder = args.out / point.name
            row = (measure_peer if point.is_peer else measure_ours)(point, args, data, folder)
            write_whole(record, (json.dumps(row, indent=2) + "\n").encode())
        found[point.name] = json.loads(record.read_text())
    return found


def time_points(found: dict[str, dict[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    """Time all INT8 graphs in the same rounds, by turns."""
    rest = peers.rests()[-1]
    contenders = []
    for name, row in found.items():
        graph = ov.Core().read_model(row["graph"])
        shape = tuple(graph.input(0).shape)
        random = np.random.default_rng(0)
        is_bytes = graph.input(0).element_type == ov.Type.u8
        image = random.integers(0, 256, shape, np.uint8) if is_bytes else random.random(shape, np.float32)
        contenders.append(peers.on_openvino(name, graph, image, args.threads, rest))
    times = {name: np.array(ms) for name, ms in peers.measure(contenders, args.rounds, 3).items()}
    pairs = [(other, one) for one in times for other in times if other != one]
    ratios = {f"{other} / {one}": compare(times[other], times[one]) for other, one in pairs}
    return {"float_layers": rest, "ms": {name: quantiles(ms) for name, ms in times.items()}, "ratios": ratios}


def plot(rows: dict[str, dict[str, Any]], size_wh: tuple[int, int] = (720, 480)) -> NDArray[np.uint8]:
    """Draw AP of INT8 over ms, (H, W, 3) BGR: ours in blue, peers in orange, each with its name."""
    width, height = size_wh
    canvas = np.full((height, width, 3), 255, np.uint8)
    most_ms = 1.15 * max(row["ms"] for row in rows.values())
    most_ap = 1.15 * max(max(row["AP"] for row in rows.values()), 1e-3)
    left, bottom, font = 60, height - 45, cv2.FONT_HERSHEY_SIMPLEX
    cv2.rectangle(canvas, (left, 15), (width - 15, bottom), (200, 200, 200), 1)
    for part in (0.25, 0.5, 0.75, 1.0):
        x, y = round(left + part * (width - 15 - left)), round(bottom - part * (bottom - 15))
        cv2.putText(canvas, f"{part * most_ms:.1f}", (x - 20, bottom + 16), font, 0.4, (80, 80, 80), 1, cv2.LINE_AA)
        cv2.putText(canvas, f"{part * most_ap:.3f}", (8, y + 4), font, 0.4, (80, 80, 80), 1, cv2.LINE_AA)
    caption = "ms of the INT8 graph, fastest tenth (across); AP of INT8 (up)"
    cv2.putText(canvas, caption, (left, height - 10), font, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    for name, row in rows.items():
        x = round(left + row["ms"] / most_ms * (width - 15 - left))
        y = round(bottom - row["AP"] / most_ap * (bottom - 15))
        colour = (0, 140, 230) if name.startswith("yolo") else (200, 110, 30)
        cv2.circle(canvas, (x, y), 5, colour, -1, cv2.LINE_AA)
        cv2.putText(canvas, name, (x + 8, y - 6), font, 0.42, colour, 1, cv2.LINE_AA)
    return canvas


def conditions(args: argparse.Namespace) -> dict[str, Any]:
    """Say what every point of a folder has in common."""
    keys = ("size", "scene", "visits", "train_images", "val_images", "variety", "lr", "seed")
    return {key: getattr(args, key) for key in keys}


def check_conditions(args: argparse.Namespace) -> None:
    """Refuse a folder of other conditions, and note them in a new one."""
    file = args.out / "conditions.json"
    if file.is_file() and (there := json.loads(file.read_text())) != conditions(args):
        raise SystemExit(f"{file}: expected {conditions(args)}, got {there}; name another OUT")
    write_whole(file, (json.dumps(conditions(args), indent=2) + "\n").encode())


def report(found: dict[str, dict[str, Any]], timed: dict[str, Any], args: argparse.Namespace) -> None:
    """Print a table, and write it with the plot."""
    print(f"{'point':18} {'AP':>6} {'AP50':>6} {'INT8 AP':>8} {'fastest ms':>11} {'median ms':>10} {'train s':>8}")
    rows = {}
    for name, row in found.items():
        ms, int8 = timed["ms"][name], {key: row["int8"][key] or 0.0 for key in FIGURES}
        rows[name] = {"ms": ms["fastest_tenth"], "AP": int8["AP"]}
        ap, ap50 = (row["float"][key] or 0.0 for key in FIGURES)
        print(
            f"{name:18} {ap:6.3f} {ap50:6.3f} {int8['AP']:8.3f} {ms['fastest_tenth']:11.2f} {ms['p50']:10.2f} "
            f"{row['train_s']:8.0f}"
        )
    print("time, of a peer over that of ours:")
    for name, ratio in timed["ratios"].items():
        if "yolo" in name.partition(" / ")[0] and "yolo" not in name.partition(" / ")[2]:
            print(f"{name:44} {ratio_text(ratio)}")
    record = {"conditions": conditions(args), "machine": peers.machine(args.threads), "points": found, "timed": timed}
    write_whole(args.out / "pareto.json", (json.dumps(record, indent=2) + "\n").encode())
    write_image(args.out / "pareto.png", plot(rows))


def main(argv: Sequence[str] | None = None) -> None:
    """Train and measure what is missing, then time and draw all that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--only", action="append", metavar="POINT", choices=[point.name for point in POINTS])
    parser.add_argument("--list", action="store_true", help="print the points and end")
    parser.add_argument("--ultralytics", type=Path, metavar="PYTHON", help="without it, the peers are left out")
    parser.add_argument("--size", type=int, default=128, help="of the inputs, px")
    parser.add_argument("--scene", type=int, default=320, help="of the drawn pictures, px")
    parser.add_argument("--visits", type=int, default=40_000)
    parser.add_argument("--train-images", type=int, default=8000)
    parser.add_argument("--val-images", type=int, default=1000)
    parser.add_argument("--variety", type=float, default=0.0, help="as of mdpose-edge synth")
    parser.add_argument("--lr", type=float, default=1e-3, help="of ours")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=200, help=f"of the timing, {MIN_ROUNDS} at least")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    points = [p for p in POINTS if (p.name in args.only if args.only else args.ultralytics or not p.is_peer)]
    if args.list:
        print("\n".join(point.name for point in points))
        return
    if missing := [point.name for point in points if point.is_peer and not args.ultralytics]:
        parser.error(
            f"expected --ultralytics PYTHON for {', '.join(missing)}, got none: name one, see benchmarks/yolo.py"
        )
    check_conditions(args)
    found = finish(points, args)
    report(found, time_points(found, args), args)


if __name__ == "__main__":
    main()
