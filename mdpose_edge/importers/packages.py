"""What importing weights needs beside the bare install."""

from __future__ import annotations

from mdpose_edge.common.optional import require


def require_packages() -> None:
    """Refuse where a package is absent.

    Raises:
        MissingPackageError: one is.
    """
    for package in ("torch", "timm", "safetensors"):
        require(package, extra="train", feature="importing weights")
