"""A TensorRT for machines without a GPU: exactly the names of one version, on top of onnxruntime.

The names come from tests/goldens/tensorrt_names.tsv, read from NVIDIA's own bindings: code that uses one that the
version lacks meets an AttributeError, as it would on the device. A "plan" holds the graph, and frames are computed by
onnxruntime from the addresses that were bound: what the adapter gets are real numbers.
"""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from mdpose_edge.trt.platforms import parse_version
from tests.unit.trt.fake_pycuda import Machine
from tests.unit.trt.name_table import names_of

VERSIONS = ("8.5.1", "8.6.1", "10.3.0", "10.12.0", "10.16.2", "11.1.0")
"""One for each way of building: without and with progress, weak and strong typing, and what 11 removed."""


@dataclass
class Knobs:
    """How the fake behaves, and what it saw."""

    build_failure: str | None = None
    """What the builder logs before it gives None."""
    start_failure: str | None = None
    """What is logged where there is no GPU."""
    falls_back: set[str] = field(default_factory=set)
    """Names of convolutions that the builder makes in float32."""
    off_nvdla: set[str] = field(default_factory=set)
    """Names of convolutions that NVDLA does not take."""
    error: float = 0.0
    """Added to every output."""
    dies: type[BaseException] | None = None
    """Raised in the middle of a build, as when the process is killed."""
    context_refused: bool = False
    nvdla_cores: int = 2
    deserialized: list[bytes] = field(default_factory=list)
    timing: list[bytes] = field(default_factory=list)
    configs: list[Any] = field(default_factory=list)


def read(config: Any, name: str) -> Any:
    """Read an attribute of a fake, whether or not this version has it."""
    return object.__getattribute__(config, name)


