"""Who may import what: import-linter reads the source, these tests run it, and each catches what the other misses."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mdpose_edge.families.registry import FAMILIES
from tests.architecture.package import (
    DEVICE_MODULES,
    MODULES,
    OPTIONAL_PACKAGES,
    PACKAGE,
    PYPROJECT,
    REPOSITORY,
    module_name,
)

TRAINING_PACKAGES = {"torch", "torchvision", "timm"}
HEAVY_PACKAGES = {*OPTIONAL_PACKAGES, "cv2", "numpy"}


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def block(packages: tuple[str, ...]) -> str:
    """Return code after which importing any of the packages fails."""
    return f"import sys; sys.modules.update(dict.fromkeys({packages!r}))\n"


def names_passed_to_importers(path: Path) -> set[str]:
    """Collect the packages a file imports by name: require("torch", ...), import_module("torch")."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function in {"require", "import_module", "__import__"}:
                found.add(str(node.args[0].value).partition(".")[0])
    return found


def test_import_contracts_hold() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [lint_imports, "--no-cache", "--no-logo"], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_family_is_named_where_it_must_be() -> None:
    contracts = PYPROJECT["tool"]["importlinter"]["contracts"]
    (held,) = (contract["protected_modules"] for contract in contracts if contract["id"] == "families")
    folders = {f"mdpose_edge.families.{path.parent.name}" for path in (PACKAGE / "families").glob("*/__init__.py")}
    assert set(held) == set(FAMILIES.values()) == folders


@pytest.mark.parametrize("name", MODULES)
def test_module_imports_where_everything_is_installed(name: str) -> None:
    importlib.import_module(name)


@pytest.mark.parametrize("name", DEVICE_MODULES)
def test_device_module_imports_on_the_bare_install(name: str) -> None:
    result = run_python(block(OPTIONAL_PACKAGES) + f"import {name}")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", DEVICE_MODULES)
def test_device_module_does_not_ask_for_torch_by_name(name: str) -> None:
    (path,) = [path for path in PACKAGE.rglob("*.py") if module_name(path) == name]
    assert not names_passed_to_importers(path) & TRAINING_PACKAGES


@pytest.mark.parametrize("package", [name for name in MODULES if (PACKAGE.parent / name.replace(".", "/")).is_dir()])
def test_package_init_imports_nothing_heavy(package: str) -> None:
    assert loaded_after(f"import {package}") == set()


def test_each_engine_of_a_graph_is_entered_by_one_door() -> None:
    """Sessions are opened, and graphs read and compiled, in one module an engine: elsewhere options would drift."""
    doors = {
        "InferenceSession": "onnxruntime_session.py",
        "SessionOptions": "onnxruntime_session.py",
        "Core": "openvino_session.py",
        "compile_model": "openvino_session.py",
        "read_model": "openvino_session.py",
    }
    found = {
        (node.attr, path.name)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in doors
    }
    assert found == set(doors.items())


def test_command_line_imports_nothing_heavy() -> None:
    assert loaded_after("import mdpose_edge.cli") == set()


def test_help_answers_on_the_bare_install() -> None:
    code = block(OPTIONAL_PACKAGES) + "sys.argv = ['mdpose-edge', '--help']; from mdpose_edge.cli import main; main()"
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert "Usage" in result.stdout


def loaded_after(statement: str) -> set[str]:
    """Run a statement in a fresh interpreter and give the heavy packages it loaded."""
    result = run_python(f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)))")
    assert result.returncode == 0, result.stderr
    return HEAVY_PACKAGES & set(json.loads(result.stdout))
