"""The only door to optional packages."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from mdpose_edge.errors import MissingPackageError


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
