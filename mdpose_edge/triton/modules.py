"""Which modules a module needs to be imported on a machine that has none of ours."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path


def imported_modules(names: Iterable[str]) -> dict[str, Path]:
    """Follow the imports at the top of modules, within the packages that they are of.

    What a function imports when it is called, and what stands under `if TYPE_CHECKING`, is not followed.

    Args:
        names: dotted names of modules.

    Returns:
        The file of each module that importing these loads, themselves and the packages around them included, by its
        path from the folder of the packages.
    """
    waiting = list(names)
    packages = {name.partition(".")[0] for name in waiting}
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        spec = find_spec(name) if name.partition(".")[0] in packages and name not in found else None
        if spec is None or spec.origin is None:  # another package's, or a name inside a module
            continue
        found[name] = Path(spec.origin)
        waiting += [name.rpartition(".")[0]] * ("." in name)
        waiting += _imports(ast.parse(found[name].read_text(encoding="utf-8")))
    return {_relative(name, path): path for name, path in sorted(found.items())}


def _imports(module: ast.Module) -> Iterator[str]:
    for node in module.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _relative(name: str, path: Path) -> str:
    parts = name.split(".")
    return "/".join([*parts, path.name] if path.name == "__init__.py" else [*parts[:-1], path.name])
