"""Files as the authors publish them: narrow instances of their networks, and lists of the names at full size."""

from __future__ import annotations

import gzip
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load  # noqa: E402

from mdpose_edge.families.registry import training_of  # noqa: E402
from mdpose_edge.importers.pth import Stored  # noqa: E402
from mdpose_edge.importers.run import Converted, convert, source_of  # noqa: E402

GOLDENS = Path(__file__).parents[2] / "goldens"


@lru_cache
def _golden(golden: str) -> dict[str, Any]:
    packed = GOLDENS / f"{golden}.safetensors.gz"
    return load(gzip.decompress(packed.read_bytes()) if packed.exists() else packed.with_suffix("").read_bytes())


def weights_of(golden: str) -> dict[str, Any]:
    """Read the weights of a narrow instance, which goldens keep in half precision."""
    tensors = _golden(golden)
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def save_published(path: Path, weights: dict[str, Any], **rest: Any) -> Path:
    """Write weights as torch.save does, in its old form, alone or beside what else a run keeps."""
    content = {"epoch": 140, "state_dict": weights, **rest} if rest else weights
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def published_names(golden: str) -> dict[str, Stored]:
    """Give the names and shapes of a published size, with tensors that have no values."""
    text = gzip.decompress((GOLDENS / f"{golden}_names.tsv.gz").read_bytes()).decode()
    shapes = {}
    for line in text.splitlines()[1:]:
        name, shape, _ = line.split("\t")
        shapes[name] = () if shape == "scalar" else tuple(map(int, shape.split("x")))
    return {name: Stored(shape, partial(torch.empty, shape, device="meta")) for name, shape in shapes.items()}


def check_published(golden: str, source_name: str) -> Converted:
    """Convert the names of a published size, of which nothing is to be missing or left over."""
    converted = convert(published_names(golden), source_of(source_name), None, None, "a.pth")
    with torch.device("meta"):
        wanted = training_of(converted.spec.family).network(converted.spec).state_dict()
    assert {name: t.shape for name, t in converted.weights.items()} == {name: t.shape for name, t in wanted.items()}
    return converted
