"""Times the same network in torch, FP16 and torch.compile, in a Python of its own; prove_tensorrt.py asks it.

    python torch_worker.py network.json HEIGHT WIDTH       then lines {"batch": 8, "calls": 100} on stdin

Needs torch alone. The network is rebuilt from its exported structure with random weights, which takes as long. Each
call is what the other engines' `infer` is: uint8 images in host memory to float32 head tensors in host memory.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

RESIZE_SCALES = 2


class ExportedNetwork(nn.Module):
    """The nodes of an exported graph, one after the other."""

    def __init__(self, structure: dict[str, Any]) -> None:
        super().__init__()
        self._input, self._outputs, self._nodes = structure["input"], structure["outputs"], structure["nodes"]
        generator = torch.Generator().manual_seed(0)
        self._names: dict[str, str] = {}
        for number, (name, constant) in enumerate(structure["constants"].items()):
            if constant["values"] is None:
                fan_in = max(1, torch.Size(constant["shape"][1:]).numel())
                value = torch.randn(constant["shape"], generator=generator) * (2 / fan_in) ** 0.5
            else:
                value = torch.tensor(constant["values"], dtype=torch.float32).reshape(constant["shape"])
            self._names[name] = f"c{number}"
            self.register_buffer(f"c{number}", value)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map (N, H, W, 3) uint8 to the head tensors in float32."""
        values = {self._input: images}
        for node in self._nodes:
            inputs = [values[name] if name in values else self._constant(name) for name in node["inputs"]]
            values[node["output"]] = self._compute(node["op"], inputs, node["attributes"])
        return tuple(values[name].float() for name in self._outputs)

    def _constant(self, name: str) -> Tensor | None:
        return getattr(self, self._names[name]) if name else None

    def _compute(self, op: str, inputs: list[Any], attributes: dict[str, Any]) -> Tensor:
        x = inputs[0]
        if op == "Cast":
            return x.to(self.c0.dtype)
        if op == "Conv":
            pads = attributes["pads"]
            assert pads[:2] == pads[2:], "one-sided padding"
            steps = attributes["strides"], pads[:2], attributes["dilations"], attributes["group"]
            return functional.conv2d(*inputs, *([None] if len(inputs) == 2 else []), *steps)
        if op == "MaxPool":
            return functional.max_pool2d(x, attributes["kernel_shape"], attributes["strides"], attributes["pads"][:2])
        if op == "AveragePool":
            size = attributes["kernel_shape"], attributes["strides"], attributes["pads"][:2]
            ceil, padded = bool(attributes.get("ceil_mode")), bool(attributes.get("count_include_pad"))
            return functional.avg_pool2d(x, *size, ceil, padded)
        if op == "Resize":
            factors = tuple(int(factor) for factor in inputs[RESIZE_SCALES][2:])
            return functional.interpolate(x, scale_factor=factors, mode="nearest")
        if op == "Concat":
            return torch.cat(inputs, dim=attributes["axis"])
        if op == "Transpose":
            return x.permute(attributes["perm"])
        simple = {
            "Add": torch.add, "Identity": torch.clone, "Mul": torch.mul, "Relu": torch.relu, "Sigmoid": torch.sigmoid,
            "Sub": torch.sub,
        }  # fmt: skip
        return simple[op](*inputs)


def main() -> None:
    """Answer each request with the milliseconds of its calls."""
    structure = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    height, width = map(int, sys.argv[2:4])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = ExportedNetwork(structure).eval().to(device)
    if device.type == "cuda":
        network = network.half().to(memory_format=torch.channels_last)
    compiled = torch.compile(network, mode="max-autotune", dynamic=False) if device.type == "cuda" else network
    about = {"torch": torch.__version__, "device": device.type, "compiled": device.type == "cuda"}
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        images = torch.randint(0, 256, (request["batch"], height, width, 3), dtype=torch.uint8)
        if device.type == "cuda":
            images = images.pin_memory()
        with torch.inference_mode():
            for _ in range(request.get("warm_up", 0)):
                run(compiled, images, device)
            times = [run(compiled, images, device) for _ in range(request["calls"])]
        print(json.dumps({"ms": times}), flush=True)


def run(network: Any, images: Tensor, device: torch.device) -> float:
    """Time one call, host to host."""
    start = time.perf_counter()
    heads = network(images.to(device, non_blocking=True))
    for head in heads:
        head.cpu()
    return 1e3 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
