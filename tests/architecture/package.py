"""What the architecture tests know of the package, read from the tree rather than listed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "mdpose_edge"
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))

OPTIONAL_PACKAGES = (
    "faster_coco_eval",
    "nncf",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "pycocotools",
    "pycuda",
    "pynvml",
    "safetensors",
    "tensorboard",
    "tensorrt",
    "timm",
    "torch",
    "torchvision",
    "yaml",
)
"""Top-level modules that the bare install does not bring."""


def module_name(path: Path) -> str:
    """Return the dotted name of a source file of the package."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TORCH_SIDE = re.compile(
    r"mdpose_edge\.(train|export|importers|checkpoint|runtimes\.torch_adapter"
    r"|families\.(backbone|hourglass|pretrained|same_padding)"
    r"|families\.\w+\.(training|network|targets|loss|flow|underflow|blocks|fitting))(\.|$)"
)
"""What may import torch, by the name of the file: the contract `torch` in pyproject.toml says the same."""


def is_device_side(name: str) -> bool:
    """Say whether a module must work on the bare install."""
    return not TORCH_SIDE.match(name)


MODULES = sorted(module_name(path) for path in PACKAGE.rglob("*.py"))
DEVICE_MODULES = [name for name in MODULES if is_device_side(name)]