def fake_tensorrt(version: str, machine: Machine, knobs: Knobs) -> ModuleType:
    """Make the module `tensorrt` of one version."""
    names = names_of(parse_version(version))
    trt = ModuleType("tensorrt")
    trt.__spec__ = ModuleSpec("tensorrt", None)  # packages that look for others look at it
    trt.__version__ = version  # type: ignore[attr-defined]

    class Gated:
        """Has the names of its class in this version, and no others."""

        def __getattribute__(self, name: str) -> Any:
            _check(type(self), name)
            return object.__getattribute__(self, name)

        def __setattr__(self, name: str, value: Any) -> None:
            _check(type(self), name)
            object.__setattr__(self, name, value)

    def _check(kind: type, name: str) -> None:
        if not name.startswith("_") and f"{kind.__name__}.{name}" not in names:
            raise AttributeError(f"'tensorrt.{kind.__name__}' object has no attribute '{name}'")

    def members(kind: str) -> type[enum.IntEnum]:
        found = sorted(name.partition(".")[2] for name in names if name.startswith(f"{kind}."))
        return enum.IntEnum(kind, {name: i for i, name in enumerate(found) if name.isupper() or "_" in name})

    for kind in (
        "BuilderFlag", "NetworkDefinitionCreationFlag", "MemoryPoolType", "ProfilingVerbosity", "TacticSource",
        "PreviewFeature", "DataType", "DeviceType", "LayerType", "TensorIOMode", "LayerInformationFormat",
    ):  # fmt: skip
        setattr(trt, kind, members(kind))
    severity = members("Severity")

    class ILogger:
        Severity = severity

        def log(self, severity: Any, msg: str) -> None:
            raise NotImplementedError

    def use_gpu(logger: Any) -> None:
        if knobs.start_failure is not None:
            logger.log(severity["WARNING"], knobs.start_failure)
            raise TypeError("pybind11::init(): factory function returned nullptr")
        assert machine.stack, "TensorRT needs a current CUDA context"

    class ITimingCache(Gated):
        def __init__(self, data: bytes) -> None:
            self._data = data

        def serialize(self) -> bytes:
            return self._data + b"+"

    class IBuilderConfig(Gated):
        def __init__(self) -> None:
            object.__setattr__(self, "_flags", {int(trt.BuilderFlag["TF32"])})
            object.__setattr__(self, "_pools", {})
            object.__setattr__(self, "_cache", ITimingCache(b""))
            object.__setattr__(self, "int8_calibrator", None)
            object.__setattr__(self, "default_device_type", trt.DeviceType["GPU"])
            object.__setattr__(self, "DLA_core", -1)
            object.__setattr__(self, "progress_monitor", None)
            object.__setattr__(self, "max_aux_streams", 1)

        def set_flag(self, flag: Any) -> None:
            self._flags.add(int(flag))

        def clear_flag(self, flag: Any) -> None:
            self._flags.discard(int(flag))

        def set_memory_pool_limit(self, pool: Any, nbytes: int) -> None:
            self._pools[pool.name] = nbytes

        def set_tactic_sources(self, bits: int) -> bool:
            object.__setattr__(self, "_tactics", bits)
            return True

        def set_preview_feature(self, feature: Any, on: bool) -> None:
            object.__setattr__(self, "_preview", feature.name)

        def create_timing_cache(self, data: bytes) -> ITimingCache:
            knobs.timing.append(data)
            return ITimingCache(data)

        def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
            assert not ignore_mismatch
            object.__setattr__(self, "_cache", cache)
            return True

        def get_timing_cache(self) -> ITimingCache:
            return self._cache  # type: ignore[no-any-return]

        def can_run_on_DLA(self, layer: Any) -> bool:
            return layer.name not in knobs.off_nvdla

    class ILayer(Gated):
        def __init__(self, node: Any) -> None:
            object.__setattr__(self, "name", node.name)
            kind = "CONVOLUTION" if node.op_type == "Conv" else "ACTIVATION"
            object.__setattr__(self, "type", trt.LayerType[kind])

    class INetworkDefinition(Gated):
        def __init__(self, flags: int) -> None:
            object.__setattr__(self, "_flags", flags)
            object.__setattr__(self, "_graph", b"")

        @property
        def num_layers(self) -> int:
            return len(_graph(self).graph.node)

        def get_layer(self, index: int) -> ILayer:
            return ILayer(_graph(self).graph.node[index])

    def _graph(network: Any) -> Any:
        return onnx.load_from_string(network._graph)

    class OnnxParser(Gated):
        def __init__(self, network: INetworkDefinition, logger: Any) -> None:
            object.__setattr__(self, "_network", network)
            object.__setattr__(self, "_error", "")

        def parse(self, data: bytes) -> bool:
            try:
                onnx.checker.check_model(onnx.load_from_string(data))
            except Exception as error:  # protobuf's DecodeError has no stable place
                object.__setattr__(self, "_error", f"Failed to parse ONNX: {error}")
                return False
            object.__setattr__(self._network, "_graph", data)
            return True

        @property
        def num_errors(self) -> int:
            return int(bool(self._error))

        def get_error(self, index: int) -> str:
            return str(self._error)

    class Builder(Gated):
        def __init__(self, logger: Any) -> None:
            use_gpu(logger)
            object.__setattr__(self, "_logger", logger)
            object.__setattr__(self, "num_DLA_cores", knobs.nvdla_cores)

        def create_network(self, flags: int = 0) -> INetworkDefinition:
            explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
            if explicit is not None and parse_version(version) < (10,):
                assert flags & 1 << int(explicit), "an implicit batch, which the ONNX parser refuses"
            return INetworkDefinition(flags)

        def create_builder_config(self) -> IBuilderConfig:
            config = IBuilderConfig()
            knobs.configs.append(config)
            return config

        def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
            _report_progress(config)
            if knobs.build_failure is not None:
                self._logger.log(severity["ERROR"], knobs.build_failure)
                return None
            flags = sorted(flag.name for flag in trt.BuilderFlag if int(flag) in config._flags)
            strong = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
            typed = parse_version(version) >= (11,) or (strong is not None and network._flags & 1 << int(strong))
            assert not (typed and {"FP16", "INT8"} & set(flags)), "precision flags on a strongly typed network"
            on_nvdla = read(config, "default_device_type").name == "DLA"
            calibration = read(config, "int8_calibrator")
            header = {
                "version": version,
                "gpu": machine.gpu,
                "flags": flags,
                "typed": bool(typed),
                "nvdla": on_nvdla,
                "cache": None if calibration is None else _scales(calibration),
            }
            return json.dumps(header).encode() + b"\n" + network._graph

    def _scales(calibration: Any) -> str:
        assert calibration.get_batch(["image"]) is None
        assert calibration.get_batch_size() == 1
        return hashlib.sha256(calibration.read_calibration_cache()).hexdigest()

    def _report_progress(config: Any) -> None:
        monitor = read(config, "progress_monitor")
        if monitor is not None:
            monitor.phase_start("Building Engine", None, 2)
            monitor.phase_start("Tactic Selection", "Building Engine", 5)
            assert monitor.step_complete("Tactic Selection", 0)
            monitor.phase_finish("Tactic Selection")
            assert monitor.step_complete("Building Engine", 0)
            monitor.phase_finish("Building Engine")
        if knobs.dies is not None:
            raise knobs.dies

    class EngineInspector(Gated):
        def __init__(self, engine: Any) -> None:
            object.__setattr__(self, "_engine", engine)

        def get_engine_information(self, format: Any) -> str:
            assert format == trt.LayerInformationFormat["JSON"]
            return json.dumps({"Layers": _layers(self._engine._header, self._engine._model), "Bindings": []})

    def _layers(header: dict[str, Any], model: Any) -> list[dict[str, Any]]:
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        producers = {output: node for node in model.graph.node for output in node.output}
        layers: list[dict[str, Any]] = [{"Name": "Reformatting CopyNode for Input", "LayerType": "Reformat"}]
        convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
        for node in convolutions:
            if header["nvdla"] and node.name not in knobs.off_nvdla:
                continue
            source = producers.get(node.input[0])
            quantized = source is not None and source.op_type == "DequantizeLinear"
            weight = constants.get(node.input[1])
            half = weight is not None and numpy_helper.to_array(weight).dtype == np.float16
            kind = "Row major linear FP32"
            if quantized and (header["typed"] or "INT8" in header["flags"]):
                kind = "Thirty-two wide channel vectorized row major Int8 format"
            elif half or (not header["typed"] and "FP16" in header["flags"]):
                kind = "Channel major FP16 format where channel % 8 == 0"
            elif header["typed"] and weight is None:
                kind = "Row major linear FP16 format"
            if node.name in knobs.falls_back:
                kind = "Row major linear FP32"
            inputs = [{"Name": node.input[0], "Format/Datatype": kind}]
            layers.append({"Name": f"{node.name} + Relu", "LayerType": "CaskConvolution", "Inputs": inputs})
        if header["nvdla"]:
            layers.append({"Name": "{ForeignNode[first...last]}", "LayerType": "DLA"})
        return layers

    class IExecutionContext(Gated):
        def __init__(self, engine: Any) -> None:
            object.__setattr__(self, "_engine", engine)
            object.__setattr__(self, "_addresses", {})

        def set_tensor_address(self, name: str, address: int) -> bool:
            assert isinstance(address, int)
            self._addresses[name] = address
            return True

        def execute_async_v3(self, handle: int) -> bool:
            engine, addresses = self._engine, dict(self._addresses)
            machine.streams[handle].add(lambda: engine._run(addresses))
            return True

    class ICudaEngine(Gated):
        def __init__(self, plan: bytes) -> None:
            header, _, graph = plan.partition(b"\n")
            model = onnx.load_from_string(graph)
            options = ort.SessionOptions()
            options.intra_op_num_threads = 1
            session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            for name, value in (("_header", json.loads(header)), ("_model", model), ("_session", session)):
                object.__setattr__(self, name, value)
            object.__setattr__(self, "_tensors", [*session.get_inputs(), *session.get_outputs()])

        @property
        def num_io_tensors(self) -> int:
            return len(self._tensors)

        def get_tensor_name(self, index: int) -> str:
            return str(self._tensors[index].name)

        def get_tensor_dtype(self, name: str) -> Any:
            kind = _named(self, name).type
            return trt.DataType[{"tensor(uint8)": "UINT8", "tensor(float)": "FLOAT"}[kind]]

        def get_tensor_shape(self, name: str) -> list[int]:
            return list(_named(self, name).shape)

        def get_tensor_mode(self, name: str) -> Any:
            inputs = {node.name for node in self._session.get_inputs()}
            return trt.TensorIOMode["INPUT" if name in inputs else "OUTPUT"]

        def create_engine_inspector(self) -> EngineInspector:
            return EngineInspector(self)

        def create_execution_context(self) -> IExecutionContext | None:
            return None if knobs.context_refused else IExecutionContext(self)

        def _run(self, addresses: dict[str, int]) -> None:
            (source,) = self._session.get_inputs()
            image = machine.memory[addresses[source.name]].reshape(source.shape)
            nodes = self._session.get_outputs()
            for node, value in zip(nodes, self._session.run(None, {source.name: image.copy()}), strict=True):
                target = machine.memory[addresses[node.name]].view(np.float32)
                target[:] = value.reshape(-1) + np.float32(knobs.error)

    def _named(engine: Any, name: str) -> Any:
        return next(node for node in engine._tensors if node.name == name)

    class Runtime(Gated):
        def __init__(self, logger: Any) -> None:
            use_gpu(logger)
            object.__setattr__(self, "_logger", logger)
            object.__setattr__(self, "DLA_core", -1)

        def deserialize_cuda_engine(self, plan: bytes) -> ICudaEngine | None:
            knobs.deserialized.append(plan)
            if json.loads(plan.partition(b"\n")[0])["version"] != version:
                self._logger.log(severity["ERROR"], "The engine plan file is not compatible with this version")
                return None
            return ICudaEngine(plan)

    class IProgressMonitor:
        def __init__(self) -> None:
            pass

    class IInt8EntropyCalibrator2:
        def __init__(self) -> None:
            pass

    for made in (Builder, OnnxParser, Runtime, ILogger, IProgressMonitor, IInt8EntropyCalibrator2):
        if made.__name__ in names:
            setattr(trt, made.__name__, made)
    return trt
