"""The only door to optional packages."""

from __future__ import annotations

import importlib
import importlib.util
import os
from types import ModuleType

from mdpose_edge.errors import MissingPackageError

EXTRAS = {
    "av": "video",
    "faster_coco_eval": "eval",
    "huggingface_hub": "train",
    "nncf": "export",
    "onnx": "export",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "safetensors": "train",
    "tensorboard": "watch",
    "tensorrt": "tensorrt",
    "timm": "train",
    "torch": "train",
    "yaml": "train",
}
"""The extra that installs a package, by the name that is imported."""


_SETTINGS = {"onnxruntime": {"ORT_DISABLE_TELEMETRY": "1"}}
"""Of the environment, read at the import of a package: onnxruntime from 1.31 on gives the machine a name of its own in
~/.cache/Microsoft, leaves a file among the temporary ones, and reports to its vendor."""


def available(name: str) -> bool:
    """Say whether a package could be imported, without importing it."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a parent is missing, or the module is blocked in sys.modules
        return False


def require(name: str, *, extra: str, feature: str) -> ModuleType:
    """Import an optional package, or say how to get it.

    Args:
        name: the module to import, dotted names included.
        extra: the extra of this distribution that installs it.
        feature: what needs it, as it reads after "for".

    Raises:
        MissingPackageError: the package (not something inside it) is absent.
    """
    for variable, value in _SETTINGS.get(name.partition(".")[0], {}).items():
        os.environ.setdefault(variable, value)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise
        raise MissingPackageError(
            expected=f"the package {name.partition('.')[0]} for {feature}",
            got="none installed",
            do=f'run: pip install "mdpose-edge[{extra}]"',
        ) from error


def missing_package(error: ModuleNotFoundError) -> MissingPackageError | None:
    """Return what to say of an import that failed for want of an extra, or None where that is not the reason."""
    name = (error.name or "").partition(".")[0]
    if name not in EXTRAS or available(name):
        return None
    do = f'run: pip install "mdpose-edge[{EXTRAS[name]}]"'
    return MissingPackageError(expected=f"the package {name} for this command", got="none installed", do=do)
