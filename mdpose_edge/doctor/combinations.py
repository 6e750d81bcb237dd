"""Combinations that are known not to work, each with its remedy."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from mdpose_edge.doctor.findings import Finding
from mdpose_edge.doctor.packages import OPENCV, Version, installed_version, numbers
from mdpose_edge.machine.jetson import jetson_linux
from mdpose_edge.trt.platforms import JetPack, check_gpu, jetpack_of_l4t, show

_ONNXRUNTIME = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")


@dataclass(frozen=True)
class Surroundings:
    """What the rules look at."""

    version: Version
    """A distribution's version, or None where it is not installed."""
    l4t: str
    """Of Jetson Linux, or "" on other machines."""
    python: str
    tensorrt: str | None
    """What `import tensorrt` says, which on a Jetson no distribution stands for."""
    gpus: Sequence[tuple[str, tuple[int, int]]]
    """Name and compute capability of each NVIDIA GPU."""
    opencv_build: str
    """What OpenCV says of how it was built."""
    cameras: Sequence[Path]


def look_around(gpus: Sequence[tuple[str, tuple[int, int]]] = (), root: Path = Path("/")) -> Surroundings:
    """Gather what the rules look at.

    Args:
        gpus: name and compute capability of each, as nvidia-smi has them.
        root: where /etc and /dev are; another folder in tests.
    """
    import cv2

    return Surroundings(
        version=installed_version,
        l4t=jetson_linux(root) or "",
        python=".".join(platform.python_version_tuple()[:2]),
        tensorrt=_tensorrt_version(),
        gpus=gpus,
        opencv_build=cv2.getBuildInformation(),
        cameras=sorted((root / "dev").glob("video*")),
    )


def check_combinations(around: Surroundings) -> list[Finding]:
    """Apply every rule."""
    return [finding for rule in RULES for finding in rule(around)]


def _one_of(around: Surroundings, names: Sequence[str], module: str) -> Iterator[Finding]:
    there = [name for name in names if around.version(name) is not None]
    if len(there) > 1:
        found = f"{' and '.join(there)} are installed, and overwrite one another's {module}"
        remedy = f"pip uninstall {' '.join(there)}, then install one of them"
        yield Finding("combinations", module, "broken", found, remedy)


def _one_opencv(around: Surroundings) -> Iterator[Finding]:
    return _one_of(around, OPENCV, "cv2")


def _one_onnxruntime(around: Surroundings) -> Iterator[Finding]:
    return _one_of(around, _ONNXRUNTIME, "onnxruntime")


def _numpy_2(around: Surroundings) -> Iterator[Finding]:
    """Onnxruntime is compiled against numpy 1 up to 1.18."""
    numpy, runtime = around.version("numpy"), around.version("onnxruntime")
    if numpy and runtime and numbers(numpy) >= (2,) and numbers(runtime) < (1, 19):
        found = f"onnxruntime {runtime} is compiled for numpy 1, and numpy is {numpy}"
        yield Finding("combinations", "numpy", "broken", found, 'pip install "onnxruntime>=1.19", or "numpy<2"')


def _jetpack(around: Surroundings) -> Iterator[Finding]:
    if not around.l4t:
        return
    jetpack = jetpack_of_l4t(around.l4t)
    if jetpack is None:
        found = f"Jetson Linux {around.l4t}, which this version knows no JetPack for"
        yield Finding("combinations", "JetPack", "note", found, "update mdpose-edge")
        return
    says = f"{jetpack.version} (Jetson Linux {around.l4t}): TensorRT {jetpack.tensorrt}, CUDA {jetpack.cuda}"
    yield Finding("combinations", "JetPack", "ok", f"{says}, Python {jetpack.python}")
    yield from _jetpack_python(around, jetpack)
    yield from _jetpack_tensorrt(around, jetpack)


