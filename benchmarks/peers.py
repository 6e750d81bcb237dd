"""Measure DLA-34 in INT8 at 736 px against its float forms and against YOLO26m-pose in INT8 at 640 px, in one run.

    python -m benchmarks.peers --json peers.json
    python -m benchmarks.peers --ultralytics peers/bin/python --profile --json peers.json
    python -m benchmarks.peers configs/dla34_lite_736.yaml configs/dla34_736.yaml --int8-only --json peers.json

The peer comes from ultralytics, which is needed for this and nothing else and so lives in an environment of its own:

    python3 -m venv peers && peers/bin/pip install ultralytics openvino

Weights are random on both sides: speed does not depend on them. Each round runs every contender once, in an order that
rotates, so that what else the machine does falls on all alike. Conclusions rest on the ratios, which are medians over
rounds of the quotient within a round; the fastest tenth says what a quiet machine would take, and its ratio stands
beside. Only the graphs are timed, which favours the peer: ours takes the uint8 frame as OpenCV gives it, the
peer's a float32 tensor that its host has to make first.

INT8 graphs hold float layers too. They are timed with these in float32 and, where the processor has it, in bfloat16.
The peer is quantized by NNCF as ultralytics does it (its "mixed" preset), all of it, which is the fastest there is.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import torch
from numpy.typing import NDArray

from mdpose_edge.bench.statistics import compare, quantiles, ratio_text
from mdpose_edge.calib.dataset import CalibrationSet, open_calibration_set
from mdpose_edge.calib.make import make_calibration_set
from mdpose_edge.calib.openvino_int8 import quantize_openvino
from mdpose_edge.common.onnx_graph import OnnxGraph
from mdpose_edge.export.onnx import to_onnx
from mdpose_edge.families.mdpose.network import MDPoseNetwork, make_spec
from mdpose_edge.machine.facts import machine_identity
from mdpose_edge.spec import InputSpec
from mdpose_edge.synth import write_dataset
from mdpose_edge.train.config import load_config

os.environ.setdefault("NNCF_CI", "1")  # NNCF reads it on import, and then reports nothing to its vendor
nncf = importlib.import_module("nncf")

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "dla34_736.yaml"
PEER, PEER_SIZE = "yolo26m-pose", 640
CALIBRATION_IMAGES = 4
"""Ranges do not change the speed; they only have to be there."""
PAUSE_S = 0.05
"""Between runs, in which the threads of the engine before stop spinning for work."""

PEER_EXPORT = """
import sys
from ultralytics import YOLO, __version__
from ultralytics.nn.tasks import PoseModel
name, size = sys.argv[1], int(sys.argv[2])
model = YOLO(f"{name}.yaml", task="pose")
of_many_classes, model.model = model.model, PoseModel(model.model.yaml, nc=1, verbose=False)
model.model.args, model.model.task = of_many_classes.args, of_many_classes.task
path = model.export(format="openvino", imgsz=size, nms=False)
print(f"exported:{__version__}:{path}")
"""
"""One class and no NMS, as its authors publish it."""


@dataclass(frozen=True)
class Contender:
    """One graph on one engine."""

    name: str
    run: Callable[[], Any]
    profiled: Callable[[], list[Any]] | None = None
    """Gives OpenVINO's figures of each node for one run."""


def random_network(config: Path) -> tuple[onnx.ModelProto, InputSpec]:
    """Export the network of a training configuration, untrained."""
    settings = load_config(config, ["pretrained=false"])
    torch.manual_seed(0)
    spec = make_spec(settings.network, settings.input.spec())
    return to_onnx(MDPoseNetwork(spec).eval(), spec), spec.input


def calibration_set(folder: Path, spec: InputSpec) -> CalibrationSet:
    """Draw a few people to measure ranges on."""
    write_dataset(folder / "data", train_images=0, val_images=CALIBRATION_IMAGES, size=320)
    make_calibration_set(folder / "data", folder / "calib", spec, split="val", num=CALIBRATION_IMAGES, allow_few=True)
    return open_calibration_set(folder / "calib")


