"""The machine that a build runs on, and whether a recipe is for it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mdpose_edge.bundle import Bundle
from mdpose_edge.errors import EngineError
from mdpose_edge.machine.host import memory_available_mb
from mdpose_edge.machine.jetson import jetson_linux
from mdpose_edge.trt.capabilities import can_type, tensorrt_version
from mdpose_edge.trt.cuda import MIB, Cuda, Gpu
from mdpose_edge.trt.platforms import DEVICES, JETPACKS, check_gpu, jetpack_of_l4t, parse_version, show
from mdpose_edge.trt.recipe import Recipe

ROOT = Path("/")
MACHINE_ID_FILE = "etc/machine-id"
GRAPH_COPIES = 3
"""Of the graph's weights in memory while a build runs: the parsed network's, the builder's, and the engine's."""


@dataclass(frozen=True)
class Host:
    """What an engine is tied to."""

    tensorrt: str
    gpu: Gpu
    l4t: str | None
    """Version of Jetson Linux, see machine.jetson; None on other machines."""
    jetpack: str | None
    """The JetPack that it belongs to, or None where targets.py has none."""
    machine: str
    """Names this machine, as a digest; "" where it has no id, as in some containers."""


def describe_host(trt: Any, cuda: Cuda) -> Host:
    """Ask TensorRT, the driver and the system what this machine is."""
    l4t = jetson_linux(ROOT)
    release = None if l4t is None else jetpack_of_l4t(l4t)
    jetpack = None if release is None else release.version
    return Host(show(tensorrt_version(trt)), _with_cached_memory(cuda.describe()), l4t, jetpack, _machine())


def check_host(host: Host, trt: Any, bundle: Bundle, recipe: Recipe) -> None:
    """Refuse a machine that a bundle is not for.

    Raises:
        EngineError: another JetPack, TensorRT or GPU than the recipe says, or too little memory.
    """
    where = str(bundle.path)
    _check_jetson(host, where, recipe)
    version = parse_version(host.tensorrt)
    if version not in recipe.tensorrt or not can_type(trt, recipe.typing):
        raise EngineError(
            where,
            expected=f"TensorRT {recipe.tensorrt}",
            got=host.tensorrt,
            do=f"export the bundle again with --trt {show(version[:2])}",
        )
    reason = None if host.l4t is not None else check_gpu(version, host.gpu.compute_capability)
    if reason is not None:
        got = f"{host.gpu.name}, compute capability {show(host.gpu.compute_capability)}, and {reason}"
        raise EngineError(where, expected="a GPU that this TensorRT knows", got=got, do="install another TensorRT")


def check_memory(host: Host, bundle: Bundle, workspace_mib: int) -> None:
    """Refuse to build where memory will run out.

    Raises:
        EngineError: fewer MiB are free than the build needs.
    """
    needed = workspace_mib + GRAPH_COPIES * (bundle.graph.stat().st_size // MIB + 1)
    if host.gpu.free_mib < needed:
        raise EngineError(
            str(bundle.path),
            expected=f"{needed} MiB of free GPU memory to build",
            got=f"{host.gpu.free_mib} of {host.gpu.total_mib} MiB",
            do="close other programs, or lower the workspace with --workspace",
        )


def _check_jetson(host: Host, where: str, recipe: Recipe) -> None:
    jetson = recipe.jetson
    if jetson is None:
        if host.l4t is not None:
            got = f"a Jetson with Jetson Linux {host.l4t}"
            do = "export the bundle again with --target jetson" + (f" --jetpack {host.jetpack}" if host.jetpack else "")
            raise EngineError(where, expected="a desktop or server GPU", got=got, do=do)
        return
    device = DEVICES[jetson.device]
    if host.l4t is None:
        do = "run this on the device, or export again with --target tensorrt"
        raise EngineError(where, expected=f"{device.name} with JetPack {jetson.jetpack}", got="no Jetson", do=do)
    if host.jetpack != jetson.jetpack and not _same_stack(host.jetpack, jetson.jetpack):
        got = f"JetPack {host.jetpack or 'unknown'}, Jetson Linux {host.l4t}"
        do = f"export the bundle again with --jetpack {host.jetpack}" if host.jetpack else "update mdpose-edge"
        raise EngineError(where, expected=f"JetPack {jetson.jetpack}", got=got, do=do)
    if host.gpu.compute_capability != jetson.compute_capability:
        expected = f"{device.name}, compute capability {show(jetson.compute_capability)}"
        got = f"{host.gpu.name}, compute capability {show(host.gpu.compute_capability)}"
        raise EngineError(where, expected=expected, got=got, do="export the bundle again with its --device")


def _same_stack(one: str | None, other: str) -> bool:
    """Say whether two JetPacks bring the same TensorRT and CUDA, as 6.1 and 6.2 do."""
    if one is None:
        return False
    first, second = JETPACKS[one], JETPACKS[other]
    return (first.tensorrt, first.cuda) == (second.tensorrt, second.cuda)


def _with_cached_memory(gpu: Gpu) -> Gpu:
    """Count what the kernel gives back on demand, where CPU and GPU share memory.

    There the driver counts the kernel's page cache as used (ollama/ollama#12283), and copying a bundle fills that.
    """
    available = memory_available_mb() if gpu.integrated else None
    if not isinstance(available, int):
        return gpu
    return replace(gpu, free_mib=max(gpu.free_mib, available * 1_000_000 // MIB))


def _machine() -> str:
    """Digest the machine's id: it is meant to be kept from the network, and manifests may travel."""
    try:
        text = (ROOT / MACHINE_ID_FILE).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return hashlib.sha256(f"mdpose-edge {text}".encode()).hexdigest() if text else ""