def _jetpack_python(around: Surroundings, jetpack: JetPack) -> Iterator[Finding]:
    """JetPack's TensorRT has bindings for the system's Python only."""
    if around.python != jetpack.python:
        found = f"this is Python {around.python}; JetPack {jetpack.version} has TensorRT for {jetpack.python}"
        remedy = f"make the environment with python{jetpack.python} -m venv --system-site-packages"
        yield Finding("combinations", "Python", "note" if around.tensorrt else "broken", found, remedy)
    elif around.tensorrt is None:
        found = "JetPack's TensorRT is not seen from this environment"
        remedy = "make the environment with --system-site-packages, or apt install python3-libnvinfer"
        yield Finding("combinations", "TensorRT", "broken", found, remedy)


def _jetpack_tensorrt(around: Surroundings, jetpack: JetPack) -> Iterator[Finding]:
    if around.tensorrt is None:
        return
    offered = (jetpack.tensorrt, *jetpack.other_tensorrt)
    if numbers(around.tensorrt)[:2] not in {numbers(version)[:2] for version in offered}:
        found = f"TensorRT {around.tensorrt}, where JetPack {jetpack.version} has {' or '.join(offered)}"
        remedy = "pip uninstall tensorrt, and use JetPack's own"
        yield Finding("combinations", "TensorRT", "broken", found, remedy)


def _gpu_for_tensorrt(around: Surroundings) -> Iterator[Finding]:
    if around.tensorrt is None or around.l4t:
        return
    for name, capability in around.gpus:
        reason = check_gpu(numbers(around.tensorrt), capability)
        if reason is not None:
            found = f"{name} has compute capability {show(capability)}, and {reason}"
            yield Finding("combinations", "GPU", "broken", found, "install a TensorRT that has code for it")


def _tensorrt_and_pycuda(around: Surroundings) -> Iterator[Finding]:
    if around.tensorrt is not None and around.version("pycuda") is None:
        found = "TensorRT is there, and pycuda is not"
        yield Finding("combinations", "pycuda", "note", found, 'pip install "mdpose-edge[tensorrt]"')


def _opencv_video(around: Surroundings) -> Iterator[Finding]:
    """The wheels of OpenCV bring FFmpeg and no GStreamer, which a Jetson's CSI cameras and its decoders need."""
    built = {name: _is_built_in(around.opencv_build, name) for name in ("FFMPEG", "GStreamer")}
    text = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in built.items())
    if around.l4t and not built["GStreamer"]:
        remedy = "for csi: sources, use JetPack's own OpenCV, as docs/jetson.md says"
        yield Finding("combinations", "OpenCV video", "note", text, remedy)
    elif not any(built.values()):
        remedy = 'pip install --force-reinstall "opencv-python>=4.7"'
        yield Finding("combinations", "OpenCV video", "note", f"{text}: no video files", remedy)
    else:
        yield Finding("combinations", "OpenCV video", "ok", text)


def _cameras(around: Surroundings) -> Iterator[Finding]:
    for camera in around.cameras:
        if not os.access(camera, os.R_OK | os.W_OK):
            found = f"{camera} may not be opened by this user"
            yield Finding("combinations", "camera", "note", found, 'sudo usermod -aG video "$USER", then log in again')


def _is_built_in(build: str, name: str) -> bool:
    lines = [line.partition(":")[2] for line in build.splitlines() if line.strip().startswith(f"{name}:")]
    return any("YES" in line for line in lines)


def _tensorrt_version() -> str | None:
    """Ask TensorRT itself; one that is there and cannot be imported is the engine check's to report."""
    try:
        return str(import_module("tensorrt").__version__)
    except (ImportError, AttributeError):
        return None


RULES: tuple[Callable[[Surroundings], Iterator[Finding]], ...] = (
    _one_opencv,
    _one_onnxruntime,
    _numpy_2,
    _jetpack,
    _gpu_for_tensorrt,
    _tensorrt_and_pycuda,
    _opencv_video,
    _cameras,
)
