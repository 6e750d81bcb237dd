"""What T costs, and whether stopping early would pay: one static graph of T people against an encoder and a step graph.

    python -m benchmarks.recurrent_steps [--config configs/recurrent_synth_128.yaml] [--repeats 20] [--json FILE]

Random weights, float32, one thread. The two graphs are called by a plain loop, numpy in and out: the encoder gives what
the decoder's first layer sees; a step takes the layers' states and gives the next, a person's maps and the stop. For z
people the loop makes min(z + 1, T) steps. Both must give the same maps. Calls of all forms take turns.
"""

from __future__ import annotations

import argparse
import io
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mdpose_edge.bench.statistics import quantiles
from mdpose_edge.common.files import write_whole
from mdpose_edge.export.onnx import OPSET, to_onnx
from mdpose_edge.families.recurrent.network import (
    DeployedNetwork,
    Memory,
    RecurrentNetwork,
    State,
    make_spec,
    network_config,
)
from mdpose_edge.machine.facts import machine_identity, machine_state
from mdpose_edge.runtimes.onnxruntime_session import open_session
from mdpose_edge.runtimes.openvino_session import compile_graph, read_graph
from mdpose_edge.spec import COCO_KEYPOINTS, ModelSpec
from mdpose_edge.train.config import load_config

Arrays = dict[str, NDArray[Any]]
Run = Callable[[Arrays], Arrays]
CONFIG = Path("configs/recurrent_synth_128.yaml")
STATIC = (1, 2, 4, 8)
"""T of the static graphs."""
PEOPLE = (0, 1, 2, 4, 8)
"""z for the loop, up to T = 8."""


class Encoder(nn.Module):
    """Images to what the decoder's first layer sees."""

    def __init__(self, deployed: DeployedNetwork) -> None:
        super().__init__()
        self.network = deployed.network

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, 4C, rows, columns)."""
        network = self.network
        seen: Tensor = network.decoder.from_features(network.pyramid(network.backbone(network.normalize(images))))
        return seen


class Step(nn.Module):
    """One person more: states in, states out."""

    def __init__(self, deployed: DeployedNetwork) -> None:
        super().__init__()
        self.network = deployed.network

    def forward(self, seen: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Return heat, stop, and each layer's state and cell."""
        pairs = [State(*states[at : at + 2]) for at in range(0, len(states), 2)]
        found, memory = self.network.person(seen, None, Memory(pairs, []))
        new = [tensor for state in memory.decoder if state is not None for tensor in state]
        return (found["heat"], found["stop"], *new)


def names_of(layers: int) -> list[str]:
    """Return the names of the states."""
    return [f"{kind}_{layer}" for layer in range(layers) for kind in ("hidden", "cell")]