def export_peer(python: Path, folder: Path) -> tuple[ov.Model, str]:
    """Let ultralytics write its graph for OpenVINO.

    Returns:
        The graph, and the version of ultralytics.
    """
    environment = {**os.environ, "YOLO_CONFIG_DIR": str(folder), "YOLO_OFFLINE": "true"}
    command = [str(python.absolute()), "-c", PEER_EXPORT, PEER, str(PEER_SIZE)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    answers = [line for line in done.stdout.splitlines() if line.startswith("exported:")]
    if done.returncode or not answers:
        raise SystemExit(f"{python} did not export {PEER}: {(done.stderr or done.stdout).strip()[-300:]}")
    _, version, path = answers[0].split(":", 2)
    (graph,) = (folder / path).glob("*.xml")
    return ov.Core().read_model(graph), version


def quantize_peer(graph: ov.Model) -> ov.Model:
    """Quantize by NNCF as ultralytics does it, but on noise."""
    random = np.random.default_rng(0)
    images = [random.random((1, 3, PEER_SIZE, PEER_SIZE), np.float32) for _ in range(CALIBRATION_IMAGES)]
    mixed = nncf.QuantizationPreset.MIXED
    quantized: ov.Model = nncf.quantize(graph, nncf.Dataset(images), preset=mixed, subset_size=len(images))
    return quantized


def on_onnxruntime(name: str, model: onnx.ModelProto, image: NDArray[Any], threads: int) -> Contender:
    """Load a graph as our adapter does."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: image}
    return Contender(name, lambda: session.run(None, feed))


def on_openvino(name: str, graph: ov.Model, image: NDArray[Any], threads: int, rest: str) -> Contender:
    """Load a graph as our adapter does, but for the precision of its float layers, "f32" or "bf16"."""
    core = ov.Core()
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": rest, "INFERENCE_NUM_THREADS": threads}
    request = core.compile_model(graph, "CPU", config).create_infer_request()

    def profiled() -> list[Any]:
        watched = core.compile_model(graph, "CPU", {**config, "PERF_COUNT": True}).create_infer_request()
        for _ in range(3):
            watched.infer([image], share_inputs=True, share_outputs=True)
        return list(watched.profiling_info)

    return Contender(name, lambda: request.infer([image], share_inputs=True, share_outputs=True), profiled)


def forms_of(config: Path, args: argparse.Namespace, folder: Path) -> tuple[list[Contender], int]:
    """Load the forms of a configuration; give them with the quantizers of the INT8 one."""
    model, size = random_network(config)
    image = np.random.default_rng(0).integers(0, 256, (1, size.height, size.width, 3), np.uint8)
    int8_graph = quantize_openvino(OnnxGraph(model), calibration_set(folder, size), method="min-max").keeping_float()
    found = []
    if not args.int8_only:
        float_graph = ov.Core().read_model(model.SerializeToString())
        found.append(on_onnxruntime(f"{config.stem} onnxruntime fp32", model, image, args.threads))
        found += [on_openvino(f"{config.stem} {rest}", float_graph, image, args.threads, rest) for rest in rests()]
    found += [on_openvino(f"{config.stem} int8 + {rest}", int8_graph, image, args.threads, rest) for rest in rests()]
    return found, count_quantizers(int8_graph)


def rests() -> list[str]:
    """Give the precisions of the float layers that the processor has."""
    return ["f32", "bf16"] if "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else ["f32"]


def contenders(args: argparse.Namespace, folder: Path) -> tuple[list[Contender], dict[str, Any]]:
    """Make all graphs and load them; give them with what the report says of them."""
    found: list[Contender] = []
    about: dict[str, Any] = {"FakeQuantize nodes": {}, "peer": None}
    for number, config in enumerate(args.configs):
        forms, about["FakeQuantize nodes"][config.stem] = forms_of(config, args, folder / str(number))
        found += forms
    if args.ultralytics:
        peer, version = export_peer(args.ultralytics, folder)
        graph = quantize_peer(peer)
        about["peer"] = {"ultralytics": version, "FakeQuantize nodes": count_quantizers(graph)}
        tensor = np.random.default_rng(0).random((1, 3, PEER_SIZE, PEER_SIZE), np.float32)
        found += [on_openvino(f"{PEER} int8 + {rest}", graph, tensor, args.threads, rest) for rest in rests()]
    return found, about


def count_quantizers(graph: ov.Model) -> int:
    """Count the nodes that make a graph INT8; none would mean that floats are about to be measured under its name."""
    count = int(sum(node.get_type_name() == "FakeQuantize" for node in graph.get_ops()))
    if not count:
        raise SystemExit("the quantizer returned a float graph")
    return count


def measure(found: Sequence[Contender], rounds: int, warm_up: int) -> dict[str, list[float]]:
    """Time every contender once a round, in ms."""
    for contender in found:
        for _ in range(warm_up):
            contender.run()
    times = defaultdict(list)
    for turn in range(rounds):
        for offset in range(len(found)):
            contender = found[(turn + offset) % len(found)]
            time.sleep(PAUSE_S)
            start = time.perf_counter()
            contender.run()
            times[contender.name].append(1e3 * (time.perf_counter() - start))
        print(f"round {turn + 1}/{rounds}", end="\r", flush=True)
    return dict(times)


def ratios(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Give how often each INT8 run of ours goes into each other contender's; see statistics.compare."""
    ms = {name: np.array(values) for name, values in times.items()}
    ours = [name for name in times if "int8" in name and not name.startswith(PEER)]
    return {f"{other} / {base}": compare(ms[other], ms[base]) for base in ours for other in times if other != base}


def profile(contender: Contender) -> list[dict[str, Any]]:
    """Sum the time of a run by kind of node and precision, the largest first."""
    assert contender.profiled is not None
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0])
    for node in contender.profiled():
        if node.status == ov.ProfilingInfo.Status.EXECUTED:
            row = sums[node.node_type, node.exec_type.rpartition("_")[2]]
            row[0] += 1
            row[1] += node.real_time.total_seconds() * 1e3
    rows = [
        {"type": kind, "precision": precision, "nodes": int(count), "ms": round(ms, 3)}
        for (kind, precision), (count, ms) in sums.items()
    ]
    return sorted(rows, key=lambda row: -row["ms"])


