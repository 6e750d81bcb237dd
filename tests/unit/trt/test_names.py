"""Every name that our code asks of TensorRT, read from the source, exists from 8.5 to 11, or is asked for with care."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from mdpose_edge import runtimes, trt
from mdpose_edge.trt.capabilities import tensorrt_version
from mdpose_edge.trt.platforms import Version, parse_version
from tests.unit.trt.name_table import names_of, read_ranges

OLDEST, NEWEST = (8, 5), (11, 1)
"""The span to hold names against; NEWEST is the last version whose bindings were public."""
CAREFUL = "capabilities.py"
"""The one module that may ask for a name that not every version has: by getattr or hasattr."""
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
    "layer": "ILayer",
    "cache": "ITimingCache",
    "after": "ITimingCache",
    "_engine": "ICudaEngine",
    "_context": "IExecutionContext",
    "_runtime": "Runtime",
}
"""The class of each object of TensorRT, by the one name that our code calls it."""
ALIASES = {"ILogger.Severity": "Severity"}
SOURCES_ALONE = {"INetworkDefinition.serialize"}
"""In the sources of the bindings, which the table was read from, and not in NVIDIA's own wheel of 8.5.3.1."""
OURS = {"__version__"}
"""Of the module itself, in every version."""
ADAPTER = Path(str(runtimes.__file__)).with_name("tensorrt_adapter.py")
FILES = [path for path in sorted(Path(str(trt.__file__)).parent.glob("*.py")) if path.name != "graph.py"]
FILES.append(ADAPTER)


def attribute_path(node: ast.expr) -> list[str] | None:
    """Read `trt.A.B` as its names, or `self._engine.C` without the self."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return [*([] if node.id == "self" else [node.id]), *reversed(names)]


def qualified(path: list[str]) -> str | None:
    """Return TensorRT's name for what is asked for, or None where it is none of TensorRT's."""
    if path[0] in ("trt", "_trt"):
        name = ".".join(path[1:])
        for alias, real in ALIASES.items():
            name = name.replace(alias, real)
        return name if name and name not in OURS else None
    if path[0] in CLASSES and len(path) > 1:
        return f"{CLASSES[path[0]]}.{path[1]}"
    return None


def plain_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield each name that is asked for by attribute access, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (path := attribute_path(node)) and (name := qualified(path)):
            yield name, node.lineno


def careful_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield each name that is asked for by getattr or hasattr with a constant, or listed to be."""
    for node in ast.walk(tree):
        if not (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr")
        ):
            continue
        place, asked = node.args[0], node.args[1]
        if isinstance(asked, ast.Constant) and (path := attribute_path(place)):
            if path == ["trt"]:
                yield str(asked.value), node.lineno
            elif name := qualified([*path, str(asked.value)]):
                yield name, node.lineno


def spans(name: str) -> list[tuple[Version, Version]]:
    return read_ranges().get(name, [])


def is_everywhere(name: str) -> bool:
    return any(first[:2] <= OLDEST and last[:2] >= NEWEST for first, last in spans(name))


def is_somewhere(name: str) -> bool:
    return any(first[:2] <= NEWEST and last[:2] >= OLDEST for first, last in spans(name))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_names_asked_for_plainly_are_in_every_version(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = [f"{path.name}:{line}: {name} {spans(name)}" for name, line in plain_names(tree) if not is_everywhere(name)]
    guarded = {name for name, _ in careful_names(tree)} if path.name == CAREFUL else set()
    excused = {"IBuilderConfig.int8_calibrator", "IBuilderConfig.progress_monitor", "IBuilderConfig.max_aux_streams"}
    # Set only after the class, the calibrator's or the monitor's, or the attribute itself was found to exist.
    assert [entry for entry in late if not any(f" {name} " in entry for name in guarded | excused)] == []
    if path.name != CAREFUL:
        assert late == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_names_asked_for_with_care_are_in_some_version_and_in_one_module(path: Path) -> None:
    found = dict(careful_names(ast.parse(path.read_text(encoding="utf-8"))))
    assert [name for name in found if not is_somewhere(name)] == []
    assert path.name == CAREFUL or not found


def test_the_walk_finds_what_is_asked_for() -> None:
    names = {name for path in FILES for name, _ in plain_names(ast.parse(path.read_text(encoding="utf-8")))}
    assert {
        "Builder", "Builder.build_serialized_network", "IBuilderConfig.set_memory_pool_limit", "OnnxParser.parse",
        "IExecutionContext.execute_async_v3", "ICudaEngine.num_io_tensors", "Runtime.deserialize_cuda_engine",
        "MemoryPoolType.WORKSPACE", "TensorIOMode.INPUT", "Severity.ERROR", "ILayer.type",
    } <= names  # fmt: skip
    careful = {name for path in FILES for name, _ in careful_names(ast.parse(path.read_text(encoding="utf-8")))}
    assert {"BuilderFlag.FP16", "IProgressMonitor", "IInt8EntropyCalibrator2"} <= careful


@pytest.mark.parametrize(
    "source", ["builder.build_engine(n, c)", "config.max_workspace_size = 1", "trt.BuilderFlag.FP16"]
)
def test_a_name_that_went_is_caught(source: str) -> None:
    assert [name for name, _ in plain_names(ast.parse(source)) if not is_everywhere(name)] != []


def test_a_name_that_never_was_is_caught() -> None:
    assert not is_somewhere("IBuilderConfig.dla_core")
    assert is_everywhere("IBuilderConfig.DLA_core")


FLAG_NAMES = [("FP16", "weak"), ("INT8", "weak"), ("GPU_FALLBACK", "weak"), ("TF32", "weak"), ("TF32", "strong")]


@pytest.mark.parametrize(("flag", "typing"), FLAG_NAMES)
def test_the_flags_of_recipes_exist_as_long_as_their_typing(flag: str, typing: str) -> None:
    first, last = (parse_version("8.5"), parse_version("10.11")) if typing == "weak" else ((10, 12), NEWEST)
    assert any(low[:2] <= first and high[:2] >= last for low, high in spans(f"BuilderFlag.{flag}"))


@pytest.mark.parametrize("name", ["EXPLICIT_BATCH", "STRONGLY_TYPED"])
def test_the_network_flags_exist_where_they_are_needed(name: str) -> None:
    needed = ((8, 5), (9, 1)) if name == "EXPLICIT_BATCH" else ((10, 12), (10, 16))
    found = spans(f"NetworkDefinitionCreationFlag.{name}")
    assert any(low[:2] <= needed[0] and high[:2] >= needed[1] for low, high in found)


def has(trt: ModuleType, name: str) -> bool:
    """Say whether a module has a name, its classes and their members included."""
    place: object = trt
    for part in name.replace("Severity", "ILogger.Severity").split("."):
        if not hasattr(place, part):
            return False
        place = getattr(place, part)
    return True


def test_the_installed_tensorrt_has_the_names_that_the_table_gives_it() -> None:
    """Runs wherever TensorRT is installed; it needs no GPU, and with --noconftest little else."""
    trt = pytest.importorskip("tensorrt", reason="the table is held against the real module where there is one")
    version = tensorrt_version(trt)
    assert [name for name in sorted(names_of(version) - SOURCES_ALONE) if not has(trt, name)] == []
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in FILES]
    asked = {name for tree in trees for name, _ in plain_names(tree)}
    careful = {name for tree in trees for name, _ in careful_names(tree)}
    assert sorted(name for name in asked | careful if has(trt, name) is not is_in(name, version)) == []


def is_in(name: str, version: Version) -> bool:
    return any(first[:2] <= version[:2] <= last[:2] for first, last in spans(name))