def exported(module: nn.Module, example: tuple[Tensor, ...], inputs: list[str], outputs: list[str]) -> bytes:
    """Trace a module as an ONNX graph."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), example, buffer, input_names=inputs, output_names=outputs, opset_version=OPSET, dynamo=False
        )
    return buffer.getvalue()


def on_onnxruntime(graph: bytes) -> Run:
    """Open a graph on onnxruntime."""
    session = open_session(graph, where="a graph", feature="this", optimized=True, threads=1)
    names = [value.name for value in session.get_outputs()]
    return lambda given: dict(zip(names, session.run(names, given), strict=True))


def on_openvino(graph: bytes) -> Run:
    """Open a graph on OpenVINO."""
    compiled = compile_graph(read_graph(graph, where="a graph", feature="this"), where="a graph", threads=1)
    request, outputs = compiled.create_infer_request(), compiled.outputs

    def run(given: Arrays) -> Arrays:
        found = request.infer(given, share_inputs=True)
        return {output.get_any_name(): found[output] for output in outputs}

    return run


ENGINES: dict[str, Callable[[bytes], Run]] = {"onnxruntime": on_onnxruntime, "openvino": on_openvino}


class Loop:
    """The two graphs, and the loop over people."""

    def __init__(
        self, open_graph: Callable[[bytes], Run], deployed: DeployedNetwork, images: NDArray[np.uint8]
    ) -> None:
        config, example = deployed.network.config, torch.from_numpy(images)
        encoder = Encoder(deployed)
        with torch.no_grad():
            seen = encoder(example)
        widths = [width for width in deployed.network.decoder.widths for _ in range(2)]
        self.blank = [np.zeros((len(images), width, *seen.shape[2:]), np.float32) for width in widths]
        self.states = names_of(config.layers)
        outputs = ["heat", "stop", *(f"next_{name}" for name in self.states)]
        given = (seen, *(torch.from_numpy(array) for array in self.blank))
        self.encode = open_graph(exported(encoder, (example,), ["image"], ["seen"]))
        self.step = open_graph(exported(Step(deployed), given, ["seen", *self.states], outputs))

    def __call__(self, images: NDArray[np.uint8], steps: int) -> list[NDArray[np.float32]]:
        """Return the maps of so many steps."""
        seen = self.encode({"image": images})["seen"]
        states, maps = dict(zip(self.states, self.blank, strict=True)), []
        for _ in range(steps):
            found = self.step({"seen": seen, **states})
            states = {name: found[f"next_{name}"].copy() for name in self.states}
            maps.append(found["heat"].copy())
        return maps


def network_of(spec: ModelSpec, people: int) -> tuple[RecurrentNetwork, ModelSpec]:
    """Return a random network for so many people; those for fewer have the same weights."""
    torch.manual_seed(0)
    config = replace(network_config(spec), people=people, refiner=False)
    new = make_spec(config, spec.input, spec.keypoints)
    return RecurrentNetwork(new).eval(), new


def measure(engine: str, spec: ModelSpec, repeats: int) -> dict[str, Any]:
    """Time every form on an engine, in turns.

    Raises:
        RuntimeError: the two forms give different maps.
    """
    images = np.random.default_rng(0).integers(0, 256, (1, spec.input.height, spec.input.width, 3), np.uint8)
    forms: dict[str, Callable[[], Any]] = {}
    runs = {}
    for people in STATIC:
        network, own = network_of(spec, people)
        runs[people] = ENGINES[engine](to_onnx(network, own).SerializeToString())
        forms[f"static, T = {people}"] = lambda run=runs[people]: run({"image": images})
    network, own = network_of(spec, max(STATIC))
    loop = Loop(ENGINES[engine], DeployedNetwork(network, own), images)
    forms["encoder alone"] = lambda: loop.encode({"image": images})
    for people in PEOPLE:
        steps = min(people + 1, max(STATIC))
        forms[f"loop, {people} people"] = lambda steps=steps: loop(images, steps)
    whole, parts = runs[max(STATIC)]({"image": images}), loop(images, max(STATIC))
    for step, maps in enumerate(parts, 1):
        if np.abs(whole[f"heat_{step}"] - maps).max() > 1e-3 * np.abs(maps).max():
            raise RuntimeError(f"the two forms give different maps at step {step}")
    times: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(repeats + 2):
        for name, call in forms.items():
            begin = time.process_time()
            call()
            if turn > 1:
                times[name].append(1e3 * (time.process_time() - begin))
    return {name: quantiles(np.array(taken)) for name, taken in times.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure both engines, print a table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--size", type=int, help="of the input, px; without: the configuration's")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    config = load_config(args.config)
    size = config.input.spec() if args.size is None else replace(config.input.spec(), height=args.size, width=args.size)
    spec = make_spec(config.network, size, COCO_KEYPOINTS)
    torch.set_num_threads(1)
    report: dict[str, Any] = {"machine": machine_identity(), "state": machine_state(), "engines": {}}
    for engine in ENGINES:
        report["engines"][engine] = rows = measure(engine, spec, args.repeats)
        print(f"{engine + ', ms of the processor':40} {'fastest':>8} {'median':>8}")
        for name, figures in rows.items():
            print(f"{name:40} {figures['fastest_tenth']:8.2f} {figures['p50']:8.2f}")
    if args.json:
        write_whole(args.json, (json.dumps(report, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
