"""What the package imports is what pyproject.toml declares: nothing arrives by the grace of another distribution."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

from tests.architecture.package import PACKAGE, PYPROJECT

OF_THE_SERVER = {"triton_python_backend_utils"}
"""Imported inside Triton's own Python alone."""
OTHER_NAMES = {"cv2": "opencv-python", "google": "protobuf", "pynvml": "nvidia-ml-py", "yaml": "pyyaml"}
"""Of distributions, where they are not their modules': a distribution that is not installed cannot be asked."""
IMPORTERS = {"require", "import_module", "available"}


def imports(path: Path) -> Iterator[tuple[str, str | None]]:
    """Return the top-level modules that a file imports, each with the extra that `require` advises, if it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0], None
        elif isinstance(node, ast.Call) and node.args and isinstance(name := node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            extras = [word.value for word in node.keywords if word.arg == "extra"]
            extra = extras[0].value if extras and isinstance(extras[0], ast.Constant) else None
            if function in IMPORTERS and isinstance(name.value, str):
                yield name.value.partition(".")[0], extra


def third_party() -> set[tuple[str, str | None]]:
    own = {*sys.stdlib_module_names, PACKAGE.name, *OF_THE_SERVER}
    return {found for path in PACKAGE.rglob("*.py") for found in imports(path) if found[0] not in own}


def normalised(requirement: str) -> str:
    """Name a requirement's distribution as PEP 503 has it: without extras, versions and markers, in one spelling."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]).lower()


@cache
def declared(extra: str | None) -> frozenset[str]:
    """Return the distributions that an extra brings, with those of the bare install; None is the latter alone."""
    project = PYPROJECT["project"]
    found = {normalised(requirement) for requirement in project["dependencies"]}
    for requirement in project["optional-dependencies"][extra] if extra else ():
        own = re.match(rf"{project['name']}\[(.*)\]", requirement)
        names = own.group(1).split(",") if own else []
        found |= frozenset[str]().union(*map(declared, names)) if own else {normalised(requirement)}
    return frozenset(found)


@cache
def distributions_of(module: str) -> frozenset[str]:
    """Return the distributions that a module may come from: several where they share a namespace."""
    installed = metadata.packages_distributions().get(module, [])
    return frozenset(map(normalised, installed or [OTHER_NAMES.get(module, module)]))


def test_every_import_is_declared() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    everything = frozenset[str]().union(*map(declared, extras))
    modules = {module for module, _ in third_party()}
    assert modules > {"numpy", "cv2", "torch", "rich"}
    assert sorted(module for module in modules if not distributions_of(module) & everything) == []


@pytest.mark.parametrize(
    ("module", "extra"), sorted({(module, extra) for module, extra in third_party() if extra is not None})
)
def test_the_extra_that_an_error_advises_brings_the_package(module: str, extra: str) -> None:
    assert distributions_of(module) & declared(extra)
