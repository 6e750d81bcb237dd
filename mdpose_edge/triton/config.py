"""The config.pbtxt of each model in a repository: protobuf's text format, after Triton's model_config.proto.

A test holds the texts against that schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mdpose_edge.spec import ModelSpec
from mdpose_edge.triton.decode_step import FRAME_WH, pose_outputs


class _Word(str):
    """A value of an enumeration, which the text format does not quote."""


@dataclass(frozen=True)
class ServingOptions:
    """How a server shall run the models."""

    name: str = "pose"
    """Of the ensemble, which clients ask for; the other models append to it."""
    max_batch: int = 8
    """Images that the graph runs at a time, from one request or from several that wait together."""
    queue_delay_us: int = 2000
    """How long a request may wait for others to fill a batch."""
    instances: int = 1
    """Copies of the graph that run side by side."""

    @property
    def graph(self) -> str:
        """Name of the model that runs the graph."""
        return f"{self.name}_graph"

    @property
    def decode(self) -> str:
        """Name of the model that decodes."""
        return f"{self.name}_decode"


@dataclass(frozen=True)
class Tensor:
    """An input or output, without the batch."""

    name: str
    data_type: str
    dims: tuple[int, ...]

    def fields(self) -> dict[str, Any]:
        """Return it as the message ModelInput or ModelOutput."""
        return {"name": self.name, "data_type": _Word(self.data_type), "dims": list(self.dims)}


def graph_config(spec: ModelSpec, options: ServingOptions, backend: str, kind: str | None) -> str:
    """Configure the model that runs the graph, batched dynamically.

    Args:
        spec: the model's spec.
        options: names and sizes.
        backend: Triton's name of the engine.
        kind: the instances' kind where the backend has no choice ("KIND_CPU"), or None for the server's.
    """
    group: dict[str, Any] = {"count": options.instances}
    if kind is not None:
        group["kind"] = _Word(kind)
    image = image_tensor(spec)
    zeros = {"data_type": _Word(image.data_type), "dims": list(image.dims), "zero_data": True}
    return pbtxt(
        {
            "name": options.graph,
            "backend": backend,
            "max_batch_size": options.max_batch,
            "input": [image.fields()],
            "output": [tensor.fields() for tensor in head_tensors(spec)],
            "instance_group": [group],
            "dynamic_batching": {"max_queue_delay_microseconds": options.queue_delay_us},
            # The first run allocates, and on a GPU loads kernels: not with a client waiting.
            "model_warmup": [
                {"name": "zeros", "batch_size": 1, "inputs": [{"key": image.name, "value": zeros}]},
            ],
        }
    )


def decode_config(spec: ModelSpec, options: ServingOptions) -> str:
    """Configure the model that decodes, on the CPU."""
    return pbtxt(
        {
            "name": options.decode,
            "backend": "python",
            "max_batch_size": options.max_batch,
            "input": [tensor.fields() for tensor in (*head_tensors(spec), size_tensor())],
            "output": [tensor.fields() for tensor in pose_tensors(spec)],
            "instance_group": [{"count": options.instances, "kind": _Word("KIND_CPU")}],
        }
    )


def ensemble_config(spec: ModelSpec, options: ServingOptions) -> str:
    """Configure the ensemble: image to graph, head tensors and frame sizes to decode."""
    image, sizes = image_tensor(spec), size_tensor()
    heads = {tensor.name: tensor.name for tensor in head_tensors(spec)}
    poses = {tensor.name: tensor.name for tensor in pose_tensors(spec)}
    steps = [
        _step(options.graph, {image.name: image.name}, heads),
        _step(options.decode, {**heads, sizes.name: sizes.name}, poses),
    ]
    return pbtxt(
        {
            "name": options.name,
            "platform": "ensemble",
            "max_batch_size": options.max_batch,
            "input": [image.fields(), sizes.fields()],
            "output": [tensor.fields() for tensor in pose_tensors(spec)],
            "ensemble_scheduling": {"step": steps},
        }
    )


def image_tensor(spec: ModelSpec) -> Tensor:
    """Return the graph's input."""
    return Tensor(spec.input.name, "TYPE_UINT8", (spec.input.height, spec.input.width, 3))


def size_tensor() -> Tensor:
    """Return the decode step's own input."""
    return Tensor(FRAME_WH, "TYPE_INT32", (2,))


def head_tensors(spec: ModelSpec) -> tuple[Tensor, ...]:
    """Return the graph's outputs in the order of the spec."""
    return tuple(Tensor(head.name, "TYPE_FP32", spec.head_shape(head)) for head in spec.heads)


def pose_tensors(spec: ModelSpec) -> tuple[Tensor, ...]:
    """Return the ensemble's outputs."""
    types = {"float32": "TYPE_FP32", "int32": "TYPE_INT32"}
    return tuple(Tensor(name, types[dtype], shape) for name, (dtype, shape) in pose_outputs(spec).items())


def pbtxt(fields: Mapping[str, Any], indent: str = "") -> str:
    """Write a message in protobuf's text format.

    Args:
        fields: by name; a list of mappings is a repeated message, a list of numbers a repeated number.
        indent: before each line.
    """
    lines = []
    for name, value in fields.items():
        for item in value if isinstance(value, list) and value and isinstance(value[0], Mapping) else [value]:
            if isinstance(item, Mapping):
                lines.append(f"{indent}{name} {{\n{pbtxt(item, indent + '  ')}{indent}}}\n")
            else:
                lines.append(f"{indent}{name}: {_value(item)}\n")
    return "".join(lines)


def _value(value: Any) -> str:
    """Write a scalar or a list of numbers; JSON and the text format agree on these, but for words."""
    return str(value) if isinstance(value, _Word) else json.dumps(value)


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> dict[str, Any]:
    return {
        "model_name": model,
        "model_version": -1,
        "input_map": [{"key": key, "value": value} for key, value in inputs.items()],
        "output_map": [{"key": key, "value": value} for key, value in outputs.items()],
    }