def machine(threads: int) -> dict[str, Any]:
    """Say where this was measured."""
    versions = {package.__name__: package.__version__ for package in (ort, ov, nncf, torch)}
    capabilities = list(ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    load = os.getloadavg()[0]
    return {**machine_identity(), "capabilities": capabilities, "threads": threads, "load": load, **versions}


def main() -> None:
    """Measure, print tables, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", type=Path, nargs="*", metavar="CONFIG", help="default: configs/dla34_736.yaml")
    parser.add_argument("--int8-only", action="store_true", help="leave the float forms out")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=30, help="6 at least")
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--ultralytics", type=Path, metavar="PYTHON", help="an interpreter that has ultralytics")
    parser.add_argument("--profile", action="store_true", help="also sum up what each kind of node takes")
    args = parser.parse_args()
    args.configs = args.configs or [CONFIG]
    with tempfile.TemporaryDirectory() as folder:
        found, about = contenders(args, Path(folder))
    times = measure(found, args.rounds, args.warm_up)
    report: dict[str, Any] = {
        "machine": machine(args.threads),
        "graphs": about,
        "rounds": args.rounds,
        "ms": {
            name: {key: round(value, 2) for key, value in quantiles(np.array(ms)).items()} for name, ms in times.items()
        },
        "ratios": ratios(times),
    }
    print(f"{'ms':44} {'fastest tenth':>14} {'median':>9}")
    for name, row in report["ms"].items():
        print(f"{name:44} {row['fastest_tenth']:14.2f} {row['p50']:9.2f}")
    for name, ratio in report["ratios"].items():
        print(f"{name:72} {ratio_text(ratio)}")
    if args.profile:
        report["profile"] = {contender.name: profile(contender) for contender in found if contender.profiled}
        for name, rows in report["profile"].items():
            print(f"\n{name}: {sum(row['ms'] for row in rows):.1f} ms in nodes")
            for row in rows:
                print(f"  {row['type']:24} {row['precision']:8} {row['nodes']:4} nodes {row['ms']:9.2f} ms")
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
