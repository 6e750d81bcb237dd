"""Which engines there are, and which one opens a given model.

To add an engine: write runtimes/<engine>_adapter.py with a class in the manner of base.CheckedAdapter, name it in
ENGINES, and give its package an extra of the engine's name in pyproject.toml. The conformance suite does the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from mdpose_edge.bundle import Bundle, open_bundle
from mdpose_edge.common.json_text import parse_json
from mdpose_edge.common.optional import available
from mdpose_edge.common.side_files import SideFiles, read_side_files, side_of_checkpoint
from mdpose_edge.errors import BundleError, CheckpointError, EngineError, MissingPackageError
from mdpose_edge.runtimes.base import CheckedAdapter, RuntimeAdapter
from mdpose_edge.shipped import model_path, source_path
from mdpose_edge.spec import ModelSpec

CHECKPOINT_SUFFIX = ".safetensors"
CHECKPOINT_TARGET = "torch"
"""`ModelSpec.target` of a checkpoint."""
MAX_HEADER_BYTES = 100_000_000
"""Of a safetensors file, as the format's own reader has it."""


@dataclass(frozen=True)
class Engine:
    """Where an engine's adapter is, and what it opens."""

    adapter: str
    """"module:class"; imported only when the engine is asked for."""
    targets: tuple[str, ...]
    """Values of `ModelSpec.target`."""
    simulates: tuple[str, ...] = ()
    """Targets of other engines whose graphs it computes as they are written, where it is asked for by name."""


ENGINES = {
    "onnxruntime": Engine(
        "mdpose_edge.runtimes.onnxruntime_adapter:OnnxRuntimeAdapter", ("onnx",), simulates=("tensorrt", "jetson")
    ),
    "openvino": Engine("mdpose_edge.runtimes.openvino_adapter:OpenVinoAdapter", ("openvino", "onnx")),
    "tensorrt": Engine("mdpose_edge.runtimes.tensorrt_adapter:TensorRtAdapter", ("tensorrt", "jetson")),
    "torch": Engine("mdpose_edge.runtimes.torch_adapter:TorchAdapter", (CHECKPOINT_TARGET,)),
}
"""By name; a target's default engine is the first that opens it."""


def open_engine(
    model: str | Path, runtime: str | None = None, threads: int | None = None, *, option: str = "--runtime"
) -> tuple[ModelSpec, RuntimeAdapter]:
    """Open a model on an engine.

    Args:
        model: a bundle's directory, a .safetensors checkpoint, or the name of a shipped model.
        runtime: the engine's name, or None for the default of the model's target.
        threads: CPU threads of the engine, or None for its own choice.
        option: how the command line names `runtime`, for what errors advise.

    Returns:
        The model's spec, and the engine with the graph loaded.

    Raises:
        EngineError: no such engine, one that does not open such a model, or one that fails.
        MissingPackageError: the engine is not installed.
        BundleError, SpecError, CheckpointError: the model cannot be opened.
    """
    if runtime is not None and runtime not in ENGINES:
        raise EngineError("runtime", expected=f"one of {', '.join(ENGINES)}", got=runtime, do="choose one of these")
    path = model_path(model, runtime)
    source = path if _is_checkpoint(path) else open_bundle(path)
    target = source.spec.target if isinstance(source, Bundle) else CHECKPOINT_TARGET
    engine = _engine_for(target, runtime, str(path), option)
    if isinstance(source, Bundle) and target in ENGINES[engine].simulates:
        _check_simulates(source, engine)
    try:
        adapter = load_adapter(engine, source, threads)
    except MissingPackageError as error:
        others = _simulators(source) if isinstance(source, Bundle) else []
        if not others:
            raise
        do = f"{error.do}, or use {option} {' or '.join(others)}, which computes this graph as it is written"
        raise MissingPackageError(error.where, expected=error.expected, got=error.got, do=do) from error
    return adapter.spec, adapter


def read_model_spec(model: str | Path) -> ModelSpec:
    """Read what a model says of itself, without its weights, an engine or torch.

    Args:
        model: a bundle's directory, a .safetensors checkpoint, or the name of a shipped model: its checkpoint is read.

    Raises:
        BundleError, SpecError, CheckpointError: the model cannot be opened.
    """
    path = source_path(model)
    return _read_checkpoint_spec(path) if _is_checkpoint(path) else open_bundle(path).spec


