"""mdpose-edge: multi-person pose estimation, trained, quantized, deployed and checked.

Nothing heavy is imported here; the public names below load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "PoseEstimator": "mdpose_edge.estimator",
    "Poses": "mdpose_edge.poses",
    "ModelSpec": "mdpose_edge.spec",
    "MdposeError": "mdpose_edge.errors",
}

__all__ = ["MdposeError", "ModelSpec", "PoseEstimator", "Poses", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
