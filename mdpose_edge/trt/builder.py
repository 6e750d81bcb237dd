"""A graph becomes a plan: TensorRT's builder, driven by a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mdpose_edge.bundle import Bundle
from mdpose_edge.common.progress import Progress
from mdpose_edge.errors import EngineError
from mdpose_edge.trt import capabilities
from mdpose_edge.trt.cuda import MIB
from mdpose_edge.trt.platforms import calibration_header
from mdpose_edge.trt.recipe import Recipe

_KEPT_MESSAGES = 20


@dataclass(frozen=True)
class SerializedEngine:
    """A serialized engine that was built in this process."""

    data: bytes
    timing: bytes
    """What the builder measured, for the next build."""
    gpu_convolutions: tuple[str, ...]
    """Convolutions that NVDLA cannot take, by ONNX node; empty where NVDLA was not asked for."""


def make_logger(trt: Any) -> Any:
    """Make a logger that keeps TensorRT's warnings and errors, the only account of why a call gave None."""
    wanted = (trt.ILogger.Severity.WARNING, trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)
    serious = wanted[1:]

    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps the last messages, quietly."""

        def __init__(self) -> None:
            super().__init__()
            self.messages: list[tuple[bool, str]] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in wanted:
                self.messages = [*self.messages, (severity in serious, msg)][-_KEPT_MESSAGES:]

        def reason(self) -> str:
            """Return the last error, or the last warning where there was none."""
            errors = [text for is_error, text in self.messages if is_error]
            texts = errors or [text for _, text in self.messages]
            return " ".join(texts[-1].split()) if texts else "no reason"

    return Logger()


def make_builder(trt: Any, logger: Any) -> Any:
    """Make a builder.

    Raises:
        EngineError: TensorRT cannot use the GPU; it then raises a TypeError and logs the reason.
    """
    try:
        return trt.Builder(logger)
    except TypeError as error:
        reason = logger.reason()
        # 35 is cudaErrorInsufficientDriver, also of a machine without any driver.
        do = (
            "update the NVIDIA driver to one for TensorRT's CUDA"
            if "error: 35" in reason
            else "check the NVIDIA driver"
        )
        raise EngineError("GPU", expected="a GPU and driver that TensorRT can use", got=f'"{reason}"', do=do) from error


def build_plan(
    trt: Any,
    bundle: Bundle,
    recipe: Recipe,
    *,
    workspace_mib: int,
    nvdla_core: int | None,
    timing: bytes,
    progress: Progress,
) -> SerializedEngine:
    """Build a plan; the CUDA context that it is for must be current.

    Args:
        trt: TensorRT's module.
        bundle: with its hashes checked.
        recipe: of the bundle, with the machine checked against it.
        workspace_mib: how much memory a kernel may use beside the tensors.
        nvdla_core: to build for, or None for the GPU.
        timing: an earlier build's measurements, or b"".
        progress: called as the builder goes on, where this TensorRT reports it.

    Raises:
        EngineError: the graph is refused, or nothing was built; TensorRT's reason is in it.
    """
    logger = make_logger(trt)
    builder = make_builder(trt, logger)
    network = builder.create_network(capabilities.network_flags(trt, recipe.typing))
    # The parser owns the weights that the network points to: it lives as long as the build.
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(bundle.graph.read_bytes()):
        reasons = " ".join(str(parser.get_error(i)) for i in range(parser.num_errors)) or logger.reason()
        raise _refused(bundle, "load", reasons)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mib * MIB)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    capabilities.set_flags(trt, config, recipe.flags, recipe.cleared_flags)
    capabilities.use_own_kernels(trt, config)
    capabilities.keep_to_one_stream(config)
    capabilities.watch_progress(trt, config, progress)
    cache = config.create_timing_cache(timing)
    if cache is not None:
        config.set_timing_cache(cache, ignore_mismatch=False)
    scales = _calibrator(trt, bundle, recipe)
    if scales is not None:
        capabilities.set_calibrator(config, scales)
    on_gpu: tuple[str, ...] = ()
    if nvdla_core is not None:
        on_gpu = _use_nvdla(trt, builder, network, config, nvdla_core)
    built = builder.build_serialized_network(network, config)
    if built is None:
        raise _refused(bundle, "build", logger.reason())
    after = config.get_timing_cache()
    return SerializedEngine(bytes(built), b"" if after is None else bytes(after.serialize()), on_gpu)


def _use_nvdla(trt: Any, builder: Any, network: Any, config: Any, core: int) -> tuple[str, ...]:
    """Put all on NVDLA that it takes; name the convolutions that it does not."""
    if core >= builder.num_DLA_cores:
        expected, got = f"NVDLA core {core}", f"{builder.num_DLA_cores} cores"
        raise EngineError("NVDLA", expected=expected, got=got, do="choose another with --nvdla-core")
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    kinds = (trt.LayerType.CONVOLUTION, trt.LayerType.DECONVOLUTION)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    return tuple(layer.name for layer in layers if layer.type in kinds and not config.can_run_on_DLA(layer))


def _calibrator(trt: Any, bundle: Bundle, recipe: Recipe) -> Any:
    """Make the calibrator of a bundle with scales for NVDLA, or return None.

    TensorRT would calibrate anew, on no images, if it did not take the file: its first line is checked here.
    """
    if recipe.calibration is None:
        return None
    path = bundle.path / recipe.calibration
    data = path.read_bytes()
    header = data.partition(b"\n")[0].decode("ascii", errors="replace")
    expected = calibration_header(capabilities.tensorrt_version(trt))
    if header != expected:
        do = f"export the bundle again with --trt {trt.__version__}"
        raise EngineError(str(path), expected=f"the first line {expected}", got=header, do=do)
    return capabilities.calibrator(trt, data)


def _refused(bundle: Bundle, verb: str, reason: str) -> EngineError:
    return EngineError(
        str(bundle.graph),
        expected=f"a graph that tensorrt can {verb}",
        got=f'"{" ".join(reason.split())}"',
        do="free memory if it ran out, else export the bundle again for this TensorRT",
    )


def engine_description(trt: Any, engine: Any) -> str:
    """Ask an engine what it consists of, as JSON."""
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def load_engine(trt: Any, logger: Any, plan: bytes, nvdla_core: int | None) -> tuple[Any, Any]:
    """Deserialize a plan that this machine built; nothing else may be passed here, for a plan is code.

    Returns:
        The runtime, which must outlive the engine, and the engine.

    Raises:
        EngineError: TensorRT refuses it.
    """
    try:
        runtime = trt.Runtime(logger)
    except TypeError as error:
        raise EngineError(
            "GPU", expected="a GPU that TensorRT can use", got=f'"{logger.reason()}"', do="check the NVIDIA driver"
        ) from error
    if nvdla_core is not None:
        runtime.DLA_core = nvdla_core  # must be set before: the engine runs on core 0 otherwise
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        do = "build it again with mdpose-edge build --force"
        raise EngineError("engine", expected="a plan that TensorRT loads", got=f'"{logger.reason()}"', do=do)
    return runtime, engine