def read_side(model: str | Path, spec: ModelSpec, runtime: str | None = None) -> SideFiles:
    """Read what a model's decoder needs beside its spec; most need nothing.

    Args:
        model: as for `open_engine`.
        spec: of the model.
        runtime: the engine that it was opened with.

    Raises:
        BundleError: a side file is missing, altered, or no such file.
    """
    path = model_path(model, runtime)
    return side_of_checkpoint(path) if path.is_file() else read_side_files(path, spec.files)


def default_engine(target: str, where: str = "") -> str:
    """Name the engine that opens a target when nobody chooses.

    Raises:
        EngineError: no engine of this version opens it.
    """
    for name, engine in ENGINES.items():
        if target in engine.targets:
            return name
    known = sorted({target for engine in ENGINES.values() for target in engine.targets})
    raise EngineError(
        where, expected=f"a model for one of {', '.join(known)}", got=f"one for {target}", do="update mdpose-edge"
    )


def load_adapter(engine: str, source: Bundle | Path, threads: int | None = None) -> CheckedAdapter:
    """Load a model that is known to suit an engine; see `open_engine`."""
    module, _, name = ENGINES[engine].adapter.partition(":")
    adapter: CheckedAdapter = getattr(import_module(module), name)(source, threads=threads)
    return adapter


def _is_checkpoint(path: Path) -> bool:
    if not path.exists():
        expected = f"a bundle directory or a {CHECKPOINT_SUFFIX} checkpoint"
        raise BundleError(str(path), expected=expected, got="no such file", do="correct the path")
    if path.is_file() and path.suffix != CHECKPOINT_SUFFIX:
        raise CheckpointError(
            str(path),
            expected=f"a bundle directory or a {CHECKPOINT_SUFFIX} checkpoint",
            got=f"a {path.suffix or 'nameless kind of'} file",
            do="give the directory around a graph, or the checkpoint that mdpose-edge train wrote",
        )
    return path.is_file()


def _engine_for(target: str, runtime: str | None, where: str, option: str) -> str:
    if runtime is None:
        return default_engine(target, where)
    if target not in ENGINES[runtime].targets + ENGINES[runtime].simulates:
        suited = [name for name, engine in ENGINES.items() if target in engine.targets]
        raise EngineError(
            where,
            expected=f"a model for {' or '.join(ENGINES[runtime].targets)}, which {runtime} opens",
            got=f"one for {target}",
            do=f"use {option} {' or '.join(suited)}, or export it for {runtime}" if suited else "update mdpose-edge",
        )
    return runtime


def _simulators(bundle: Bundle) -> list[str]:
    """List the engines on this machine that compute a bundle's graph as it is written, in the place of its own."""
    found = [name for name, engine in ENGINES.items() if bundle.spec.target in engine.simulates and available(name)]
    return found if found and _states_precision(bundle) else []


def _states_precision(bundle: Bundle) -> bool:
    """Say whether a graph for TensorRT is of the precision that its engine has."""
    from mdpose_edge.trt.recipe import read_recipe

    recipe = read_recipe(bundle)
    return recipe.calibration is None and (recipe.precision != "fp16" or recipe.typing == "strong")


def _check_simulates(bundle: Bundle, engine: str) -> None:
    """Refuse a float32 graph that only TensorRT's flags or calibration cache make float16 or int8."""
    if _states_precision(bundle):
        return
    expected = f"a graph that states its precision, for {engine} to compute"
    got, do = f"one that the device makes {bundle.spec.precision}", "run it there, after mdpose-edge build"
    raise EngineError(str(bundle.path), expected=expected, got=got, do=do)


def _read_checkpoint_spec(path: Path) -> ModelSpec:
    """Read the header of a safetensors file: its length as 8 bytes, little-endian, then JSON; the tensors follow."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MAX_HEADER_BYTES:
                raise ValueError(f"a header of {length} bytes")
            header, size = parse_json(file.read(length)), path.stat().st_size
        text = header.pop("__metadata__")["spec"]
        whole = 8 + length + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
        if not isinstance(text, str):
            raise TypeError(f"a spec that is a {type(text).__name__}")
    except OSError as error:
        raise CheckpointError(str(path), expected="a readable file", got=str(error.strerror), do="check it") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        expected, do = "a ModelSpec in the header of a safetensors file", "give a checkpoint of mdpose-edge train"
        raise CheckpointError(str(path), expected=expected, got="none", do=do) from error
    if size != whole:
        expected, do = f"a whole safetensors file of {whole} bytes", "copy it here again"
        raise CheckpointError(str(path), expected=expected, got=f"{size} bytes", do=do)
    return ModelSpec.from_json(text, str(path))
