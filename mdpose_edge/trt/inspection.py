"""What was built, held against what was asked: the precision and the place of each convolution, and the reformats.

Convolutions are nearly all of the arithmetic of these networks, and their ONNX names survive into the engine: in the
name of a layer, or, where several became one, in its metadata.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mdpose_edge.errors import EngineError
from mdpose_edge.trt.recipe import Recipe

WIDTH = {"int8": 8, "fp16": 16, "bf16": 16, "fp32": 32}
"""Bits by precision; a convolution that is wider than asked for fell back."""
_PRECISIONS = (
    ("int8", re.compile(r"int8", re.IGNORECASE)),
    ("bf16", re.compile(r"bf16|bfloat16", re.IGNORECASE)),
    ("fp16", re.compile(r"fp16|half", re.IGNORECASE)),
    ("fp32", re.compile(r"fp32|float", re.IGNORECASE)),
)
_SEPARATORS = re.compile(r" \+ | \|\| |\[ONNX Layer: |\]|\x1e|, ")
"""Between the names of layers that became one: in names, and in the metadata of 8.6 and newer."""


@dataclass(frozen=True)
class Inspection:
    """The comparison of an engine with its recipe."""

    asked: Mapping[str, int]
    """Convolutions by the precision asked for."""
    built: Mapping[str, int]
    """Convolutions by the precision found; "nvdla" for those on it, "unknown" for those that no layer names."""
    other_precision: tuple[str, ...]
    """ONNX names of convolutions that are wider than asked for, or that no layer names."""
    off_nvdla: tuple[str, ...]
    """ONNX names of convolutions on the GPU although NVDLA was asked for."""
    layers: int
    nvdla_layers: int
    """Each stands for many layers of the graph: a part that NVDLA runs as a whole."""
    reformats: int

    def summary(self) -> dict[str, object]:
        """Return the comparison as JSON."""
        return {key: dict(value) if isinstance(value, Mapping) else value for key, value in vars(self).items()}


def inspect_engine(
    description: str, recipe: Recipe, nvdla_core: int | None, gpu_convolutions: tuple[str, ...]
) -> Inspection:
    """Read the inspector's JSON.

    Args:
        description: of builder.engine_description.
        recipe: of the bundle.
        nvdla_core: that was built for, or None.
        gpu_convolutions: see builder.SerializedEngine.

    Raises:
        EngineError: TensorRT's description cannot be read, so that nothing is known of the engine.
    """
    layers = _read_layers(description)
    found: dict[str, str] = {}
    on_gpu = set(gpu_convolutions)
    for entry in layers:
        if _is_nvdla(entry):
            continue
        for name in _names(entry):
            if name in recipe.convolutions and not _is_reformat(entry):
                found[name] = _widest(found.get(name), _precision(entry))
                on_gpu.add(name)
    asked = dict(recipe.convolutions)
    if nvdla_core is not None:
        found.update({name: "nvdla" for name in asked if name not in on_gpu})
    built = {name: found.get(name, "unknown") for name in asked}
    wider = [n for n, wanted in asked.items() if built[n] != "nvdla" and WIDTH.get(built[n], 64) > WIDTH[wanted]]
    return Inspection(
        asked=Counter(asked.values()),
        built=Counter(built.values()),
        other_precision=tuple(wider),
        off_nvdla=tuple(name for name in asked if name in on_gpu) if nvdla_core is not None else (),
        layers=len(layers),
        nvdla_layers=sum(map(_is_nvdla, layers)),
        reformats=sum(map(_is_reformat, layers)),
    )


def check_inspection(found: Inspection, recipe: Recipe, nvdla_core: int | None) -> None:
    """Refuse an engine that differs from its recipe by more than the recipe's limits.

    Raises:
        EngineError: naming the first layers that fell back.
    """
    total = max(1, len(recipe.convolutions))
    limits = recipe.limits
    for names, limit, what, do in (
        (
            found.other_precision,
            limits.other_precision,
            f"in {recipe.precision}",
            "export with --precision fp16 or fp32",
        ),
        (found.off_nvdla, limits.off_nvdla, "on NVDLA", "export the bundle without --nvdla"),
    ):
        if len(names) > limit * total:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise EngineError(
                "engine",
                expected=f"at least {total - int(limit * total)} of {total} convolutions {what}",
                got=f"{total - len(names)}: TensorRT fell back for {', '.join(names[:3])}{more}",
                do=f"{do}, or use another TensorRT",
            )
    if nvdla_core is not None and not found.nvdla_layers:
        do = "export the bundle without --nvdla"
        raise EngineError("engine", expected="layers on NVDLA", got="none", do=do)


def _read_layers(description: str) -> list[Mapping[str, Any]]:
    try:
        layers = json.loads(description)["Layers"]
        if not layers or not all(isinstance(entry, dict) for entry in layers):
            raise ValueError("layers without details")
    except (ValueError, KeyError, TypeError) as error:
        expected, do = "TensorRT's account of each layer", "report this with the version of TensorRT"
        raise EngineError("engine", expected=expected, got=f"an unreadable one: {error}", do=do) from error
    return list(layers)


def _names(entry: Mapping[str, Any]) -> set[str]:
    text = f"{entry.get('Name', '')}\x1e{entry.get('Metadata', '')}"
    return {part.strip() for part in _SEPARATORS.split(text)}


def _is_nvdla(entry: Mapping[str, Any]) -> bool:
    return str(entry.get("LayerType", "")).upper() == "DLA"


def _is_reformat(entry: Mapping[str, Any]) -> bool:
    return "reformat" in str(entry.get("LayerType", "")).lower()


def _precision(entry: Mapping[str, Any]) -> str:
    """Return the type that a layer computes in, which is that of its first input."""
    inputs = entry.get("Inputs") or [{}]
    text = " ".join(str(value) for key, value in inputs[0].items() if "Format" in key or "Datatype" in key)
    return next((name for name, pattern in _PRECISIONS if pattern.search(text)), "unknown")


def _widest(one: str | None, other: str) -> str:
    return other if one is None or WIDTH.get(other, 64) >= WIDTH.get(one, 64) else one
